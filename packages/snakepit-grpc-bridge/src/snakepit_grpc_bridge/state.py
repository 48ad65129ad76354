"""The tables of a platform, and how those of earlier versions become today's."""

from __future__ import annotations

from typing import Final

from snakepit_grpc_bridge.sessions.rows import SESSION_USE, SESSIONS
from snakepit_grpc_bridge.storage import Schema
from snakepit_grpc_bridge.tools.records import TOOL_CALLS, TOOLS
from snakepit_grpc_bridge.variables.rows import HISTORY, VARIABLES

__all__ = ["PLATFORM_SCHEMA"]

PLATFORM_SCHEMA: Final = Schema(
    tables=(SESSIONS, SESSION_USE, VARIABLES, HISTORY, TOOLS, TOOL_CALLS)
)
