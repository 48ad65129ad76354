"""What a pool tells of the calls that it has now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from snakepit.calls.call import PRIORITIES, Call, Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInfo:
    """One call at one moment. Times in seconds.

    ``state``: it waits (``queued``); it was sent to a worker, which may still have to end another
    one before (``running``); or its caller has been answered, and its worker is to stop it
    (``stopping``). ``queued_s`` is how long it has waited, or did before it was sent;
    ``running_s`` how long ago it was sent, None while it waits, as ``worker_id`` is then.
    ``correlation_id`` is that of its events, log records and errors; one that is sent to another
    worker than it was, since its own had not begun it, has another from then on.
    """

    command: str
    session_id: str | None
    state: str
    priority: Priority
    worker_id: str | None
    correlation_id: str
    queued_s: float
    running_s: float | None


def describe_calls(calls: Iterable[Call], now: float) -> Iterator[CallInfo]:
    """Calls at the moment ``now``, on the clock of ``time.monotonic()``; those that travel
    together each by itself.
    """
    for call in calls:
        if not call.members:
            yield _describe(call, now)
        for member in call.members:
            if member.outcome is None:
                yield _describe(member, now)


def _describe(call: Call, now: float) -> CallInfo:
    started_at = call.started_at
    return CallInfo(
        command=call.command,
        session_id=call.session_id,
        state=call.state.value,
        priority=PRIORITIES[call.priority],
        worker_id=call.worker_id,
        correlation_id=call.correlation_id,
        queued_s=(now if started_at is None else started_at) - call.submitted_at,
        running_s=None if started_at is None else now - started_at,
    )
