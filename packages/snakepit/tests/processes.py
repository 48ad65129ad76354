"""Looking at processes in tests."""

from __future__ import annotations

from snakepit.stats import WorkerInfo
from snakepit.testing import alive, signal_process, until, wait_until

__all__ = ["alive", "send_signal", "until", "wait_until"]


def send_signal(worker: WorkerInfo, number: int) -> None:
    """Send a signal to a worker; one that is already dead, but not yet noticed, is let be."""
    signal_process(worker.pid or 0, number)
