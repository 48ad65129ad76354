"""What a command can see of the call it serves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar, Token
from typing import Any, Protocol

from snakepit.errors import NoCurrentCall
from snakepit.telemetry import bus
from snakepit.telemetry.trace import correlation_id_of, headers, idempotency_key_of
from snakepit.wire.messages import CallRequest
from snakepit.worker.batches import SUFFIX
from snakepit.worker.marks import DeadlineMark


class HostCaller(Protocol):
    """What a context needs of the engine that runs its call, in the worker ``worker_id``."""

    worker_id: str

    def call_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any: ...
    def call_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> Iterator[Any]: ...
    async def acall_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any: ...
    def acall_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> AsyncIterator[Any]: ...
    def running_call(self) -> CallContext | None: ...


class CallContext:
    """The call that a command is serving; get it with :func:`current_call`. Lives in the worker
    process.

    Attributes:
        call_id: unique within the life of the worker.
        deadline: when its time is up, on ``time.monotonic()``'s clock of this process, or None.
        cancelled: whether the call's result is no longer wanted. Long loops of an uninterruptible
            command look at it.
    """

    __slots__ = ("_engine", "_request", "call_id", "cancelled", "deadline")

    def __init__(self, engine: HostCaller, call_id: int, request: CallRequest) -> None:
        self._engine = engine
        self._request = request
        self.call_id = call_id
        timeout = request.timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.cancelled = False

    @property
    def command(self) -> str:
        """The name its callers used."""
        return self._request.command.removesuffix(SUFFIX)

    @property
    def session_id(self) -> str | None:
        """The session the call belongs to, or None."""
        return self._request.session

    @property
    def correlation_id(self) -> str:
        """The text by which events, errors and log records of the host name this call."""
        return correlation_id_of(self._request.trace) or f"{self.worker_id}/{self.call_id}"

    @property
    def idempotency_key(self) -> str | None:
        """Its caller's own name for the call, the same in each attempt; for providers that do once
        what they are asked twice under one key. None without one, and in a batch.
        """
        return idempotency_key_of(self._request.trace)

    @property
    def worker_id(self) -> str:
        """The worker that the code runs in."""
        return self._engine.worker_id

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The W3C trace context that the host sent with the call: ``traceparent`` and perhaps
        ``tracestate``; empty without one.
        """
        return headers(self._request.trace)

    def trace_for_host(self) -> dict[str, str]:
        """The trace context of a call that is made on behalf of this one: that of the running code,
        if something tells it, or else this call's own.
        """
        if bus.listening and (running := headers(bus.trace_context(self.correlation_id))):
            return running
        return headers(self._request.trace)

    def remaining(self) -> float | None:
        """Seconds left until the deadline, at least 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def call_host(self, name: str, args: Mapping[str, Any] | None = None) -> Any:
        """Call a function of the host and return its result. For sync commands; blocks.

        While it waits, calls that the host function makes back into this worker run on top of this
        one.

        Raises:
            UnknownCommand: the host offers no such function.
            EncodeError: an argument can't travel.
            SnakepitError: what the host function raised; other exceptions arrive as RemoteError.

        Example::

            price = snakepit.current_call().call_host("price", {"item": "tea"})
        """
        return self._engine.call_host(self, name, args or {})

    def call_host_stream(self, name: str, args: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The items of a generator function of the host. For sync commands; as ``call_host``.

        This is how a worker takes a stream from its host: it asks for the next item when it wants
        it.

        Example::

            total = sum(part.sum() for part in snakepit.current_call().call_host_stream("parts"))
        """
        return self._engine.call_host_stream(self, name, args or {})

    async def acall_host(self, name: str, args: Mapping[str, Any] | None = None) -> Any:
        """As ``call_host``, for async commands."""
        return await self._engine.acall_host(self, name, args or {})

    def acall_host_stream(
        self, name: str, args: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Any]:
        """As ``call_host_stream``, for async commands."""
        return self._engine.acall_host_stream(self, name, args or {})


_current: ContextVar[CallContext] = ContextVar("snakepit_current_call")
_engines: list[HostCaller] = []
_mark: DeadlineMark | None = None
Entered = tuple[Token[CallContext], float | None]


def current_call() -> CallContext:
    """The call that the running code serves. Works in commands, in tasks and threads they start.

    (A thread the command starts itself knows its call only where the worker runs one call at a
    time.)

    Raises:
        NoCurrentCall: the code runs in no call.

    Example::

        class Fetcher:
            @snakepit.command
            def fetch(self, url: str) -> bytes:
                left = snakepit.current_call().remaining()
                with urllib.request.urlopen(url, timeout=left) as answer:
                    return answer.read()
    """
    context = find_call()
    if context is None:
        raise NoCurrentCall("no call is being served here; use current_call() inside a command")
    return context


def find_call() -> CallContext | None:
    """As ``current_call``; None where the code runs in no call."""
    context = _current.get(None)
    return _engines[0].running_call() if context is None and _engines else context


def serve_with(engine: HostCaller) -> None:
    """Make ``engine`` the one that ``current_call`` asks in threads of a command's own."""
    _engines[:] = [engine]


def mark_deadlines(mark: DeadlineMark) -> None:
    """Show on ``mark`` the earliest deadline of the calls that run."""
    global _mark  # noqa: PLW0603  # a process serves one host; read at every call
    _mark = mark


def enter_call(context: CallContext) -> Entered:
    """Make ``context`` current in this execution context; returns what ``leave_call`` needs."""
    deadline = context.deadline
    if deadline is not None and _mark is not None:
        _mark.enter(deadline)
    return _current.set(context), deadline


def leave_call(entered: Entered) -> None:
    """Undo ``enter_call``: the call has ended."""
    token, deadline = entered
    _current.reset(token)
    if deadline is not None and _mark is not None:
        _mark.leave(deadline)
