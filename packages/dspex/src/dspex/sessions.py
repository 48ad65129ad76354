"""Sessions: handles to work in one, and how their ids are made and told apart."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from dspex.face import Workspace, sync
from dspex.workspace import AsyncWorkspace
from snakepit import generate_session_id
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.sessions import generate_temp_session_id

if TYPE_CHECKING:
    from dspex.client import AsyncClient

__all__ = [
    "TEMP_SESSION_PREFIX",
    "AsyncSession",
    "Session",
    "generate_session_id",
    "generate_temp_session_id",
    "is_temp_session",
]

#: What the id of a session begins with that ends with the call or block it was made for.
TEMP_SESSION_PREFIX: Final = "temp_session_"


def is_temp_session(session_id: str) -> bool:
    """Say whether an id was made by `generate_temp_session_id`.

    Example:
        >>> is_temp_session("session_0123"), is_temp_session(generate_temp_session_id())
        (False, True)
    """
    return session_id.startswith(TEMP_SESSION_PREFIX)


class AsyncSession(AsyncWorkspace):
    """A session of an `AsyncClient`: programs run in it, and variables and tools belong to it.

    Made by `AsyncClient.start_session()`; leaving its `async with` block closes it and everything
    that it holds.

    Example:
        >>> async with dspex.AsyncClient() as client:
        ...     async with await client.start_session() as session:
        ...         await session.set_variable("temperature", 0.2)
        ...         answer = await session.ask("What is the capital of France?")
        >>> answer
        'Paris'
    """

    def __init__(self, client: AsyncClient, session_id: str) -> None:
        self._client = client
        self.id = session_id

    async def close(self) -> None:
        """Close the session with its variables, tools and stored instances. Idempotent."""
        await self._client.stop_session(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def platform(self) -> Platform:
        """The platform below, for what has no method here."""
        return self._client.platform

    @property
    def _session_id(self) -> str:
        return self.id


class Session(Workspace):
    """A session of a `Client`; the synchronous twin of `AsyncSession`.

    Example:
        >>> with client.start_session() as session:
        ...     session.variables["temperature"] = 0.2
        ...     session.ask("What is the capital of France?")
        'Paris'
    """

    _behind: AsyncSession

    close = sync(AsyncSession.close)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._behind.id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"
