"""Whose turn it is in a session: so many of its calls run at a time, the others wait in line. And
what else is waited for before a call, as a part of its time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from snakepit.calls.nesting import current_chain
from snakepit.errors import QueueTimeout

__all__ = ["Turns", "answer_by", "left_until"]

_T = TypeVar("_T")


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


def left_until(deadline: float) -> float | None:
    """The seconds until a moment of ``time.monotonic``; None if it never comes."""
    return None if deadline == math.inf else deadline - time.monotonic()


async def answer_by(deadline: float, session_id: str, answer: Awaitable[_T]) -> _T:
    """Await what the storage says of a session, before a call of it.

    Raises:
        QueueTimeout: it has said nothing when the call's time is over.
    """
    limit = asyncio.timeout(left_until(deadline))
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise QueueTimeout(
            f"a call of session {session_id!r} was not begun, because the storage did not answer "
            "in the call's time; look at the storage, or give the call more time",
            details={"session_id": session_id},
        ) from None
