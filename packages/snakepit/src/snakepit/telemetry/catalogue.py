"""All events of this library: their names, measurements and metadata, and when they happen.

The table in docs/telemetry.md and the tests of the events are
compared with it, so it is what programs can rely on. Every event has all of its measurements and
metadata, None where there is nothing to say. Names of measurements end with their unit; the others
are numbers of things.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class EventSpec(NamedTuple):
    """One event."""

    name: str
    measurements: tuple[str, ...]
    metadata: tuple[str, ...]
    when: str

    @property
    def full_name(self) -> str:
        """The name by which it is attached to."""
        return f"snakepit.{self.name}"


#: What a pool tells of itself at intervals: these of its :class:`~snakepit.PoolStats`.
POOL_GAUGES: Final = ("size", "ready", "starting", "queued", "running", "stopping", "sessions")
_CALL: Final = ("pool", "correlation_id", "command", "session_id", "streaming")
_SENT: Final = (*_CALL, "worker_id")
_ENDED: Final = (*_SENT, "outcome", "success")
_ERROR: Final = ("error", "error_type")
_WORKER: Final = ("pool", "worker_id", "pid")
_LIFE: Final = ("uptime_s", "calls", "in_flight")
_DEATH: Final = (*_WORKER, "reason", "exit_code", "signal")
_HOST_CALL: Final = (
    "pool", "correlation_id", "function", "worker_id", "session_id", "call_id", "trace_context"
)  # fmt: skip
_COMMAND: Final = ("correlation_id", "command", "session_id", "worker_id", "trace_context")

_POOL_EVENTS: Final = (
    EventSpec("pool.init_started", ("workers",), ("pool",), "a pool starts its workers"),
    EventSpec(
        "pool.initialized", ("duration_s", "workers"), ("pool", "success", *_ERROR),
        "it is open with so many ready, or could not start",
    ),
    EventSpec(
        "pool.status",
        POOL_GAUGES, ("pool",),
        "after each look at the workers: at the heartbeat's interval, or each second",
    ),
    EventSpec(
        "pool.saturated", ("queued", "queue_limit"), ("pool",),
        "a call is refused because the queue is full",
    ),
    EventSpec(
        "pool.capacity_reached", ("capacity",), ("pool",), "a call has to wait, and no other did"
    ),
    EventSpec(
        "pool.reloaded", ("duration_s", "workers"), ("pool", "success", *_ERROR),
        "`reload` has replaced the workers, or failed",
    ),
    EventSpec(
        "pool.scaled", ("size", "size_before"), ("pool", "reason"),
        "its size follows its calls; workers come or leave",
    ),
    EventSpec(
        "pool.broken", ("failures",), ("pool", *_ERROR),
        "workers keep failing, and no more are started",
    ),
    EventSpec("pool.closed", ("duration_s",), ("pool",), "it is closed; how long that took"),
)  # fmt: skip

_CALL_EVENTS: Final = (
    EventSpec("call.start", (), (*_CALL, "priority", "parent_id"), "the pool has taken a call"),
    EventSpec(
        "call.dispatched", ("queued_s", "queued"), (*_SENT, "batch_id"),
        "it is sent to a worker, perhaps in a batch",
    ),
    EventSpec(
        "batch.dispatched", ("calls", "waited_s", "queued"), _SENT,
        "a batch of calls is sent to a worker; queued, and in the worker, it is one call",
    ),
    EventSpec(
        "call.recalled", (), _SENT, "the worker had not started it; it waits again"
    ),
    EventSpec(
        "call.stop", ("duration_s", "queued_s", "ran_s"), _ENDED, "its caller has the result"
    ),
    EventSpec(
        "call.exception", ("duration_s", "queued_s", "ran_s"), (*_ENDED, *_ERROR),
        "its caller has an error, or went away",
    ),
    EventSpec(
        "call.released", ("ran_s",), _SENT,
        "a worker has stopped a call whose caller had its answer before",
    ),
    EventSpec(
        "call.refused", (), ("pool", "command", "session_id", "error"), "the pool takes a call not"
    ),
    EventSpec("queue.enqueued", ("queued",), _CALL, "a call has to wait; so many do"),
    EventSpec(
        "queue.dequeued", ("waited_s", "queued"), (*_CALL, "reason"),
        "it waits no more: `started`, `timed_out`, `cancelled` or `failed`",
    ),
    EventSpec("queue.timeout", ("waited_s",), _CALL, "its time was over while it waited"),
    EventSpec("stream.opened", ("queued_s",), _SENT, "a stream's call is sent to a worker"),
    EventSpec(
        "stream.message", ("items", "bytes", "delivered", "ran_s"), _SENT,
        "items have come; `delivered` of them in all",
    ),
    EventSpec(
        "stream.closed", ("items", "duration_s"), _ENDED, "a stream has ended, or was left"
    ),
    EventSpec(
        "affinity.assigned", (), ("pool", "session_id", "worker_id", "previous_worker_id"),
        "a session is bound to a worker",
    ),
    EventSpec(
        "affinity.broken", (), ("pool", "session_id", "worker_id", "reason"),
        "it leaves its worker: `worker_left`, `worker_busy`, or `forgotten` over `session_limit`",
    ),
    EventSpec("host_call.start", (), _HOST_CALL, "a command calls a function of the host"),
    EventSpec("host_call.stop", ("duration_s",), (*_HOST_CALL, "success"), "it has returned"),
    EventSpec(
        "host_call.exception", ("duration_s",), (*_HOST_CALL, "success", *_ERROR), "it has raised"
    ),
    EventSpec(
        "quarantine.entered", (), ("pool", "command", "worker_id"),
        "a call is refused from now on, because it has killed workers",
    ),
)  # fmt: skip

_POLICY_EVENTS: Final = (
    EventSpec(
        "retry.attempt", ("attempt", "delay_s"), ("command", *_ERROR),
        "an attempt has failed; the next one follows after a pause",
    ),
    EventSpec("retry.success", ("attempts",), ("command",), "one after the first has succeeded"),
    EventSpec(
        "retry.exhausted", ("attempts",), ("command", *_ERROR),
        "the last attempt has failed, and there will be no other",
    ),
    EventSpec(
        "circuit_breaker.opened", (), ("breaker", "command"), "no call passes from now on"
    ),
    EventSpec("circuit_breaker.half_opened", (), ("breaker", "command"), "a few pass, as probes"),
    EventSpec("circuit_breaker.closed", (), ("breaker", "command"), "all calls pass again"),
    EventSpec(
        "circuit_breaker.rejected", ("retry_after_s",), ("breaker", "command"),
        "a call was refused, because the circuit is open",
    ),
)  # fmt: skip

_WORKER_EVENTS: Final = (
    EventSpec("worker.spawn_started", (), ("pool", "worker_id"), "a worker is being started"),
    EventSpec(
        "worker.spawned", ("duration_s",), (*_WORKER, "forked"),
        "its process runs, forked from a template or not",
    ),
    EventSpec("worker.ready", ("duration_s",), _WORKER, "it takes calls"),
    EventSpec(
        "worker.spawn_failed", ("duration_s",), ("pool", "worker_id", *_ERROR),
        "it did not become ready",
    ),
    EventSpec(
        "worker.restarted", ("delay_s",), ("pool", "worker_id"),
        "it takes the place of one that died or was unwanted",
    ),
    EventSpec(
        "worker.recycled", _LIFE, (*_WORKER, "reason"), "it gets no more calls: its successor does"
    ),
    EventSpec(
        "worker.tainted", _LIFE, (*_WORKER, "reason"),
        "it gets no more calls: one of it was broken off, or does not stop",
    ),
    EventSpec(
        "worker.hung", ("silent_s",), (*_WORKER, "verdict"),
        "it will never answer, and is killed: `stopped` or `deadlocked`",
    ),
    EventSpec("worker.crash", _LIFE, (*_DEATH, "phase"), "it died, and nobody expected it to"),
    EventSpec("worker.terminated", _LIFE, (*_DEATH, "planned"), "it is gone, however it ended"),
    EventSpec(
        "limit.exceeded", (), ("pool", "worker_id", "limit"),
        "it used up its `cpu_time`, or got no more `memory`",
    ),
    EventSpec(
        "heartbeat.monitor_started", ("interval_s",), ("pool",), "workers are looked at"
    ),
    EventSpec("heartbeat.monitor_stopped", ("interval_s",), ("pool",), "and no more"),
    EventSpec("heartbeat.ping_sent", (), _WORKER, "a worker is asked for a sign of life"),
    EventSpec("heartbeat.pong_received", ("latency_s",), _WORKER, "it has answered"),
    EventSpec(
        "heartbeat.missed", ("missed",), (*_WORKER, "verdict"),
        "it has not, for so many looks; what to think of it",
    ),
    EventSpec(
        "telemetry.dropped", ("events",), ("pool", "worker_id", "by"),
        "events of its code were dropped, by the `worker` or the `host`",
    ),
    EventSpec(
        "shared_memory.export", ("bytes",), ("pool", "worker_id"),
        "large buffers are sent through shared memory",
    ),
    EventSpec(
        "shared_memory.import", ("bytes",), ("pool", "worker_id"), "large buffers have come so"
    ),
    EventSpec(
        "shared_memory.fallback", ("bytes",), ("pool", "worker_id"),
        "there is no room for large buffers, and they are sent as bytes",
    ),
)  # fmt: skip

_PROCESS_EVENTS: Final = (
    EventSpec("keeper.started", (), ("pid",), "the parent of all processes runs"),
    EventSpec("keeper.swept", ("processes",), ("pid",), "it has killed what an earlier host left"),
    EventSpec("keeper.terminated", (), ("pid", "planned"), "it is gone, and all below it"),
    EventSpec(
        "template.started", ("duration_s",), ("target", "pid"),
        "a template has imported what its workers need",
    ),
    EventSpec("template.start_failed", (), ("target", *_ERROR), "it could not"),
    EventSpec(
        "template.unsafe", (), ("target",), "that does not survive a fork; workers are spawned"
    ),
    EventSpec("template.terminated", (), ("target", "pid", "planned"), "it forks no more"),
)  # fmt: skip

#: Told in the worker's process, to handlers that are attached there; so are those of shared memory.
IN_WORKERS: Final = (
    EventSpec("command.start", (), _COMMAND, "a command begins"),
    EventSpec("command.stop", ("duration_s",), (*_COMMAND, "success"), "it has returned"),
    EventSpec(
        "command.exception", ("duration_s",), (*_COMMAND, "success", *_ERROR),
        "it has raised, or was stopped",
    ),
)  # fmt: skip

#: Told in the host.
IN_HOST: Final = (
    *_POOL_EVENTS, *_CALL_EVENTS, *_POLICY_EVENTS, *_WORKER_EVENTS, *_PROCESS_EVENTS
)  # fmt: skip
EVENTS: Final = (*IN_HOST, *IN_WORKERS)
