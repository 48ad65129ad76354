"""When sessions were last used in this process. Pure: it takes ``now``.

Writing each use down would make a write of every read. So uses are noted here and written in
groups, before a session could expire elsewhere because they were not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

__all__ = ["Activity"]

#: Each use is written down within this part of the session's time to live.
_PART: Final = 0.1
#: But within as many seconds, however long it lives.
_LONGEST: Final = 60.0
#: The pause between two sweeps is at least so many seconds, and at most so many.
_PAUSES: Final = (0.05, 10.0)


class Activity:
    """The uses of sessions that have not been written down, and the calls that sessions serve.

    Attributes:
        calls: how many calls run of each session that serves any.
    """

    def __init__(self) -> None:
        self._noted: dict[str, float] = {}
        self._due: dict[str, float] = {}
        # The times to live of those that are due, and of those that serve calls.
        self._ttls: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def note(self, session_id: str, ttl: float | None, now: float) -> float | None:
        """A session was used; when that has to be written down, if it is the first use to be."""
        if ttl is None:
            return None
        self._noted[session_id] = now
        if session_id in self._due:
            return None
        self._ttls[session_id] = ttl
        due = self._due[session_id] = _due(ttl, now)
        return due

    def last_used(self, session_id: str) -> float | None:
        """When it was last used, if that has not been written down."""
        return self._noted.get(session_id)

    def pause(self, now: float) -> float:
        """Seconds until the first use has to be written down, or until the next sweep."""
        shortest, longest = _PAUSES
        due = min(self._due.values(), default=math.inf)
        return min(max(due - now, shortest), longest)

    def to_write(self, now: float) -> dict[str, float]:
        """The uses to write down, by session; a session that serves a call is used ``now``, and
        again: or it would expire in the eyes of other hosts while the call runs.
        """
        self._ttls = {each: ttl for each, ttl in self._ttls.items() if each in self.calls}
        self._due = {each: _due(ttl, now) for each, ttl in self._ttls.items()}
        return self._noted | dict.fromkeys(self.calls, now)

    def written(self, uses: Iterable[tuple[str, float]]) -> None:
        """These are written down. Until then they are known from here, or a session could seem to
        have expired meanwhile.
        """
        for session_id, at in uses:
            if self._noted.get(session_id, math.inf) <= at:
                del self._noted[session_id]

    def forget(self, session_id: str) -> None:
        """The session has ended."""
        self._noted.pop(session_id, None)
        self._due.pop(session_id, None)
        self._ttls.pop(session_id, None)

    # --- calls -----------------------------------------------------------------------------------

    def enter(self, session_id: str) -> None:
        """A call of the session begins; while any runs the session does not expire."""
        self.calls[session_id] = self.calls.get(session_id, 0) + 1

    def leave(self, session_id: str) -> None:
        """A call of the session has ended."""
        self.calls[session_id] -= 1
        if not self.calls[session_id]:
            del self.calls[session_id]


def _due(ttl: float, now: float) -> float:
    return now + min(ttl * _PART, _LONGEST)
