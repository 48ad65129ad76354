"""Looking at processes in tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from snakepit.stats import WorkerInfo

DEADLINE = 10.0


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def send_signal(worker: WorkerInfo, number: int) -> None:
    """Send a signal to a worker; one that is already dead, but not yet noticed, is let be."""
    assert worker.pid, "pid 0 would be the process group of the tests"
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def wait_until(condition: Callable[[], bool], what: str, limit: float = DEADLINE) -> float:
    """Block until ``condition`` holds; return how long it took, in seconds."""
    start = time.monotonic()
    pause = threading.Event()
    while not condition():
        assert time.monotonic() - start < limit, f"not within {limit} s: {what}"
        pause.wait(0.001)
    return time.monotonic() - start


async def until(condition: Callable[[], bool], what: str, limit: float = DEADLINE) -> None:
    """Let the loop run until ``condition`` holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        await asyncio.to_thread(threading.Event().wait, 0.001)
