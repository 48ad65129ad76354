"""Sessions: what belongs together in a conversation, a user or a job, and ends together."""

from __future__ import annotations

from snakepit_grpc_bridge.sessions.service import (
    GLOBAL_SESSION,
    Session,
    SessionService,
    generate_temp_session_id,
)

__all__ = ["GLOBAL_SESSION", "Session", "SessionService", "generate_temp_session_id"]
