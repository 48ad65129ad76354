"""What the calls of a session see of its variables: made by the host, used by its workers. Pure.

With each call travels the state of its session when it was submitted: a worker may show what it
has kept of a variable if it has read that at such a state or a later one. Whatever was acknowledged
before the call was submitted is seen by the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from snakepit_grpc_bridge.sessions.gate import Gate
from snakepit_grpc_bridge.sessions.rows import GLOBAL_SESSION, SESSION_USE, UseRow
from snakepit_grpc_bridge.storage import ReadTransaction
from snakepit_grpc_bridge.variables.rows import VARIABLES, VariableRow
from snakepit_grpc_bridge.variables.writing import find

__all__ = ["CallView", "Found", "State", "look_up", "state_of", "view"]


class State(NamedTuple):
    """What a session and the global one held at a moment. Each revision replaces the one before;
    those of different incarnations have nothing to do with each other.
    """

    session: str
    session_revision: int
    shared: str
    shared_revision: int

    def covers(self, other: State) -> bool:
        """Whether what was read at this state is not older than at the other one."""
        return (
            self.session == other.session
            and self.shared == other.shared
            and self.session_revision >= other.session_revision
            and self.shared_revision >= other.shared_revision
        )


class CallView(NamedTuple):
    """What the host looks up for a call before it makes it: the state of its session, and certain
    variables of the session and of the global one.
    """

    state: State
    own: list[VariableRow]
    shared: list[VariableRow]


class Found(NamedTuple):
    """A variable for a worker: its type and plain value, and the state at which it was read.

    ``type`` is None if there is no such variable; ``version`` is that of the session's own, None if
    it has none; ``keeps``: whether the worker may keep it.
    """

    type: str | None
    value: Any
    version: int | None
    keeps: bool
    state: State


def state_of(tx: ReadTransaction, use: UseRow) -> State:
    """The state of a session that has been entered, by its use."""
    shared = tx.get(SESSION_USE, GLOBAL_SESSION)
    if shared is None:  # being emptied
        return State(use.incarnation, use.revision, "", 0)
    return State(use.incarnation, use.revision, shared.incarnation, shared.revision)


def look_up(tx: ReadTransaction, gate: Gate, name: str) -> tuple[VariableRow | None, State, UseRow]:
    """What reading a name in a session finds, the state it was read at, and the session's use."""
    use = gate.enter(tx)
    row = find(tx, gate.session_id, name, gate.now)
    if row is None and gate.session_id != GLOBAL_SESSION:
        row = find(tx, GLOBAL_SESSION, name, gate.now)
    return row, state_of(tx, use), use


def view(tx: ReadTransaction, gate: Gate, names: Iterable[str], prefix: str) -> CallView:
    """The view of a call: variables of these names, and of names that begin with ``prefix`` if it
    is not empty.
    """
    own = _rows(tx, gate.session_id, names, prefix, gate.now)
    shared = _rows(tx, GLOBAL_SESSION, names, prefix, gate.now)
    return CallView(state_of(tx, gate.enter(tx)), own, shared)


def _rows(
    tx: ReadTransaction, session_id: str, names: Iterable[str], prefix: str, now: float
) -> list[VariableRow]:
    found = [find(tx, session_id, name, now) for name in names]
    if not prefix:
        return [row for row in found if row is not None]
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    prefixed = tx.scan(VARIABLES.span(session_id, start=prefix, stop=after))
    live = (row for row in prefixed if row.expires is None or row.expires > now)
    return [*(row for row in found if row is not None), *live]
