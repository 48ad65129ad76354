"""Sessions: what belongs together in a conversation, a user or a job, and ends together.

================  ==============================================================================
``rows``          sessions as they are stored, and as users see them
``gate``          the way into one, inside a transaction: is it open, is there room
``activity``      when sessions were last used in this process
``turns``         whose turn it is in a session
``service``       starts, finds and ends them
================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.lazy_names import lazy_names

if TYPE_CHECKING:
    from snakepit_grpc_bridge.sessions.rows import GLOBAL_SESSION, Quotas, Session, SessionOptions
    from snakepit_grpc_bridge.sessions.service import SessionService
    from snakepit_grpc_bridge.sessions.starting import generate_temp_session_id

__all__ = [
    "GLOBAL_SESSION",
    "Quotas",
    "Session",
    "SessionOptions",
    "SessionService",
    "generate_temp_session_id",
]

# Imported when first used: a worker needs no service.
_HOMES = {
    "GLOBAL_SESSION": "rows",
    "Quotas": "rows",
    "Session": "rows",
    "SessionOptions": "rows",
    "SessionService": "service",
    "generate_temp_session_id": "starting",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name
    __getattr__ = lazy_names(__name__, _HOMES)
