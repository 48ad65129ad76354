"""The way into a session, for whoever reads or writes what it holds. Pure, but for the transaction.

A gate is made on the event loop and used inside a transaction, perhaps in a thread of the storage:
it carries what only the loop knows of the session.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from snakepit_grpc_bridge.errors import QuotaExceeded, SessionExpired, SessionNotFound
from snakepit_grpc_bridge.sessions.rows import SESSION_USE, SESSIONS, SessionRow, UseRow
from snakepit_grpc_bridge.storage import ReadTransaction, Transaction

__all__ = ["Gate", "Taken", "Temporary", "write_uses"]


class Temporary(NamedTuple):
    """A session that is not stored before it holds something."""

    row: SessionRow
    use: UseRow


class Taken(NamedTuple):
    """What a change takes of a session's quotas; gives back where it is negative."""

    variables: int = 0
    bytes: int = 0
    tools: int = 0


class Gate(NamedTuple):
    """The way into one session at one moment.

    Attributes:
        session_id: the session.
        now: the moment, in seconds since the epoch.
        last_used: when it was last used in this process, if that is not written down yet.
        is_serving: whether calls of it run here, so that it can't expire.
        temporary: the session itself, if it is one that may not be stored yet.
    """

    session_id: str
    now: float
    last_used: float | None
    is_serving: bool
    temporary: Temporary | None = None

    def enter(self, tx: ReadTransaction) -> UseRow:
        """The use of the session.

        Raises:
            SessionNotFound: it was never started or is closed.
            SessionExpired: it was not used for too long.
        """
        use = tx.get(SESSION_USE, self.session_id)
        if use is None and self.temporary is not None:
            return self.temporary.use
        if use is None:
            raise SessionNotFound.of(self.session_id)
        if use.ended is not None or (use.expires is not None and self.has_expired(use)):
            raise SessionExpired.of(self.session_id, use.ttl)
        return use

    def has_expired(self, use: UseRow) -> bool:
        """Whether the session was not used for too long."""
        if use.expires is None or use.expires > self.now or self.is_serving:
            return False
        return self.last_used is None or self.last_used + (use.ttl or 0.0) <= self.now

    def record(self, tx: ReadTransaction) -> SessionRow:
        """What does not change of the session; it has been entered."""
        row = tx.get(SESSIONS, self.session_id)
        if row is None and self.temporary is not None:
            row = self.temporary.row
        if row is None:
            raise SessionNotFound.of(self.session_id)
        return row

    def change(self, tx: Transaction, use: UseRow, taken: Taken) -> None:
        """Note that what the session holds is changed by this transaction.

        Raises:
            QuotaExceeded: it would hold more than it may.
        """
        if max(taken) > 0:
            self._require_room(tx, use, taken)
        if self.temporary is not None:
            tx.insert(SESSIONS, self.temporary.row)
        tx.put(SESSION_USE, use.changed(self.now, *taken))

    def _require_room(self, tx: ReadTransaction, use: UseRow, taken: Taken) -> None:
        quotas = self.record(tx).limits()
        for name, amount in taken._asdict().items():
            wanted, limit = getattr(use, name) + amount, getattr(quotas, name)
            if amount > 0 and wanted > limit:
                raise QuotaExceeded.of(self.session_id, name, wanted=wanted, limit=limit)


def write_uses(uses: Iterable[tuple[str, float]], tx: Transaction) -> None:
    """Write down when sessions were last used; those that have ended stay as they are."""
    for session_id, at in uses:
        use = tx.get(SESSION_USE, session_id)
        if use is not None and use.ended is None:
            tx.put(SESSION_USE, use.used(at))
