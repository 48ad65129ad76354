"""The worker processes that run programs: those that sessions share, and those of one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import snakepit
from snakepit.calls.nesting import current_chain
from snakepit.errors import PoolClosed
from snakepit_grpc_bridge.sessions import Session, SessionService

__all__ = ["ProgramPools"]

MakePool = Callable[[str, int], snakepit.Pool]
"""Makes a pool of that name and size."""


class ProgramPools:
    """The pools of one platform. A session with isolation "session" has one of its own, of one
    worker, which is started with its first call and ends with the session.
    """

    def __init__(self, make: MakePool, size: int, sessions: SessionService) -> None:
        self._make = make
        self.shared = make("programs", size)
        self._own: dict[str, asyncio.Task[snakepit.Pool]] = {}
        self._open = False
        self._closing: set[asyncio.Task[None]] = set()
        sessions.on_close(self._session_closed)

    async def start(self) -> None:
        """Start the shared pool."""
        await self.shared.start()
        self._open = True

    def require_open(self) -> None:
        """Refuse a call when there is no pool to run it.

        Raises:
            PoolClosed: they are closed, or not started yet.
        """
        if not self._open:
            raise PoolClosed("the platform is closed, or not started yet; make another one")

    async def aclose(self) -> None:
        """Let calls in flight finish for a while, then end all pools."""
        self._open = False
        closing = [self._close_own(session_id) for session_id in tuple(self._own)]
        await asyncio.gather(self.shared.aclose(), *closing, *self._closing)

    async def of(self, session: Session) -> snakepit.Pool:
        """The pool that runs a session's calls; its own one is started if need be.

        Raises:
            PoolStartFailed: its worker does not come up.
        """
        if session.isolation == "shared":
            return self.shared
        starting = self._own.get(session.id)
        if starting is None:
            starting = self._own[session.id] = asyncio.create_task(self._start(session.id))
        # Not awaited itself: a caller that goes away must not stop the start for the others.
        await asyncio.wait([starting])
        if starting.exception() is not None and self._own.get(session.id) is starting:
            del self._own[session.id]  # to be tried again
        return starting.result()

    def known(self, session_id: str) -> snakepit.Pool:
        """The pool that has run a session's calls."""
        starting = self._own.get(session_id)
        if starting is None or not starting.done() or starting.exception() is not None:
            return self.shared
        return starting.result()

    async def _start(self, session_id: str) -> snakepit.Pool:
        pool = self._make("programs-of-a-session", 1)
        await pool.start()
        return pool

    async def _session_closed(self, session_id: str) -> None:
        if session_id not in self._own:
            return
        closing = asyncio.create_task(self._close_own(session_id))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        # A tool that closes the session of its caller can't wait until its caller has ended.
        if all(host_call.session_id != session_id for host_call in current_chain()):
            await asyncio.shield(closing)

    async def _close_own(self, session_id: str) -> None:
        starting = self._own.pop(session_id, None)
        if starting is None:
            return
        await asyncio.wait([starting])
        if starting.exception() is None:
            await starting.result().aclose()
