"""What the names of tools mean in sessions, as found out before. Pure."""

from __future__ import annotations

from typing import Final

from snakepit_grpc_bridge.sessions import GLOBAL_SESSION
from snakepit_grpc_bridge.tools.records import Tool

__all__ = ["Meanings"]

#: Sessions of which meanings are kept.
_MOST_SESSIONS: Final = 1000


class Meanings:
    """Keeps which tool a session means by a name, until that could be another one.

    An incarnation is one life of a session: what was found out in an earlier one means nothing.

    Attributes:
        changes: how many times tools were added or removed, or sessions ended.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._tools: dict[str, tuple[str, dict[str, Tool]]] = {}

    def get(self, session_id: str, incarnation: str, name: str) -> Tool | None:
        """The tool, if it is known."""
        found = self._tools.get(session_id)
        if found is None or found[0] != incarnation:
            return None
        return found[1].get(name)

    def keep(self, session_id: str, incarnation: str, tool: Tool, *, since: int) -> None:
        """It was found out, beginning when there were ``since`` changes; it may be old by now."""
        if since != self.changes:
            return
        found = self._tools.get(session_id)
        if found is None or found[0] != incarnation:
            if len(self._tools) >= _MOST_SESSIONS:
                self._tools.clear()
            found = self._tools[session_id] = incarnation, {}
        found[1][tool.name] = tool

    def forget(self, session_id: str) -> None:
        """The tools of a session change, or it ends; those of the global one are seen by all."""
        self.changes += 1
        if session_id == GLOBAL_SESSION:
            self._tools.clear()
        else:
            self._tools.pop(session_id, None)
