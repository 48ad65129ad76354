"""Calls made by host functions on behalf of calls: how deep, how long, in whose slot."""

from __future__ import annotations

from collections.abc import Container

from snakepit.calls import Call
from snakepit.errors import CallDepthExceeded
from snakepit.link.host_calls import HostCall, ancestry
from snakepit.scheduler import Scheduler

_MAX_CALL_DEPTH = 32


def nested_depth(command: str) -> int:
    """How many calls the call about to be made is nested in.

    Raises:
        CallDepthExceeded: too many; it is not made.
    """
    chain = ancestry()
    depth = chain[-1].parent.depth + 1 if chain else 0
    if depth > _MAX_CALL_DEPTH:
        raise CallDepthExceeded(
            f"{command!r} is nested {depth} calls deep; look for a host function and a command "
            "that call each other without end"
        )
    return depth


def earliest_deadline(own: float | None) -> float | None:
    """The earlier of a call's own deadline and that of the call it is nested in."""
    chain = ancestry()
    outer = chain[-1].parent.deadline if chain else None
    return min((deadline for deadline in (own, outer) if deadline is not None), default=None)


def find_lender(call: Call, running: Container[Call], scheduler: Scheduler) -> HostCall | None:
    """The worker's call, waiting in one of the pool's workers, in whose slot ``call`` may run.

    A call made by a host function goes back into the worker that waits for that function, when it
    belongs to the same session, or when no other worker is free: waiting for a slot that only its
    own end could free would be a deadlock.
    """
    for host_call in reversed(ancestry()):
        parent = host_call.parent
        at_home = parent.worker_id == host_call.worker_id and parent in running
        if at_home and _may_borrow(call, host_call, scheduler):
            return host_call
    return None


def _may_borrow(call: Call, host_call: HostCall, scheduler: Scheduler) -> bool:
    home = scheduler.home_of(call.session_id) if call.strict else None
    if home is not None:
        return home == host_call.worker_id
    return call.session_id == host_call.parent.session_id or not scheduler.has_free_slot()
