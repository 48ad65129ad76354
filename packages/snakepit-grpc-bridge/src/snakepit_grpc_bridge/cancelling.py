"""What happens when tasks are cancelled: work that goes on, and whose cancellation it was."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["UnbrokenWork", "is_cancelled"]

_T = TypeVar("_T")


def is_cancelled() -> bool:
    """Whether a CancelledError is meant for the running task, and does not come from something that
    it has waited for.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class UnbrokenWork:
    """Runs work that goes on to its end when its caller is cancelled. For one event loop.

    A transaction that was submitted may be committed although nobody waits for it any more; what
    has to follow the commit must follow it then as well.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await ``work``; a caller that is cancelled stops waiting at once."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Wait for what still runs. Idempotent."""
        if self._tasks:
            await asyncio.wait(self._tasks)
