"""What a pool can tell about itself."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.calls.call import CallOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker at one moment.

    ``in_flight``: calls that were sent to it and have not ended; ``leaving``: it gets no more and
    ends after these; ``spare``: it gets none yet, and is ready to take another one's place.
    ``shared_memory_bytes``: memory that carries large buffers to and from it, in use or kept for
    the next ones. ``devices``: the accelerators that it was given.
    """

    worker_id: str
    pid: int | None
    in_flight: int
    completed: int
    leaving: bool
    spare: bool = False
    shared_memory_bytes: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment: gauges first, then counters since its start.

    ``size`` is how many workers it is to have, ``ready`` how many are up and serve, ``spares`` how
    many are up beyond them.

    Every submitted call is counted in exactly one of ``queued``, ``running`` (sent to a worker),
    ``stopping`` (its caller has been answered, its worker has not stopped it yet), ``succeeded``,
    ``failed``, ``timed_out`` and ``cancelled``. Of those queued, ``queued_high`` and ``queued_low``
    have another priority than normal, and ``queued_for_one_worker`` are known to wait for a
    session's worker or behind a call that does. ``sessions`` are bound to a worker. ``refused``
    calls (PoolSaturated, WorkerBusy, SessionWorkerUnavailable) are not counted as submitted;
    ``queue_timeouts`` are a part of ``timed_out``. Calls that travel together are one call here;
    there were ``batches`` of them, with ``batched`` calls in all.
    """

    size: int
    ready: int
    starting: int
    queued: int
    running: int
    stopping: int
    spares: int = 0
    queued_high: int = 0
    queued_low: int = 0
    queued_for_one_worker: int = 0
    sessions: int = 0
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    workers_started: int = 0
    workers_lost: int = 0
    workers_recycled: int = 0
    session_hits: int = 0
    session_misses: int = 0
    recalled: int = 0
    refused: int = 0
    queue_timeouts: int = 0
    batches: int = 0
    batched: int = 0


@dataclass(slots=True)
class Counters:
    """The counters of a running pool; names as in :class:`PoolStats`."""

    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    recalled: int = 0
    refused: int = 0
    queue_timeouts: int = 0
    batches: int = 0
    batched: int = 0

    def count(self, outcome: CallOutcome) -> None:
        """Count the end of a call; the outcomes are named as the counters."""
        setattr(self, outcome.value, getattr(self, outcome.value) + 1)
