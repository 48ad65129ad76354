"""Which file stands at a path. Asked at every transaction, so it must not make commits dearer.

Linux 6.13 and later give a file a new time of change, to the nanosecond, at the next write after
somebody has read the times, and what syncs the file has to write that too: 40 us more for a commit
of 100. ``os.stat`` always reads the times, ``statx`` only if it is asked to.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from struct import Struct
from typing import Final

__all__ = ["Identity", "identity_reader"]

#: The device by its two numbers, and the number of the file on it.
Identity = tuple[int, int, int]
_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100


#: Of the kernel's answer, which is the same on all processors: number, and the device's two.
_ANSWER: Final = Struct("=32x Q 96x I I 112x")
_Buffer = ctypes.c_char * _ANSWER.size


def identity_reader() -> Callable[[bytes], Identity | None]:
    """Return a function that tells which file is at a path; None if there is none."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:  # not Linux, or an old C library
        return _by_stat

    def by_statx(path: bytes) -> Identity | None:
        answer = _Buffer()
        if statx(_AT_FDCWD, path, 0, _STATX_INO, answer) != 0:
            return _by_stat(path)  # an old kernel, or a container that forbids the call
        number, major, minor = _ANSWER.unpack(answer)
        return major, minor, number

    return by_statx


def _by_stat(path: bytes) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path would cost more than the call
    except OSError:
        return None
    return os.major(found.st_dev), os.minor(found.st_dev), found.st_ino
