"""The events of a pool's workers; see telemetry.catalogue."""

from __future__ import annotations

import time
from typing import Any

from snakepit.errors import ResourceLimitExceeded, WorkerError
from snakepit.supervision.heartbeat import Verdict
from snakepit.supervision.member import Member
from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels


def spawn_started(pool: str, worker_id: str) -> None:
    """A worker is being started."""
    bus.tell("snakepit.worker.spawn_started", {}, {"pool": pool, "worker_id": worker_id})


def spawn_failed(pool: str, worker_id: str, error: Exception, began_at: float) -> None:
    """It did not become ready."""
    labels = {"pool": pool, "worker_id": worker_id, **error_labels(error)}
    bus.tell("snakepit.worker.spawn_failed", _since(began_at), labels)


def ready(pool: str, worker_id: str, member: Member, began_at: float) -> None:
    """A worker may be given calls."""
    bus.tell("snakepit.worker.ready", _since(began_at), _labels(pool, worker_id, member))


def restarted(pool: str, worker_id: str, delay: float) -> None:
    """A worker that died, or was unwanted, has its replacement."""
    labels = {"pool": pool, "worker_id": worker_id}
    bus.tell("snakepit.worker.restarted", {"delay_s": delay}, labels)


def recycled(pool: str, worker_id: str, member: Member, reason: str) -> None:
    """A healthy worker gets no more calls: its successor is ready."""
    labels = {**_labels(pool, worker_id, member), "reason": reason}
    bus.tell("snakepit.worker.recycled", _life(member), labels)


def tainted(pool: str, worker_id: str, member: Member, reason: str) -> None:
    """A worker is suspect and gets no more calls."""
    labels = {**_labels(pool, worker_id, member), "reason": reason}
    bus.tell("snakepit.worker.tainted", _life(member), labels)


def hung(pool: str, worker_id: str, member: Member, verdict: Verdict, silent_s: float) -> None:
    """A worker will never answer again."""
    labels = {**_labels(pool, worker_id, member), "verdict": verdict.value}
    bus.tell("snakepit.worker.hung", {"silent_s": silent_s}, labels)


def lost(pool: str, worker_id: str, member: Member, error: WorkerError, *, planned: bool) -> None:
    """A worker has ended. ``planned``: it was to, or had no reason to stay."""
    details = error.details
    ending = {
        **_labels(pool, worker_id, member),
        "reason": details.get("reason"),
        "exit_code": details.get("exit_code"),
        "signal": details.get("signal"),
    }
    if not planned:
        bus.tell("snakepit.worker.crash", _life(member), {**ending, "phase": details.get("phase")})
    bus.tell("snakepit.worker.terminated", _life(member), {**ending, "planned": planned})
    if isinstance(error, ResourceLimitExceeded):
        labels = {"pool": pool, "worker_id": worker_id, "limit": "cpu_time"}
        bus.tell("snakepit.limit.exceeded", {}, labels)


def scaled(pool: str, before: int, after: int, reason: str) -> None:
    """A pool is to have another number of workers."""
    sizes = {"size": after, "size_before": before}
    bus.tell("snakepit.pool.scaled", sizes, {"pool": pool, "reason": reason})


def broken(pool: str, failures: int, error: Exception) -> None:
    """A pool starts no workers any more."""
    bus.tell("snakepit.pool.broken", {"failures": failures}, {"pool": pool, **error_labels(error)})


# --- heartbeat -----------------------------------------------------------------------------------


def monitoring(pool: str, interval: float, *, begins: bool) -> None:
    """Workers are looked at from now on, or no more."""
    what = "started" if begins else "stopped"
    bus.tell(f"snakepit.heartbeat.monitor_{what}", {"interval_s": interval}, {"pool": pool})


def pinged(pool: str, worker_id: str, member: Member) -> None:
    """A worker is asked for a sign of life."""
    labels = _labels(pool, worker_id, member)
    bus.tell("snakepit.heartbeat.ping_sent", {}, labels)
    asked_at = time.monotonic()

    def answered(ping: Any) -> None:
        if not ping.cancelled():
            latency = {"latency_s": time.monotonic() - asked_at}
            bus.tell("snakepit.heartbeat.pong_received", latency, labels)

    if member.ping is not None:
        member.ping.add_done_callback(answered)


def missed(pool: str, worker_id: str, member: Member) -> None:
    """A worker has given no sign of life since it was looked at last."""
    labels = {**_labels(pool, worker_id, member), "verdict": member.verdict.value}
    bus.tell("snakepit.heartbeat.missed", {"missed": member.pulse.missed}, labels)


def _since(started_at: float) -> dict[str, float]:
    return {"duration_s": time.monotonic() - started_at}


def _life(member: Member) -> dict[str, float]:
    uptime_s = time.monotonic() - member.started_at
    return {"uptime_s": uptime_s, "calls": member.completed, "in_flight": member.worker.in_flight}


def _labels(pool: str, worker_id: str, member: Member) -> dict[str, Any]:
    return {"pool": pool, "worker_id": worker_id, "pid": member.worker.pid}
