"""Calls that are made a second time when the first takes long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from snakepit.checks import is_number, seconds
from snakepit.errors import ConfigurationError, SnakepitError
from snakepit.policies.budget import AttemptBudget
from snakepit.policies.durations import RecentDurations
from snakepit.policies.stack import Policy, PolicyCall, Proceed

_QUANTILE: Final = 0.95


class HedgePolicy(Policy):
    """Makes an idempotent call a second time when it has no answer after a while. The first answer
    counts; the other call is cancelled.

    It helps when now and then a call is slow for a reason of its worker's, and costs where all are
    slow (J. Dean and L. A. Barroso, The Tail at Scale, Communications of the ACM 56(2), 2013).
    Cancelling a sync command costs its worker, which is replaced. An error is an answer, too,
    unless it is ``retryable``: then the other call may still succeed.

    Calls that are not ``idempotent`` or belong to a session, and streams, pass unchanged: a session
    has one worker that is to serve it.

    Args:
        after: seconds without an answer; None for as long as 95 % of the command's last calls
            took, once there have been 20 of it.
        budget: second calls for each call, on average over all that use this object; a burst of
            ten more is allowed.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        calls = with_policies(pool, HedgePolicy(after=0.05))
        await calls.execute("look_up", {"key": "a"}, idempotent=True)
    """

    def __init__(self, *, after: float | timedelta | None = None, budget: float = 0.05) -> None:
        if not is_number(budget) or not 0 <= budget <= 1:
            raise ConfigurationError(
                f"budget is {budget!r}; it has to be a part of the calls, such as 0.05"
            )
        self._after = None if after is None else seconds("after", after)
        self._budget = AttemptBudget(budget)
        self._durations: dict[str, RecentDurations] = {}

    def __repr__(self) -> str:
        return f"HedgePolicy(after={self._after})"

    async def execute(self, call: PolicyCall, proceed: Proceed) -> Any:
        """Run a call, twice if need be."""
        if not call.idempotent or call.session_id is not None:
            return await proceed(call)
        self._budget.earn()
        started = time.monotonic()
        delay = self._delay(call.command)
        if delay is None:
            result = await proceed(call)
        else:
            result = await self._first_of_two(call, proceed, delay)
        if self._after is None:
            self._record(call.command, time.monotonic() - started)
        return result

    def _delay(self, command: str) -> float | None:
        if self._after is not None:
            return self._after
        durations = self._durations.get(command)
        return None if durations is None else durations.quantile(_QUANTILE)

    def _record(self, command: str, seconds: float) -> None:
        # Only of commands that exist: what does not raises.
        self._durations.setdefault(command, RecentDurations()).record(seconds)

    async def _first_of_two(self, call: PolicyCall, proceed: Proceed, delay: float) -> Any:
        tasks = [asyncio.ensure_future(proceed(call))]
        try:
            await asyncio.wait(tasks, timeout=delay)
            if not tasks[0].done() and self._budget.spend():
                tasks.append(asyncio.ensure_future(proceed(call)))
            return await _first_answer(tasks)
        finally:
            for task in tasks:
                task.cancel()
            # Each ends at once; its error, if it has one, is of no interest any more.
            await asyncio.gather(*tasks, return_exceptions=True)


async def _first_answer(tasks: Sequence[asyncio.Future[Any]]) -> Any:
    """The result of the first task that has one; else the first error, at once when it is final."""
    waiting = set(tasks)
    failed: BaseException | None = None
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            failed = failed or error
            if not (isinstance(error, SnakepitError) and error.retryable):
                raise error
    assert failed is not None
    raise failed
