"""Calls that go through policies on their way to a pool."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from snakepit.calls.nesting import current_chain, earliest_deadline
from snakepit.errors import CallTimeout, ConfigurationError, Outcome
from snakepit.options import USE_DEFAULT, Timeout, seconds


class CallTarget(Protocol):
    """What runs commands: a pool, a session, a stack of policies, or something of your own.

    Both methods take ``(command, args=None, *, timeout, idempotent, ...)`` as those of
    :class:`snakepit.Pool`; only what is used has to be there. Two attributes are looked at where
    there are such: ``default_timeout``, the seconds that a call may take which does not say, and
    ``session_id``, the session that all calls belong to.
    """

    def execute(self, *args: Any, **options: Any) -> Awaitable[Any]:
        """Run a command."""

    def execute_stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """Iterate over the items of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCall:
    """A call on its way through policies.

    Attributes:
        command: the command's name.
        args: its keyword arguments.
        deadline: when its time is up, on ``time.monotonic()``'s clock; None for no limit. Pauses
            and further attempts count.
        idempotent: whether running it twice does no harm.
        session_id: the session that it belongs to, if any.
        options: whatever else the caller said: ``session_id``, ``priority``, ...
    """

    command: str
    args: Mapping[str, Any] | None = None
    deadline: float | None = None
    idempotent: bool = False
    session_id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def remaining(self, now: float) -> float | None:
        """Seconds left, below 0 if its time is over; None for no limit."""
        return None if self.deadline is None else self.deadline - now

    def within(self, limit: float | None, now: float) -> PolicyCall:
        """The same call, with at most ``limit`` seconds from now."""
        if limit is None or (self.deadline is not None and self.deadline <= now + limit):
            return self
        return replace(self, deadline=now + limit)


Proceed = Callable[[PolicyCall], Awaitable[Any]]
"""Makes a call, through the policies that are further in."""
ProceedStream = Callable[[PolicyCall], AsyncGenerator[Any]]
"""The same for a stream."""


class Policy:
    """What a call passes on its way. Subclasses override what they care about; calls that they do
    not handle pass unchanged. Both methods run in the caller's task.

    Example::

        class Logged(Policy):
            async def execute(self, call, proceed):
                print("before", call.command)
                return await proceed(call)
    """

    async def execute(self, call: PolicyCall, proceed: Proceed) -> Any:
        """Run a call by ``proceed(call)``: once, several times, or not at all."""
        return await proceed(call)

    def execute_stream(self, call: PolicyCall, proceed: ProceedStream) -> AsyncGenerator[Any]:
        """The items of a stream; ``proceed(call)`` gives those of the command."""
        return proceed(call)


class PolicyStack:
    """Runs commands through policies; made by :func:`with_policies`."""

    def __init__(self, target: CallTarget, policies: tuple[Policy, ...]) -> None:
        self._target = target
        self._policies = policies
        execute: Proceed = self._execute
        stream: ProceedStream = self._execute_stream
        for policy in reversed(policies):
            execute = partial(policy.execute, proceed=execute)
            stream = partial(policy.execute_stream, proceed=stream)
        self._outermost = execute
        self._outermost_stream = stream

    def __repr__(self) -> str:
        return f"with_policies({', '.join(map(repr, (self._target, *self._policies)))})"

    @property
    def default_timeout(self) -> float | None:
        """Seconds that a call may take which does not say otherwise; None for no limit."""
        limit: float | None = getattr(self._target, "default_timeout", None)
        return limit

    @property
    def session_id(self) -> str | None:
        """The session that all calls belong to, if they go to one."""
        session_id: str | None = getattr(self._target, "session_id", None)
        return session_id

    async def execute(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        idempotent: bool = False,
        **options: Any,
    ) -> Any:
        """Run a command through the policies and return its result.

        Args:
            timeout: seconds for all of it, pauses and further attempts included; the target's
                default if not given.
            idempotent: running the command twice does no harm. Without it a call that may have run
                is never made again.
            options: for the target, such as ``session_id`` or ``priority``.

        The other arguments are those of :meth:`snakepit.Pool.execute`, and so are the errors; each
        policy says which it adds.
        """
        return await self._outermost(self._call(command, args, timeout, idempotent, options))

    async def execute_stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = USE_DEFAULT,
        idempotent: bool = False,
        **options: Any,
    ) -> AsyncGenerator[Any]:
        """Iterate over the items of a command that streams, through the policies.

        The arguments are those of ``execute``, and for the target those of its
        ``execute_stream``.
        """
        call = self._call(command, args, timeout, idempotent, options)
        async with aclosing(self._outermost_stream(call)) as items:
            async for item in items:
                yield item

    def _call(
        self,
        command: str,
        args: Mapping[str, Any] | None,
        timeout: Timeout,
        idempotent: bool,
        options: Mapping[str, Any],
    ) -> PolicyCall:
        limit = self.default_timeout if timeout is USE_DEFAULT else timeout
        deadline = None if limit is None else time.monotonic() + seconds("timeout", limit)
        chain = current_chain()
        if chain:
            deadline = earliest_deadline(deadline, chain)
        return PolicyCall(
            command=command,
            args=args,
            deadline=deadline,
            idempotent=idempotent,
            session_id=options.get("session_id", self.session_id),
            options=options,
        )

    async def _execute(self, call: PolicyCall) -> Any:
        return await self._target.execute(call.command, call.args, **_options_for_target(call))

    async def _execute_stream(self, call: PolicyCall) -> AsyncGenerator[Any]:
        options = _options_for_target(call)
        items: Any = self._target.execute_stream(call.command, call.args, **options)
        async with aclosing(items):
            async for item in items:
                yield item


def with_policies(target: CallTarget, *policies: Policy) -> PolicyStack:
    """Have the calls of ``target`` go through policies, the outermost first.

    The usual order is retry, hedge, breaker: then a breaker counts each attempt, and refuses
    further ones. A policy object may be in several stacks, which then share what it has seen: its
    budget, or whether the circuit is open. All of it belongs to one event loop.

    Args:
        target: a pool, a session, another stack, or anything with an ``execute`` like theirs. It
            is not changed, and may be used beside.
        policies: :class:`~snakepit.RetryPolicy`, :class:`~snakepit.HedgePolicy`,
            :class:`~snakepit.CircuitBreaker`, or a :class:`~snakepit.policies.Policy` of your own.

    Raises:
        ConfigurationError: something in ``policies`` is no policy.

    Example::

        calls = with_policies(pool, RetryPolicy(attempts=4), CircuitBreaker())
        await calls.execute("fetch", {"key": "a"}, timeout=10.0, idempotent=True)
    """
    for policy in policies:
        if not isinstance(policy, Policy):
            raise ConfigurationError(
                f"{policy!r} is no policy; give an instance such as RetryPolicy(), or one of a "
                "class that derives from snakepit.policies.Policy"
            )
    return PolicyStack(target, policies)


def _options_for_target(call: PolicyCall) -> dict[str, Any]:
    left = call.remaining(time.monotonic())
    if left is not None and left <= 0.0:
        # A pause took longer than it was told to.
        error = CallTimeout.of(call.command, limit="total", timeout_s=0.0, queued_s=0.0, ran_s=0.0)
        error.outcome = Outcome.NONE
        raise error
    return {**call.options, "timeout": left, "idempotent": call.idempotent}
