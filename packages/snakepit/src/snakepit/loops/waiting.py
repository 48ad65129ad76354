"""What a task waits for when it is to go on at once, and not in a later turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class Awaited:
    """Awaited by one task at a time. To asyncio it is a future; whoever has what the task waits for
    calls ``wake``, outside of any task: see :class:`~snakepit.loops.wakeups.WakeUps`.

    What else a task asks of a future is for subclasses to say.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_waiter")

    def __init__(self) -> None:
        self._waiter: Callable[[Any], object] | None = None
        self._context: Context  # that of the waiter
        # The sign by which asyncio knows a future, and that a task wants to wait for it.
        self._asyncio_future_blocking = False

    def wake(self) -> None:
        """Let the task go on."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._context.run(waiter, self)

    def add_done_callback(self, waiter: Callable[[Any], object], *, context: Context) -> None:
        """Called by the task that begins to wait."""
        self._waiter = waiter
        self._context = context


class Waiting(Awaited):
    """What a task waits for that has no value: only that it is time to go on."""

    __slots__ = ("_loop", "_reason", "is_cancelled")

    def __init__(self) -> None:
        super().__init__()
        #: Nobody waits for it any more: its task was cancelled.
        self.is_cancelled = False
        self._reason: Any = None
        self._loop = asyncio.get_running_loop()

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self
        if self.is_cancelled:
            raise asyncio.CancelledError(*(() if self._reason is None else (self._reason,)))

    get_loop = staticmethod(asyncio.get_running_loop)

    def cancel(self, msg: Any = None) -> bool:
        self.is_cancelled = True
        self._reason = msg
        # Whoever cancels all tasks of a loop does so while it does not run.
        self._loop.call_soon(self.wake)
        return True

    def result(self) -> None:
        """Asked by the task when it goes on."""
