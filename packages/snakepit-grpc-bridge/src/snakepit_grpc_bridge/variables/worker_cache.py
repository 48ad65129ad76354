"""What a worker keeps of variables that its calls have read. Pure; lives in the worker.

Its entries are those of all sessions that the worker serves, but a call finds only what its own
session has read: the session's incarnation is part of the key, and comes with the call.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from snakepit_grpc_bridge.variables.call_view import Found, State
from snakepit_grpc_bridge.variables.sizes import size_of

__all__ = ["VariableCache"]

MOST_ENTRIES: Final = 1000
MOST_BYTES: Final = 64 << 20


class _Entry(NamedTuple):
    found: Found
    size: int


class VariableCache:
    """The variables read last, up to so many and so many bytes."""

    def __init__(self, most_entries: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    def get(self, name: str, state: State) -> Found | None:
        """What is kept of a variable, if it is not older than ``state``."""
        key = state.session, name
        entry = self._entries.get(key)
        if entry is None or not entry.found.state.covers(state):
            return None
        self._entries.move_to_end(key)
        return entry.found

    def put(self, name: str, found: Found) -> None:
        """Keep what the host has answered, if it may be kept."""
        key = found.state.session, name
        before = self._entries.pop(key, None)
        self._bytes -= 0 if before is None else before.size
        if not found.keeps or (size := size_of(found.value)) > self._most_bytes:
            return
        self._entries[key] = _Entry(found, size)
        self._bytes += size
        while len(self._entries) > self._most_entries or self._bytes > self._most_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size
