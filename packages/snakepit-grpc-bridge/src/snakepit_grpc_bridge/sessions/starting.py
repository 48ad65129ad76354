"""What starts a session. Pure, but for the transaction it is given."""

from __future__ import annotations

import secrets
from typing import Final

from snakepit_grpc_bridge.errors import QuotaExceeded, ValidationFailed
from snakepit_grpc_bridge.sessions.gate import Temporary
from snakepit_grpc_bridge.sessions.rows import (
    GLOBAL_SESSION,
    SESSION_USE,
    SESSIONS,
    Quotas,
    SessionRow,
    UseRow,
    new_use,
    plain_quotas,
)
from snakepit_grpc_bridge.settings import DEFAULT_TTL
from snakepit_grpc_bridge.storage import Transaction

__all__ = ["create", "create_global", "generate_temp_session_id", "new_temporary"]

# The global session is nobody's conversation: its calls don't wait for one another.
_MAX_SHARED: Final = 1_000_000
_GLOBAL_QUOTAS: Final = Quotas(variables=10_000, tools=1000)


def create(tx: Transaction, row: SessionRow, use: UseRow, max_sessions: int) -> None:
    """Store a new session.

    Raises:
        ValidationFailed: one of that id is open.
        QuotaExceeded: there are as many as there may be.
    """
    before = tx.get(SESSION_USE, row.id)
    if before is not None and before.ended is None:
        raise ValidationFailed(
            f"a session {row.id!r} is open already; use it (sessions.get, or find_session of a "
            "client), or start one with another id",
            details={"session_id": row.id},
        )
    count = tx.count(SESSIONS.span())
    if count > max_sessions:  # the global one does not count
        raise QuotaExceeded.of(None, "sessions", wanted=count, limit=max_sessions)
    tx.put(SESSIONS, row)
    tx.put(SESSION_USE, use)


def create_global(tx: Transaction, now: float) -> None:
    """Store the global session, unless it is there."""
    row = _row(GLOBAL_SESSION, now, concurrency=_MAX_SHARED, quotas=_GLOBAL_QUOTAS)
    if tx.insert(SESSIONS, row):
        tx.put(SESSION_USE, new_use(row, None))


def new_temporary(now: float) -> Temporary:
    """A session for one call."""
    row = _row(generate_temp_session_id(), now, concurrency=1, quotas=Quotas())
    return Temporary(row, new_use(row, DEFAULT_TTL))


def _row(session_id: str, now: float, *, concurrency: int, quotas: Quotas) -> SessionRow:
    return SessionRow(
        id=session_id,
        created=now,
        affinity="hint",
        concurrency=concurrency,
        isolation="shared",
        quotas=plain_quotas(quotas),
        metadata={},
    )


def generate_temp_session_id() -> str:
    """Return a new random id for a session that ends with the call it is made for."""
    return "temp_session_" + secrets.token_hex(8)
