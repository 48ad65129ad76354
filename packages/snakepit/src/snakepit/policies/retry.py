"""Calls that are made again when they failed."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from snakepit.checks import is_number, seconds, whole_number
from snakepit.errors import ConfigurationError, Outcome, SnakepitError
from snakepit.policies import events
from snakepit.policies.backoff import full_jitter
from snakepit.policies.budget import AttemptBudget
from snakepit.policies.stack import Policy, PolicyCall, Proceed, ProceedStream
from snakepit.telemetry import bus


class RetryPolicy(Policy):
    """Makes a call again when it failed and nothing speaks against it.

    A call is only repeated when its error is ``retryable``, and when it either did not start
    (``outcome`` is none) or is ``idempotent``. So what may have had an effect is never done twice
    unless the caller has said that it may be. The last error is raised as it is; its
    ``details["attempts"]`` says how many attempts there were. A call that is cancelled, also in a
    pause, ends at once.

    A stream is repeated only as long as no item of it has arrived.

    Args:
        attempts: attempts in all, the first included.
        first_delay: seconds the pause before the second attempt takes at most. Pauses are random
            parts of a limit that doubles with each attempt (exponential backoff with full jitter).
            After an error that says ``retry_after_s`` (CircuitOpen) that time comes on top.
        longest_delay: seconds that the limit does not exceed.
        attempt_timeout: seconds of one attempt; None for no limit but the call's own. Without it
            an attempt that hangs uses up the call's time, and there is none left for another one.
        budget: further attempts for each call, on average over all calls that use this object; a
            burst of ten more is allowed. It keeps callers from multiplying the load when everything
            fails.

    The ``timeout`` of the call is the limit of all attempts and pauses. A pause after which no time
    would be left is not begun: the error is raised at once.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        calls = with_policies(pool, RetryPolicy(attempts=5, attempt_timeout=1.0))
        await calls.execute("fetch", {"key": "a"}, timeout=10.0, idempotent=True)
    """

    def __init__(
        self,
        *,
        attempts: int = 3,
        first_delay: float | timedelta = 0.1,
        longest_delay: float | timedelta = 10.0,
        attempt_timeout: float | timedelta | None = None,
        budget: float = 0.2,
    ) -> None:
        if not is_number(budget) or not 0 <= budget < math.inf:
            raise ConfigurationError(
                f"budget is {budget!r}; it has to be the further attempts a call, such as 0.2"
            )
        self._attempts = whole_number("attempts", attempts)
        self._first_delay = seconds("first_delay", first_delay)
        self._longest_delay = seconds("longest_delay", longest_delay)
        self._attempt_timeout = (
            None if attempt_timeout is None else seconds("attempt_timeout", attempt_timeout)
        )
        self._budget = AttemptBudget(budget)

    def __repr__(self) -> str:
        return f"RetryPolicy(attempts={self._attempts})"

    async def execute(self, call: PolicyCall, proceed: Proceed) -> Any:
        """Run a call, again if need be."""
        self._budget.earn()
        attempt = 1
        while True:
            try:
                result = await proceed(self._limited(call))
            except SnakepitError as error:
                if not await self._pause(call, attempt, error):
                    raise
            else:
                if attempt > 1 and bus.listening:
                    events.retry_succeeded(call.command, attempt)
                return result
            attempt += 1

    async def execute_stream(self, call: PolicyCall, proceed: ProceedStream) -> AsyncGenerator[Any]:
        """The items of a stream, which is begun again if need be."""
        self._budget.earn()
        attempt = 1
        while True:
            delivered = False
            try:
                async with aclosing(proceed(self._limited(call))) as items:
                    async for item in items:
                        delivered = True
                        yield item
                if attempt > 1 and bus.listening:
                    events.retry_succeeded(call.command, attempt)
                return
            except SnakepitError as error:
                if delivered or not await self._pause(call, attempt, error):
                    raise
            attempt += 1

    def _limited(self, call: PolicyCall) -> PolicyCall:
        return call.within(self._attempt_timeout, time.monotonic())

    async def _pause(self, call: PolicyCall, attempt: int, error: SnakepitError) -> bool:
        """Wait until the next attempt is due; false at once if there is to be none."""
        error.details["attempts"] = attempt
        delay = self.delay_after(error, call, attempt, time.monotonic(), random.random())
        if delay is None or not self._budget.spend():
            if bus.listening and (attempt > 1 or may_repeat(error, call)):
                events.retry_exhausted(call.command, attempt, error)
            return False
        if bus.listening:
            events.retry_attempted(call.command, attempt, delay, error)
        await asyncio.sleep(delay)
        return True

    def delay_after(
        self, error: SnakepitError, call: PolicyCall, attempt: int, now: float, chance: float
    ) -> float | None:
        """Seconds until the next attempt after the ``attempt``-th has failed, or None for no
        further one. Pure; ``chance`` is a random number from 0 to 1.
        """
        if attempt >= self._attempts or not may_repeat(error, call):
            return None
        delay = full_jitter(
            attempt, first=self._first_delay, longest=self._longest_delay, chance=chance
        )
        retry_after = error.details.get("retry_after_s")
        if is_number(retry_after):
            # On top, so that those who were told the same time don't come back together.
            delay += max(0.0, retry_after)
        left = call.remaining(now)
        return None if left is not None and delay >= left else delay


def may_repeat(error: SnakepitError, call: PolicyCall) -> bool:
    """Whether making a call again after ``error`` does no harm and may help. Pure."""
    return error.retryable and (error.outcome is Outcome.NONE or call.idempotent)
