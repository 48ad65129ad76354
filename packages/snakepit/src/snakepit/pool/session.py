"""Sessions as the pool knows them: a name whose calls prefer one worker."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from snakepit.errors import PoolClosed
from snakepit.loops.foreign_loops import run_there

if TYPE_CHECKING:
    from snakepit.pool.calling import CallingPool


def generate_session_id() -> str:
    """A new session id that nobody can guess: ``session_`` and 32 hexadecimal digits.

    Example::

        assert len(generate_session_id()) == 40
    """
    return f"session_{secrets.token_hex(16)}"


class Session:
    """Calls of one session. Leaving its ``async with`` block forgets its worker.

    Example::

        async with pool.session() as session:
            await session.execute("remember", {"name": "Ada"})
    """

    def __init__(self, pool: CallingPool, session_id: str) -> None:
        self._pool = pool
        self.session_id = session_id

    async def execute(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """As :meth:`Pool.execute`, in this session."""
        return await self._pool.execute(command, args, session_id=self.session_id, **options)

    def execute_stream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncGenerator[Any]:
        """As :meth:`Pool.execute_stream`, in this session."""
        return self._pool.execute_stream(command, args, session_id=self.session_id, **options)

    @property
    def default_timeout(self) -> float | None:
        """Seconds that a call may take which does not say otherwise; None for no limit."""
        return self._pool.default_timeout

    def close(self) -> None:
        """Forget which worker the session prefers.

        What worker code keeps for the session is that code's own business.
        """
        self._pool.release_session(self.session_id)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        home = self._pool.loop_elsewhere()
        if home is None:
            self.close()
        else:
            with contextlib.suppress(PoolClosed):  # the pool forgets all, with its loop
                await run_there(home, self.__aexit__(exc_type, exc, traceback))
