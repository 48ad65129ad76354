"""When the callers that have their answers go on.

A future of asyncio wakes its task in a later turn of the event loop, which costs as much as all the
rest of the way back. So the tasks whose answers came with one read of a socket are woken as soon as
all that came with it has been handled: the pool's records are settled then, and no task runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol


class Sleeper(Protocol):
    """Has an answer, and a caller that does not know it yet."""

    def wake(self) -> None:
        """Let the caller go on."""


class WakeUps:
    """Those of one pool. For one event loop.

    ``at_once``: no task runs, and ``wake`` is going to be called before another one does.
    """

    __slots__ = ("_due", "at_once", "loop")

    def __init__(self) -> None:
        #: Where their tasks run, once the pool has started: to ask for the running loop at every
        #: call costs a system call.
        self.loop: asyncio.AbstractEventLoop | None = None
        self.at_once = False
        self._due: deque[Sleeper] = deque()

    def add(self, sleeper: Sleeper) -> None:
        """Wake a caller: at the end of what is being read, or in the next turn of the loop."""
        due = self._due
        if not due and not self.at_once:
            # Not always the running one: none runs when a program's end cancels its tasks.
            (self.loop or asyncio.get_running_loop()).call_soon(self.wake)
        due.append(sleeper)

    def wake(self) -> None:
        """Let all who are due go on. Not inside a task."""
        self.at_once = False
        due = self._due
        while due:
            try:
                due.popleft().wake()
            except BaseException:
                # A task lets nothing through but what is to end the program, like Ctrl-C.
                if due:
                    asyncio.get_running_loop().call_soon(self.wake)
                raise
