"""The events of calls, to workers and to the host: what is told at each step of their way. See
telemetry.catalogue.

Everything is read from the call's one record. Never its arguments, its result or its messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from snakepit.calls.call import PRIORITIES, Call, CallOutcome, CallState
from snakepit.calls.nesting import served_command
from snakepit.calls.scheduler import Rebinding
from snakepit.errors import (
    PoolSaturated,
    SessionWorkerUnavailable,
    SnakepitError,
    WorkerError,
)
from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels
from snakepit.telemetry.trace import CORRELATION_ID, headers

if TYPE_CHECKING:
    from snakepit.calls.nesting import HostCall

_CANCELLED = {"error": "cancelled", "error_type": "CancelledError"}
_DEQUEUED_AS = {
    CallOutcome.TIMED_OUT: "timed_out",
    CallOutcome.CANCELLED: "cancelled",
    CallOutcome.FAILED: "failed",
}


def submitted(pool: str, call: Call) -> None:
    """A pool has taken a call. What it carries of its caller's trace is asked for here; a batch has
    what its first call has.
    """
    if call.members:
        trace = call.members[0].trace
        # The name that a caller gave to one of them is not that of all.
        call.trace = {**headers(trace), CORRELATION_ID: call.correlation_id} if trace else None
        return
    if bus.wants("snakepit.call.start"):
        outer = served_command(call.chain)
        metadata = {
            **_labels(pool, call),
            "priority": PRIORITIES[call.priority],
            "parent_id": None if outer is None else outer.correlation_id,
        }
        bus.tell("snakepit.call.start", {}, metadata)
    if bus.trace_source is not None:
        correlation_id = call.correlation_id
        call.trace = {
            **(call.trace or {}),
            CORRELATION_ID: correlation_id,
            **headers(bus.trace_context(correlation_id)),
        }


def refused(pool: str, call: Call, error: SnakepitError) -> None:
    """A pool has not taken a call."""
    if not call.members:  # those were taken
        metadata = {"pool": pool, "command": call.command, "session_id": call.session_id}
        bus.tell("snakepit.call.refused", {}, {**metadata, "error": error.code})
    if isinstance(error, PoolSaturated):
        queue = {"queued": error.details["queued"], "queue_limit": error.details["queue_limit"]}
        bus.tell("snakepit.pool.saturated", queue, {"pool": pool})
    if isinstance(error, SessionWorkerUnavailable):
        _session_lost(pool, call.session_id, error)


def queued(pool: str, call: Call, waiting: int, capacity: int) -> None:
    """A call has to wait; with it ``waiting`` do, for one of ``capacity`` slots."""
    bus.tell("snakepit.queue.enqueued", {"queued": waiting}, _labels(pool, call))
    if waiting == 1:
        bus.tell("snakepit.pool.capacity_reached", {"capacity": capacity}, {"pool": pool})


def started(pool: str, call: Call, waiting: int, moves: Sequence[Rebinding]) -> None:
    """A call was sent to a worker; ``moves`` are the sessions that were bound anew with that."""
    for move in moves:
        _session_moved(pool, move)
    sent = [each for each in call.members or (call,) if each.started_at is not None]
    if call.members:
        first = {"calls": len(sent), "waited_s": _queued_s(sent[0]), "queued": waiting}
        bus.tell("snakepit.batch.dispatched", first, _sent(pool, call))
    if bus.wants("snakepit.call.dispatched"):
        batch_id = call.correlation_id if call.members else None
        for each in sent:
            measurements = {"queued_s": _queued_s(each), "queued": waiting}
            labels = {**_sent(pool, each), "batch_id": batch_id}
            bus.tell("snakepit.call.dispatched", measurements, labels)
    if call.stream is not None:
        bus.tell("snakepit.stream.opened", {"queued_s": _queued_s(call)}, _sent(pool, call))


def left_queue(pool: str, call: Call, waiting: int, reason: str) -> None:
    """A call waits no more; ``waiting`` others do."""
    if bus.wants("snakepit.queue.dequeued"):
        measurements = {"waited_s": time.monotonic() - call.submitted_at, "queued": waiting}
        metadata = {**_labels(pool, call), "reason": reason}
        bus.tell("snakepit.queue.dequeued", measurements, metadata)


def recalled(pool: str, call: Call, worker_id: str) -> None:
    """A worker will not start a call that it was sent."""
    for each in call.members or (call,):
        labels = {**_labels(pool, each), "worker_id": worker_id}
        bus.tell("snakepit.call.recalled", {}, labels)


def ended(pool: str, call: Call, before: CallState, waiting: int) -> None:
    """A call holds nothing any more; it was in the state ``before``."""
    if before is CallState.STOPPING:
        labels = _sent(pool, call)
        bus.tell("snakepit.call.released", {"ran_s": _ran_s(call, time.monotonic())}, labels)
        return
    if before is CallState.QUEUED and call.outcome is not None:
        left_queue(pool, call, waiting, _DEQUEUED_AS[call.outcome])
        if call.outcome is CallOutcome.TIMED_OUT:
            waited = {"waited_s": time.monotonic() - call.submitted_at}
            bus.tell("snakepit.queue.timeout", waited, _labels(pool, call))
    if isinstance(call.error, SessionWorkerUnavailable):
        _session_lost(pool, call.session_id, call.error)
    if not call.members:
        answered(pool, call)


def answered(pool: str, call: Call) -> None:
    """A caller has its answer, or went away."""
    now = time.monotonic()
    if call.stream is not None and call.started_at is not None:
        count = {"items": call.stream.delivered, "duration_s": now - call.started_at}
        bus.tell("snakepit.stream.closed", count, _ending(pool, call))
    success = call.outcome is CallOutcome.SUCCEEDED
    event = "snakepit.call.stop" if success else "snakepit.call.exception"
    if bus.wants(event):
        queued_s = now - call.submitted_at if call.started_at is None else _queued_s(call)
        measurements = {
            "duration_s": now - call.submitted_at,
            "queued_s": queued_s,
            "ran_s": _ran_s(call, now),
        }
        labels = _ending(pool, call)
        if not success:
            # A caller that went away may have its error already.
            labels |= _CANCELLED if call.error is None else error_labels(call.error)
        bus.tell(event, measurements, labels)


def items_arrived(pool: str, call: Call, count: int, size: int) -> None:
    """A worker has sent items of a stream, of ``size`` bytes."""
    if bus.wants("snakepit.stream.message") and call.stream is not None:
        measurements = {
            "items": count,
            "bytes": size,
            "delivered": call.stream.delivered,
            "ran_s": _ran_s(call, time.monotonic()),
        }
        labels = _sent(pool, call)
        bus.tell("snakepit.stream.message", measurements, labels)


def quarantined(pool: str, command: str, error: WorkerError) -> None:
    """A call of ``command`` has killed workers, the last one with ``error``, and is refused."""
    labels = {"pool": pool, "command": command, "worker_id": error.details.get("worker_id")}
    bus.tell("snakepit.quarantine.entered", {}, labels)


def ran_out_of_memory(pool: str, call: Call) -> None:
    """A worker got no more memory in a call."""
    labels = {"pool": pool, "worker_id": call.worker_id, "limit": "memory"}
    bus.tell("snakepit.limit.exceeded", {}, labels)


def host_call_started(pool: str, call: HostCall) -> float:
    """A worker calls a function of the host; returns the time."""
    bus.tell("snakepit.host_call.start", {}, _host_labels(pool, call))
    return time.monotonic()


def host_call_ended(
    pool: str, call: HostCall, started_at: float, failure: Mapping[str, str] | None
) -> None:
    """The function has ended; ``failure``: the labels of its error."""
    if not started_at:
        return  # nobody listened when it began
    duration = {"duration_s": time.monotonic() - started_at}
    labels = {**_host_labels(pool, call), "success": failure is None}
    if failure is None:
        bus.tell("snakepit.host_call.stop", duration, labels)
    else:
        bus.tell("snakepit.host_call.exception", duration, {**labels, **failure})


@contextmanager
def host_call(pool: str, call: HostCall) -> Iterator[None]:
    """Around the function: both of these."""
    started_at = host_call_started(pool, call)
    failure: Mapping[str, str] | None = None
    try:
        yield
    except BaseException as error:
        failure = error_labels(error)
        raise
    finally:
        host_call_ended(pool, call, started_at, failure)


def _ending(pool: str, call: Call) -> dict[str, Any]:
    return {
        **_sent(pool, call),
        "outcome": None if call.outcome is None else call.outcome.value,
        "success": call.outcome is CallOutcome.SUCCEEDED,
    }


def _labels(pool: str, call: Call) -> dict[str, Any]:
    return {
        "pool": pool,
        CORRELATION_ID: call.correlation_id,
        "command": call.members[0].command if call.members else call.command,
        "session_id": call.session_id,
        "streaming": call.stream is not None,
    }


def _sent(pool: str, call: Call) -> dict[str, Any]:
    return {**_labels(pool, call), "worker_id": call.worker_id}


def _host_labels(pool: str, call: HostCall) -> dict[str, Any]:
    return {
        "pool": pool,
        CORRELATION_ID: call.correlation_id,
        "function": call.command,
        "worker_id": call.worker_id,
        "session_id": call.session_id,
        "call_id": call.call_id,
        "trace_context": call.trace_context,
    }


def _queued_s(call: Call) -> float:
    assert call.started_at is not None
    return call.started_at - call.submitted_at


def _ran_s(call: Call, now: float) -> float:
    if call.started_at is None:
        return 0.0
    return call.ran_s or now - call.started_at


def _session_moved(pool: str, move: Rebinding) -> None:
    labels = {"pool": pool, "session_id": move.session_id}
    if move.before is not None:
        broken = {**labels, "worker_id": move.before, "reason": move.reason}
        bus.tell("snakepit.affinity.broken", {}, broken)
    if move.after is not None:
        assigned = {**labels, "worker_id": move.after, "previous_worker_id": move.before}
        bus.tell("snakepit.affinity.assigned", {}, assigned)


def _session_lost(pool: str, session_id: str | None, error: SessionWorkerUnavailable) -> None:
    labels = {"pool": pool, "session_id": session_id, "worker_id": error.details["worker_id"]}
    bus.tell("snakepit.affinity.broken", {}, {**labels, "reason": "worker_left"})
