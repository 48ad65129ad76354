"""Whether this is still the process that something was made in; asked at every call of a pool.

``os.getpid()`` would tell, too, but is a system call.
"""

from __future__ import annotations

import os
from typing import NamedTuple

#: How many forks lie between the interpreter's start and this process.
count = 0


class Home(NamedTuple):
    """A process: its id, and ``count`` in it."""

    pid: int
    forks: int


def here() -> Home:
    """This process."""
    return Home(os.getpid(), count)


def _count() -> None:
    global count  # noqa: PLW0603  # it is about the process
    count += 1


os.register_at_fork(after_in_child=_count)
