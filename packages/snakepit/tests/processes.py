"""Looking at processes in tests."""

from __future__ import annotations

from snakepit import Pool
from snakepit.calls.stats import WorkerInfo
from snakepit.processes.vitals import read_vitals
from snakepit.testing import alive, signal_process, until, wait_until

__all__ = ["alive", "send_signal", "until", "until_computing", "wait_until"]

# More than it takes to receive a call, or to answer a look; a hundredth of a second each.
_TICKS_OF_A_CALL = 5


def send_signal(worker: WorkerInfo, number: int) -> None:
    """Send a signal to a worker; one that is already dead, but not yet noticed, is let be."""
    signal_process(worker.pid or 0, number)


async def until_computing(pool: Pool) -> None:
    """Wait until a worker that has a call uses the processor: its command has begun.

    A call that was sent may not have begun, and one stopped before that costs its worker nothing.
    """
    first: dict[int, int] = {}

    def has_begun() -> bool:
        for worker in pool.workers():
            vitals = read_vitals(worker.pid or 0) if worker.in_flight else None
            if vitals is not None:
                before = first.setdefault(worker.pid or 0, vitals.cpu_ticks)
                if vitals.cpu_ticks - before > _TICKS_OF_A_CALL:
                    return True
        return False

    await until(has_begun, "a command computes")
