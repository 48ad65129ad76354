"""Producers that wait until their consumer takes more."""

from __future__ import annotations

import asyncio
import threading

from snakepit.wire.credit import Credit, SendWindow


class AsyncSendWindow(SendWindow):
    """For a producer that is a task. All of it belongs to the task's event loop."""

    __slots__ = ("_granted",)

    def __init__(self, credit: Credit) -> None:
        super().__init__(credit)
        self._granted = asyncio.Event()

    def grant(self, credit: Credit) -> None:
        super().grant(credit)
        self._granted.set()

    async def opened(self) -> None:
        """Return as soon as something may be sent."""
        while not self.is_open:
            self._granted.clear()
            await self._granted.wait()


class ThreadSendWindow(SendWindow):
    """For a producer that has a thread of its own; others grant, and tell it to end."""

    __slots__ = ("_changed", "_ended")

    def __init__(self, credit: Credit) -> None:
        super().__init__(credit)
        self._changed = threading.Event()
        self._ended = False

    def grant(self, credit: Credit) -> None:
        super().grant(credit)
        self._changed.set()

    def end(self) -> None:
        """Nothing is wanted any more."""
        self._ended = True
        self._changed.set()

    def wait(self) -> bool:
        """Block until something may be sent; False when nothing is wanted any more."""
        while not self._has_answer():
            self._changed.clear()
            if not self._has_answer():  # it may have changed before the flag was cleared
                self._changed.wait()
        return not self._ended

    def _has_answer(self) -> bool:
        return self._ended or self.is_open
