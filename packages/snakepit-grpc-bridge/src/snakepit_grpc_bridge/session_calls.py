"""How the platform makes calls in its workers: in a session, in turn, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import snakepit
from snakepit.errors import Outcome, SessionWorkerUnavailable
from snakepit.options import Affinity, seconds
from snakepit_grpc_bridge.program_pools import ProgramPools
from snakepit_grpc_bridge.sessions import Session, SessionService
from snakepit_grpc_bridge.sessions.turns import answer_by
from snakepit_grpc_bridge.telemetry import program
from snakepit_grpc_bridge.variables.access import VariableAccess

__all__ = ["SessionCall", "SessionCalls", "Timeout"]

Timeout = float | timedelta | None
# Seconds for a call that is made when nothing is left: it is too late, as the pool will say.
_LEAST_TIMEOUT: Final = 0.001


class SessionCall:
    """A call that is about to be made, or several that belong together."""

    def __init__(
        self, session: Session, pool: snakepit.Pool, variables: VariableAccess, deadline: float
    ) -> None:
        self.session = session
        self.deadline = deadline
        self._pool = pool
        self._variables = variables

    async def view(
        self, names: Iterable[str] = (), prefix: str = ""
    ) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
        """The state of the session's variables, to be sent along, and certain variables of the
        session and global ones.

        Raises:
            QueueTimeout: the storage did not answer in the call's time.
        """
        view = self._variables.view_for_call(self.session.id, names, prefix)
        state, own, shared = await answer_by(self.deadline, self.session.id, view)
        return list(state), own, shared

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any],
        *,
        affinity: Affinity | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Run a command; ``affinity`` is the session's unless given."""
        try:
            return await self._execute(command, arguments, affinity, idempotent)
        except SessionWorkerUnavailable as error:
            self._take_another_worker(error)
            return await self._execute(command, arguments, affinity, idempotent)

    async def stream(
        self, command: str, arguments: Mapping[str, Any], *, idle_timeout: float | None = None
    ) -> AsyncGenerator[Any]:
        """Run a command that yields; ``idle_timeout`` limits the wait for each item, in seconds."""
        try:
            async with aclosing(self._stream(command, arguments, idle_timeout)) as items:
                async for item in items:
                    yield item
                return
        except SessionWorkerUnavailable as error:
            self._take_another_worker(error)
        async with aclosing(self._stream(command, arguments, idle_timeout)) as items:
            async for item in items:
                yield item

    def _take_another_worker(self, error: SessionWorkerUnavailable) -> None:
        if error.outcome is not Outcome.NONE:
            raise error  # the command has run; it let the error of an inner call through
        # Another worker is as good for what needs nothing of the session; what does, it finds
        # missing, and the records say that it was there.
        self._pool.release_session(self.session.id)

    async def _stream(
        self, command: str, arguments: Mapping[str, Any], idle_timeout: float | None
    ) -> AsyncGenerator[Any]:
        items = self._pool.execute_stream(
            command,
            arguments,
            session_id=self.session.id,
            timeout=max(self.deadline - time.monotonic(), _LEAST_TIMEOUT),
            idle_timeout=idle_timeout,
            affinity=self.session.affinity,
        )
        with program(command, arguments, self.session.id):
            async with aclosing(items):
                async for item in items:
                    yield item

    async def _execute(
        self,
        command: str,
        arguments: Mapping[str, Any],
        affinity: Affinity | None,
        idempotent: bool,
    ) -> Any:
        with program(command, arguments, self.session.id):
            return await self._pool.execute(
                command,
                arguments,
                session_id=self.session.id,
                timeout=max(self.deadline - time.monotonic(), _LEAST_TIMEOUT),
                affinity=affinity or self.session.affinity,
                idempotent=idempotent,
            )


class SessionCalls:
    """Makes calls of sessions. One for each platform; use it on the platform's loop."""

    def __init__(
        self,
        pools: ProgramPools,
        sessions: SessionService,
        variables: VariableAccess,
        timeout: float,
    ) -> None:
        self._pools = pools
        self._sessions = sessions
        self._variables = variables
        self._timeout = timeout

    @asynccontextmanager
    async def begin(
        self, session_id: str | None, timeout: Timeout = None
    ) -> AsyncIterator[SessionCall]:
        """Wait for the session's turn, for a block in which calls are made. Without a session they
        have a temporary one, which ends with the block.

        Raises:
            SessionNotFound, SessionExpired: the session is not open.
            QueueTimeout: its turn, or the storage's answer, did not come in time; nothing was done.
            PoolClosed: the platform is closed, or not started yet.
        """
        budget = self._timeout if timeout is None else seconds("timeout", timeout)
        self._pools.require_open()
        deadline = time.monotonic() + budget
        if session_id is None:
            async with (
                self._sessions.open_temporary() as temporary,
                self._in_turn(temporary, deadline) as call,
            ):
                yield call
        else:
            async with self._in_turn(session_id, deadline) as call:
                yield call

    @asynccontextmanager
    async def _in_turn(self, session_id: str, deadline: float) -> AsyncIterator[SessionCall]:
        async with self._sessions.turn(session_id, deadline - time.monotonic()) as session:
            pool = await self._pools.of(session)
            yield SessionCall(session, pool, self._variables, deadline)
