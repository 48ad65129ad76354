"""What a fork of this process may not do: reach the processes of its parent.

A child has copies of all that its parent has open. Whatever runs in it, such as the cleanup of
tasks that it inherited, must not speak in the parent's name, or read what was meant for it.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol
from weakref import WeakSet

#: How many forks lie between the interpreter's start and this process: whether this is still the
#: process that something was made in. Asked at every call of a pool; ``os.getpid()`` would tell,
#: too, but is a system call.
count = 0


class Home(NamedTuple):
    """A process: its id, and ``count`` in it."""

    pid: int
    forks: int


def here() -> Home:
    """This process."""
    return Home(os.getpid(), count)


class _Channel(Protocol):
    def close(self) -> None:
        """Close this process's copy, and nothing else."""


_channels: WeakSet[_Channel] = WeakSet()


def close_in_child(channel: _Channel) -> None:
    """Have every fork of this process close its copy of a socket or a file, before all else."""
    _channels.add(channel)


def _after_fork() -> None:
    global count  # noqa: PLW0603  # it is about the process
    count += 1
    for channel in tuple(_channels):
        channel.close()
    _channels.clear()


os.register_at_fork(after_in_child=_after_fork)
