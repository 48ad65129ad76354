"""Waiting for what has no event: the state of another process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds that a helper waits before it gives up, unless told otherwise. Generous: it only decides
#: how long a failing test takes.
PATIENCE = 10.0
_PAUSE = 0.001
# (Measured with perf_counter: a test's ManualClock stops the other one.)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not.

    >>> import os
    >>> from snakepit.testing import alive
    >>> alive(os.getpid())
    True
    """
    try:
        # A process may have any bytes as its name.
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False if Path("/proc/self").exists() else _answers(pid)
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> float:
    """Block until ``condition`` holds; return how long that took, in seconds.

    Raises:
        TimeoutError: it did not within ``timeout`` seconds; names ``what``.

    >>> from snakepit.testing import wait_until
    >>> wait_until(lambda: True, "the sky is up") < 1.0
    True
    """
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > timeout:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(_PAUSE)
    return time.perf_counter() - start


async def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """As :func:`wait_until`, for async code: the event loop goes on meanwhile.

    Where there is an event, await that instead; this is for processes and counters.
    """
    end = time.perf_counter() + timeout
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(_PAUSE)


async def readable(fd: int, timeout: float) -> bool:
    """Wait until there is something to read from ``fd``; false when there was nothing in time."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set_once, came)
    try:
        await asyncio.wait_for(came, timeout)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


def _set_once(future: asyncio.Future[None]) -> None:
    # The loop calls on every round until the reader is removed.
    if not future.done():
        future.set_result(None)
