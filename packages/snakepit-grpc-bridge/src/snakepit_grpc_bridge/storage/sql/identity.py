"""Which file stands at a path. Asked at every transaction, so it must not make commits dearer.

Linux 6.13 and later give a file a new time of change, to the nanosecond, at the next write after
somebody has read the times, and what syncs the file has to write that too: 40 us more for a commit
of 100. ``os.stat`` always reads the times, ``statx`` only if it is asked to.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

__all__ = ["Identity", "identity_reader"]

#: The device by its two numbers, and the number of the file on it.
Identity = tuple[int, int, int]
_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100


class _Statx(ctypes.Structure):
    """The kernel's answer: the same on all processors."""

    _fields_ = (
        ("_before_number", ctypes.c_byte * 32),
        ("number", ctypes.c_uint64),
        ("_before_device", ctypes.c_byte * 96),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("_rest", ctypes.c_byte * 112),
    )


def identity_reader() -> Callable[[bytes], Identity | None]:
    """Return a function that tells which file is at a path; None if there is none."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:  # not Linux, or an old C library
        return _by_stat

    def by_statx(path: bytes) -> Identity | None:
        found = _Statx()
        if statx(_AT_FDCWD, path, 0, _STATX_INO, ctypes.byref(found)) != 0:
            return _by_stat(path)  # an old kernel, or a container that forbids the call
        return found.major, found.minor, found.number

    return by_statx


def _by_stat(path: bytes) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path would cost more than the call
    except OSError:
        return None
    return os.major(found.st_dev), os.minor(found.st_dev), found.st_ino
