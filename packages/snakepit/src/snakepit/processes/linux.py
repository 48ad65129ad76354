"""The few Linux facilities that the standard library does not wrap. Each is a no-op elsewhere."""

from __future__ import annotations

import ctypes
import os
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


def die_with_parent(parent: int, *, patience: float = 5.0) -> None:
    """Have the kernel kill this process when ``parent`` dies; wait until it is the parent.

    A process that was forked twice is adopted by ``parent`` a moment after its own parent's exit,
    and the death signal is bound to the parent of the moment of the call. Ends this process if
    ``parent`` never becomes its parent.
    """
    if not IS_LINUX:
        return
    end = time.monotonic() + patience
    while os.getppid() != parent:
        if time.monotonic() > end:
            os._exit(1)
        time.sleep(0.0002)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
