"""What a worker's keeper can see of it: marks in the environment, and the deadline of what runs.

The host ends late calls itself. The keeper is the backstop for when it can't, because user code
blocks its event loop: it looks at a few bytes of shared memory some times a second. The worker
writes its own mark there, for it alone knows when a call has really ended; a host whose loop is
blocked reads no results.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from struct import Struct

# In the environment of every process below a host: which run it belongs to.
RUN_VARIABLE = "SNAKEPIT_RUN"
# In the environment of what a worker starts: the worker.
WORKER_VARIABLE = "SNAKEPIT_WORKER_PID"
_DEADLINE = Struct("d")
_NONE = 0.0


class DeadlineMark:
    """The worker's side. Runs on every call that has a deadline, so it does no more than a store or
    two. Owns ``fd``.
    """

    __slots__ = ("_cell", "_deadlines")

    def __init__(self, fd: int) -> None:
        memory = mmap.mmap(fd, _DEADLINE.size)
        os.close(fd)
        self._cell = memoryview(memory).cast("d")
        self._deadlines: list[float] = []

    def enter(self, deadline: float) -> None:
        """A call has started that should end by ``deadline``, on ``time.monotonic()``'s clock."""
        deadlines = self._deadlines
        deadlines.append(deadline)
        if len(deadlines) == 1:
            self._cell[0] = deadline
        else:
            self._settle()

    def leave(self, deadline: float) -> None:
        """A call with this deadline has ended."""
        deadlines = self._deadlines
        deadlines.remove(deadline)
        if deadlines:
            self._settle()
        else:
            self._cell[0] = _NONE

    def _settle(self) -> None:
        # Threads of a command may run nested calls. Whoever writes last looks again, so that no
        # deadline stays behind of a call that has ended.
        cell = self._cell
        while cell[0] != (earliest := min(self._deadlines, default=_NONE)):
            cell[0] = earliest


def create_mark() -> int:
    """A descriptor of a mark that says that nothing runs."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("snakepit-deadline", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _DEADLINE.size)
    return fd


def read_mark(fd: int) -> float | None:
    """The earliest deadline of what runs, on ``time.monotonic()``'s clock; None without one."""
    data = os.pread(fd, _DEADLINE.size, 0)
    if len(data) < _DEADLINE.size:
        return None  # the worker has cut it off, which helps it only until the host looks
    (deadline,) = _DEADLINE.unpack(data)
    return deadline if deadline > _NONE else None
