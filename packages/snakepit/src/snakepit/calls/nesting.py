"""Calls made by functions of the host: in which other calls, how deep, how long, in whose slot."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

from snakepit.calls.call import Call
from snakepit.calls.scheduler import Scheduler
from snakepit.errors import CallDepthExceeded
from snakepit.telemetry.trace import headers, in_same_trace

_MAX_CALL_DEPTH = 32


class HostCall:
    """A call that a worker's code makes to a function of the host; its first argument.

    Attributes:
        call_id: the worker's number for it.
        command: the name of the function.
        depth: how many calls to the host it is nested in, itself included.
        worker_id: which worker makes it.
        session_id: the session of the command that makes it. It comes from the host's own record,
            so a worker can't claim another one.
    """

    __slots__ = (
        "_deadline",
        "_trace",
        "call_id",
        "command",
        "depth",
        "ended",
        "parent",
        "session_id",
        "worker_id",
    )

    def __init__(
        self,
        call_id: int,
        command: str,
        worker_id: str,
        parent: Call,
        trace: Mapping[str, Any] | None = None,
    ) -> None:
        self.call_id = call_id
        self.command = command
        self.worker_id = worker_id
        self.session_id = parent.session_id
        self.parent = parent
        # Not the length of the chain: what a batch is nested in has no order.
        self.depth: int = 1 + max(outer.depth for outer in parent.chain) if parent.chain else 1
        self._deadline = parent.deadline
        self._trace = trace
        self.ended = False

    @property
    def correlation_id(self) -> str:
        """That of the command that makes this call."""
        return self.parent.correlation_id

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The W3C trace context of the code that makes this call; empty without one. A worker can't
        claim another trace than that of its command.
        """
        theirs, ours = headers(self._trace), headers(self.parent.trace)
        return theirs if theirs and in_same_trace(theirs, ours) else ours

    def remaining(self) -> float | None:
        """Seconds left for the command that makes this call; None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def fence(self) -> None:
        """Say that this call does what must not be done twice. The command that makes it, and those
        that one is nested in, are then no longer ``idempotent``: if they fail, their errors don't
        say that they may be retried.
        """
        self.parent.idempotent = False
        for outer in self.parent.chain:
            if outer.parent is not None:
                outer.parent.idempotent = False


class LocalCall:
    """A call that code of the host makes to a function of the host, which may make calls itself.

    Attributes:
        depth: how many calls of host functions it is nested in, itself included.
        ended: it is over; what still runs of it serves nobody.
        holds: what it has waited for, so that calls nested in it need not wait for it again.
    """

    # No slots, since most calls need no more than these. No worker's command makes it, and no turn
    # of a session comes with it.
    ended = False
    holds: object = None
    parent: Call | None = None
    session_id: str | None = None
    depth = 1
    _outer: Chain

    def __init__(self, name: str, serves: HostCall | None = None) -> None:
        """``serves``: the worker's call that asks for it, which counts as the same one.

        Raises:
            CallDepthExceeded: it is nested too deeply.
        """
        chain = _chain.get() and current_chain()
        if chain:
            innermost = chain[-1]
            self.depth = innermost.depth
            if innermost is not serves:
                self.depth += 1
                if self.depth > _MAX_CALL_DEPTH:
                    _refuse(name, self.depth)

    def enter(self) -> None:
        """The running task goes on with it."""
        self._outer = outer = _chain.get()
        _chain.set((*outer, self))

    def leave(self) -> None:
        """The running task goes on with what it did before."""
        _chain.set(self._outer)


Chain = tuple[HostCall | LocalCall, ...]
_chain: ContextVar[Chain] = ContextVar("snakepit_chain", default=())


def current_chain() -> Chain:
    """The calls of host functions that the running code serves, innermost last.

    A task may outlive the host function that started it; then it serves nobody.
    """
    chain = _chain.get()
    return chain and tuple(host_call for host_call in chain if not host_call.ended)


def held_here() -> list[object]:
    """What the calls hold that the running code is a part of."""
    calls = (call for call in current_chain() if isinstance(call, LocalCall))
    return [call.holds for call in calls if call.holds is not None]


def enter_chain(chain: Chain) -> None:
    """Say what the running task serves.

    Tasks are created in whatever context an event came in, so what they inherit means nothing.
    """
    _chain.set(chain)


def require_depth(command: str, chain: Chain) -> None:
    """Refuse a call that is nested too deeply.

    Raises:
        CallDepthExceeded: it is not made.
    """
    depth = max(host_call.depth for host_call in chain)
    if depth > _MAX_CALL_DEPTH:
        _refuse(command, depth)


def _refuse(name: str, depth: int) -> NoReturn:
    raise CallDepthExceeded(
        f"{name!r} is nested {depth} calls deep; look for a host function that calls itself, or "
        "one and a command that call each other, without end"
    )


def served_command(chain: Chain) -> Call | None:
    """The worker's command that is waiting for the innermost of these calls."""
    for call in reversed(chain):
        if call.parent is not None:
            return call.parent
    return None


def earliest_deadline(own: float | None, chain: Chain) -> float | None:
    """The earlier of a call's own deadline and that of the call it is nested in."""
    served = served_command(chain)
    outer = None if served is None else served.deadline
    return min((deadline for deadline in (own, outer) if deadline is not None), default=None)


def find_lender(call: Call, running: Container[Call], scheduler: Scheduler) -> HostCall | None:
    """The worker's call, waiting in one of the pool's workers, in whose slot ``call`` may run.

    A call made by a host function goes back into the worker that waits for that function, when it
    belongs to the same session, or when no other worker is free: waiting for a slot that only its
    own end could free would be a deadlock.
    """
    for host_call in reversed(call.chain):
        if isinstance(host_call, LocalCall):
            continue
        parent = host_call.parent
        at_home = parent.worker_id == host_call.worker_id and parent in running
        if at_home and _may_borrow(call, host_call, scheduler):
            return host_call
    return None


def _may_borrow(call: Call, host_call: HostCall, scheduler: Scheduler) -> bool:
    # Its session's worker, also when that is leaving: what it kept is there while the parent runs.
    bound_to = scheduler.bound_to(call.session_id) if call.strict else None
    if bound_to is not None:
        return bound_to == host_call.worker_id
    return call.session_id == host_call.parent.session_id or not scheduler.can_start(call)
