"""Session records and their lifecycle. Lives in the host, in memory."""

from __future__ import annotations

import copy
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from snakepit.session import generate_session_id
from snakepit_grpc_bridge.errors import SessionNotFound, ValidationFailed

_log = logging.getLogger(__name__)

#: The application-wide session: its variables and tools are seen from every other one.
GLOBAL_SESSION: Final = "global"
_LONGEST_ID = 256

CloseHook = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What is known of an open session. A snapshot: later use does not change it.

    Attributes:
        id: its id.
        metadata: what was given when it was started; read-only.
        created: when it was started, in UTC.
        last_used: when something was last done in it, in UTC.
    """

    id: str
    metadata: Mapping[str, Any]
    created: datetime
    last_used: datetime


class SessionService:
    """Starts, finds and closes sessions. One for each platform; use it on the platform's loop.

    What belongs to sessions is kept by other services; they register hooks that end it.
    """

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._hooks: list[CloseHook] = []
        self._add(GLOBAL_SESSION, {})

    @property
    def global_id(self) -> str:
        """The id of the application-wide session, which is always open."""
        return GLOBAL_SESSION

    async def start(self, session_id: str | None = None, **metadata: Any) -> Session:
        """Start a session and return its record; without an id it gets a random one.

        Raises:
            ValidationFailed: the id is no valid one, or a session of that id is open.

        Example::

            session = await platform.sessions.start(user="ada")
            await platform.variables.put(session.id, "temperature", 0.2)
            await platform.sessions.close(session.id)
        """
        if session_id is None:
            session_id = generate_session_id()
        _check_id(session_id)
        if session_id in self._open:
            raise ValidationFailed(
                f"a session {session_id!r} is open already; use it, or start one with another id",
                details={"session_id": session_id},
            )
        return self._add(session_id, metadata)

    @asynccontextmanager
    async def open(self, session_id: str | None = None, **metadata: Any) -> AsyncIterator[Session]:
        """Start a session for an ``async with`` block, and close it when the block is left."""
        session = await self.start(session_id, **metadata)
        try:
            yield session
        finally:
            await self.close(session.id)

    async def close(self, session_id: str) -> bool:
        """Close a session with all that belongs to it; say whether it was open.

        Its variables and tools are gone when this returns, and its instances in workers are
        released. The global session is emptied and stays open.
        """
        if self._open.pop(session_id, None) is None:
            return False
        try:
            for hook in self._hooks:
                await self._run_hook(hook, session_id)
        finally:
            if session_id == GLOBAL_SESSION:
                self._add(GLOBAL_SESSION, {})
        return True

    async def clear_global(self) -> None:
        """Remove all global variables, tools and instances."""
        await self.close(GLOBAL_SESSION)

    async def get(self, session_id: str) -> Session:
        """Return the record of an open session.

        Raises:
            SessionNotFound: it was never started or is closed.
        """
        return self.require(session_id)

    async def exists(self, session_id: str) -> bool:
        """Say whether the session is open."""
        return session_id in self._open

    async def list(self) -> list[Session]:
        """Return the records of all open sessions, by id; the global one included."""
        return sorted(self._open.values(), key=lambda session: session.id)

    # --- for the platform's other services ---------------------------------------------------

    def require(self, session_id: str) -> Session:
        """Return the record of an open session and note that it is used.

        Raises:
            SessionNotFound: it was never started or is closed.
        """
        known = self._open.get(session_id)
        if known is None:
            raise SessionNotFound.of(session_id)
        used = Session(
            id=known.id, metadata=known.metadata, created=known.created, last_used=_now()
        )
        self._open[session_id] = used
        return used

    def on_close(self, hook: CloseHook) -> None:
        """Call ``hook(session_id)`` whenever a session closes, in the order of registration."""
        self._hooks.append(hook)

    def _add(self, session_id: str, metadata: dict[str, Any]) -> Session:
        now = _now()
        kept = MappingProxyType(copy.deepcopy(metadata))
        session = Session(id=session_id, metadata=kept, created=now, last_used=now)
        self._open[session_id] = session
        return session

    async def _run_hook(self, hook: CloseHook, session_id: str) -> None:
        try:
            await hook(session_id)
        except Exception:
            # The others must run all the same: a failing one leaves only its own things behind.
            _log.exception("a part of session %r could not be released", session_id)


def generate_temp_session_id() -> str:
    """Return a new random id for a session that ends with the call it is made for."""
    return "temp_session_" + secrets.token_hex(8)


def _check_id(session_id: object) -> None:
    valid = isinstance(session_id, str) and session_id.strip() and session_id.isprintable()
    if not valid or len(str(session_id)) > _LONGEST_ID:
        raise ValidationFailed(
            f"{session_id!r:.100} is no session id; use printable text of 1 to {_LONGEST_ID} "
            "characters, or none to get a random one"
        )


def _now() -> datetime:
    return datetime.now(UTC)
