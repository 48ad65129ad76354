"""Waiting for workers to be ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Readiness:
    """Wakes those who wait for a state of the pool whenever that may have changed."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def changed(self) -> None:
        """A worker came or left, or the pool's state changed."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``condition`` holds, for at most ``timeout`` seconds; whether it holds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._change()
        return condition()

    async def _change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await change
        finally:
            self._waiting.discard(change)
