"""The events of a pool as a whole; see telemetry.catalogue."""

from __future__ import annotations

import time

from snakepit.calls.stats import PoolStats
from snakepit.telemetry import bus
from snakepit.telemetry.catalogue import POOL_GAUGES
from snakepit.telemetry.labels import error_labels


def starting(pool: str, size: int) -> None:
    """A pool starts its workers."""
    bus.tell("snakepit.pool.init_started", {"workers": size}, {"pool": pool})


def started(pool: str, ready: int, began_at: float, error: BaseException | None = None) -> None:
    """They have come up, or not one has."""
    _tell_end("snakepit.pool.initialized", pool, ready, began_at, error)


def reloaded(pool: str, ready: int, began_at: float, error: BaseException | None = None) -> None:
    """Its workers have the code as it is now, or could not get it."""
    _tell_end("snakepit.pool.reloaded", pool, ready, began_at, error)


def status(pool: str, stats: PoolStats) -> None:
    """Its gauges now."""
    gauges = {name: getattr(stats, name) for name in POOL_GAUGES}
    bus.tell("snakepit.pool.status", gauges, {"pool": pool})


def closed(pool: str, began_at: float) -> None:
    """It is closed, and nothing of it is left."""
    duration = {"duration_s": time.monotonic() - began_at}
    bus.tell("snakepit.pool.closed", duration, {"pool": pool})


def _tell_end(
    event: str, pool: str, ready: int, began_at: float, error: BaseException | None
) -> None:
    measurements = {"duration_s": time.monotonic() - began_at, "workers": ready}
    failure = {"error": None, "error_type": None} if error is None else error_labels(error)
    bus.tell(event, measurements, {"pool": pool, "success": error is None, **failure})
