"""The events of the keeper, of templates and of workers' processes; see telemetry.catalogue.

Pools share keepers and templates, so those tell no pool.
"""

from __future__ import annotations

import time

from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels


def keeper_started(pid: int) -> None:
    """A keeper runs."""
    bus.tell("snakepit.keeper.started", {}, {"pid": pid})


def keeper_terminated(pid: int, *, planned: bool) -> None:
    """A keeper is gone, and with it all processes below it. ``planned``: nobody needs it."""
    bus.tell("snakepit.keeper.terminated", {}, {"pid": pid, "planned": planned})


def keeper_swept(pid: int, processes: int) -> None:
    """A keeper has killed what an earlier host had left."""
    bus.tell("snakepit.keeper.swept", {"processes": processes}, {"pid": pid})


def template_started(target: str, pid: int | None, began_at: float) -> None:
    """A template has imported and warmed up what its workers need."""
    duration = {"duration_s": time.monotonic() - began_at}
    bus.tell("snakepit.template.started", duration, {"target": target, "pid": pid})


def template_unsafe(target: str) -> None:
    """What a template imports does not survive a fork: workers are spawned."""
    bus.tell("snakepit.template.unsafe", {}, {"target": target})


def template_start_failed(target: str, error: Exception) -> None:
    """A template died, or its import or its ``warm`` raised."""
    bus.tell("snakepit.template.start_failed", {}, {"target": target, **error_labels(error)})


def template_terminated(target: str, pid: int | None, *, planned: bool) -> None:
    """A template that had started forks no more. ``planned``: nobody needs it."""
    labels = {"target": target, "pid": pid, "planned": planned}
    bus.tell("snakepit.template.terminated", {}, labels)


def worker_spawned(pool: str, worker_id: str, pid: int, began_at: float, *, forked: bool) -> None:
    """The process of a worker runs; it is not ready yet."""
    duration = {"duration_s": time.monotonic() - began_at}
    labels = {"pool": pool, "worker_id": worker_id, "pid": pid, "forked": forked}
    bus.tell("snakepit.worker.spawned", duration, labels)
