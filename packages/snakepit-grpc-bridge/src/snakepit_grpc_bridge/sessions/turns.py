"""Whose turn it is in a session: so many of its calls run at a time, the others wait in line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snakepit.errors import QueueTimeout
from snakepit.nesting import current_chain

__all__ = ["Turns"]


class Turns:
    """The calls of all sessions. For one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def take(
        self, session_id: str, concurrency: int, timeout: float | None = None
    ) -> AsyncIterator[bool]:
        """Wait up to ``timeout`` seconds for a turn in a session that runs ``concurrency`` calls at
        a time; whether others were before it.

        Raises:
            QueueTimeout: the turn did not come in time.

        A call that is made on behalf of another one of the session, by a tool for instance, is a
        part of that one and waits for nobody: or they would wait for each other.
        """
        if any(host_call.session_id == session_id for host_call in current_chain()):
            yield False
            return
        semaphore, users = self._sessions.get(session_id) or (asyncio.Semaphore(concurrency), 0)
        self._sessions[session_id] = semaphore, users + 1
        waits = semaphore.locked()
        try:
            await _acquire(semaphore, session_id, timeout)
            try:
                yield waits
            finally:
                semaphore.release()
        finally:
            semaphore, users = self._sessions.pop(session_id)
            if users > 1:
                self._sessions[session_id] = semaphore, users - 1


async def _acquire(semaphore: asyncio.Semaphore, session_id: str, timeout: float | None) -> None:
    start = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            await semaphore.acquire()
    except TimeoutError:
        raise QueueTimeout(
            f"a call of session {session_id!r} waited {time.monotonic() - start:.3g} s for its "
            "turn behind earlier calls of the session, which was all its time; start the session "
            "with a higher concurrency, or give the call more time",
            details={"session_id": session_id, "timeout_s": timeout},
        ) from None
