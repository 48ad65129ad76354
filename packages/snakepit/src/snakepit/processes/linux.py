"""The few Linux facilities that the standard library does not wrap. Elsewhere each does nothing, or
finds nothing.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
IS_LINUX = sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    if IS_LINUX and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, *, through: int | None = None, patience: float = 30.0) -> None:
    """Have the kernel kill this process when ``parent`` dies; wait until it is the parent.

    A process that was forked twice is adopted by ``parent`` a moment after the exit of the process
    between, ``through``; and the death signal is bound to the parent of the moment of the call.
    Ends this process if ``parent`` is not to become its parent.
    """
    if not IS_LINUX:
        return
    end = time.monotonic() + patience
    while (found := os.getppid()) != parent:
        if found != through or time.monotonic() > end:
            os._exit(1)
        _wait_for_end(found)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _wait_for_end(pid: int) -> None:
    """Wait a moment for the end of a process."""
    try:
        process = os.pidfd_open(pid)
    except OSError:  # it has ended, or the kernel can't tell
        time.sleep(0.0002)
        return
    try:
        poller = select.poll()
        poller.register(process, select.POLLIN)
        poller.poll(100)
    finally:
        os.close(process)


def has_ended(pid: int) -> bool:
    """Whether a process is dead, also when its parent has not read how it ended; False where that
    can't be seen.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (AttributeError, OSError):
        return False
    try:
        poller = select.poll()
        poller.register(process, select.POLLIN)
        return bool(poller.poll(0))
    finally:
        os.close(process)


def count_oom_kills() -> int:
    """How many processes this machine's kernel has killed so far because memory ran out, in this
    container or another; 0 where it does not say.
    """
    try:
        with open("/proc/vmstat") as file:
            counters = dict(line.split() for line in file)
        return int(counters.get("oom_kill", 0))
    except OSError:
        return 0


def children_of(pid: int) -> list[int]:
    """The children of a process, zombies included; empty if that can't be read."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it has ended
    return found


def descendants_of(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    found: list[int] = []
    todo = children_of(pid)
    while todo:
        found += todo
        todo = [child for parent in todo for child in children_of(parent)]
    return found
