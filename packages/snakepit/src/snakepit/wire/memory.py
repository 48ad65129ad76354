"""Sealed anonymous memory that one process writes and another one reads. Linux only."""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import NamedTuple

from snakepit.errors import ProtocolError

# Without these the other side could cut the memory short, and reading what is gone is a SIGBUS.
_KEEPS_ITS_SIZE = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0)
_FINAL = getattr(fcntl, "F_SEAL_SEAL", 0)
# No new writable mapping, by whoever has the descriptor; the owner keeps the one that it has.
# Python 3.11's fcntl has no name for it, and kernels before 5.1 do not know it.
_OWNER_WRITES = 0x10
# All pages at once: faulting them in one by one costs more than the copy.
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


class SharedMemory(NamedTuple):
    """Memory just created: the creator's writable mapping, and the descriptor to pass on."""

    memory: mmap.mmap
    fd: int


def is_supported() -> bool:
    """Whether this platform has what the functions here need."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


def create_memory(size: int) -> SharedMemory:
    """Reserve ``size`` bytes. The caller closes the descriptor once it is sent.

    Raises:
        OSError: no memory, or no descriptor, is to be had.
    """
    fd = os.memfd_create("snakepit-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # A page that is first asked for when it is written, and can't be had, is a SIGBUS.
        os.posix_fallocate(fd, 0, size)
        memory = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | _POPULATE)
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _OWNER_WRITES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _KEEPS_ITS_SIZE | _FINAL)
    except BaseException:
        os.close(fd)
        raise
    return SharedMemory(memory, fd)


def map_memory(fd: int, size: int) -> mmap.mmap:
    """Map memory that the peer created, for reading. Leaves ``fd`` to the caller.

    Raises:
        ProtocolError: it is no sealed memory of ``size`` bytes; it must not be touched.
        OSError: it can't be mapped here.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ProtocolError("the peer sent a descriptor that is no sealed memory") from error
    if seals & _KEEPS_ITS_SIZE != _KEEPS_ITS_SIZE:
        raise ProtocolError("the peer sent memory that it could still cut short (missing seals)")
    actual = os.fstat(fd).st_size
    if actual != size:
        raise ProtocolError(f"the peer announced memory of {size} bytes and sent {actual}")
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
