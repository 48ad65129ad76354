"""Variables as they are stored, and as users see them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from snakepit_grpc_bridge.storage import Table
from snakepit_grpc_bridge.variables.names import id_of

__all__ = [
    "HISTORY",
    "HISTORY_RETENTION",
    "VARIABLES",
    "HistoryRow",
    "Kind",
    "Source",
    "Variable",
    "VariableChange",
    "VariableOptions",
    "VariableRow",
    "VariableVersion",
    "source_of",
]

#: Seconds that the history of a variable is kept after its deletion.
HISTORY_RETENTION: Final = 30 * 86_400.0

Kind = Literal["initial", "created", "updated", "deleted"]
Source = Literal["host", "worker", "rollback"]


class VariableOptions(TypedDict, total=False):
    """What a variable can be created with; see :meth:`VariableService.create`."""

    constraints: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    read_only: bool
    ttl: float | timedelta | None
    overwrite: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A variable as it was when it was read; changing what it holds changes nothing in the store.

    Attributes:
        id: names this variable and no later one of its name, wherever a name does. Writes keep it.
        session_id: the session it belongs to, "global" for those that every session sees.
        name: its name, unique in its session.
        type: the name of its type.
        value: its value.
        version: 0 when created, one more with each write; also over deletion and creation anew.
        created_at: when it was created, in UTC.
        updated_at: when it was last written, in UTC.
        updated_by: who wrote it last: a worker's id, or None for the host.
        source: what wrote it last: the host, code in a worker, or a rollback to an earlier value.
        constraints: what its values must keep.
        metadata: plain data of the caller's.
        inferred: whether the type was taken from the first value rather than declared.
        read_only: whether it can't be written.
        ttl: seconds after its last write when it is gone; None for never.
        expires: when that is, in UTC.
    """

    id: str
    session_id: str
    name: str
    type: str
    value: Any
    version: int
    created_at: datetime
    updated_at: datetime
    updated_by: str | None
    source: Source
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    inferred: bool
    read_only: bool
    ttl: float | None
    expires: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VariableVersion:
    """An earlier state of a variable.

    Attributes:
        version: its number.
        type: the name of the type that it had.
        value: the value that it had; None also where it was deleted or the value was not kept.
        updated_at: when it was written, in UTC.
        updated_by: who wrote it: a worker's id, or None for the host.
        source: what wrote it: the host, code in a worker, or a rollback to an earlier value.
        deleted: whether this is the deletion of the variable.
        kept: whether the value was kept; values of more than 64 KiB are not.
    """

    version: int
    type: str
    value: Any
    updated_at: datetime
    updated_by: str | None
    source: Source
    deleted: bool
    kept: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class VariableChange:
    """What a watcher is told.

    Attributes:
        session_id: the session of the variable.
        id: its id.
        name: its name.
        type: the name of its type.
        kind: "initial" for what there was when the watch began.
        value: its value now, None if it was deleted.
        old_value: the value before, as the watcher knows it.
        version: its version now.
        updated_at: when it was written, in UTC.
        updated_by: who wrote it: a worker's id, or None for the host.
        source: what wrote it: the host, code in a worker, or a rollback to an earlier value.
        missed: how many changes between ``old_value`` and ``value`` the watcher was too slow for.
    """

    session_id: str
    id: str
    name: str
    type: str
    kind: Kind
    value: Any
    old_value: Any
    version: int
    updated_at: datetime
    updated_by: str | None
    source: Source
    missed: int = 0


@dataclass(frozen=True, slots=True)
class VariableRow:
    """A variable. ``value`` is in the plain form of its type, ``size`` about its bytes; ``born`` is
    the version in which it was created.
    """

    session_id: str
    name: str
    type: str
    version: int
    born: int
    created_at: float
    updated_at: float
    updated_by: str | None
    rolled_back: bool
    inferred: bool
    read_only: bool
    ttl: float | None
    expires: float | None
    size: int
    value: Any
    constraints: Any
    metadata: Any

    @property
    def id(self) -> str:
        """What tells it from those that had its name before, and will have it later."""
        return id_of(self.name, self.created_at, self.born)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A state that a variable had before its present one, or its deletion. ``forget_at`` is set in
    a deletion alone: when it is forgotten with all before it.
    """

    session_id: str
    name: str
    version: int
    type: str
    updated_at: float
    updated_by: str | None
    rolled_back: bool
    deleted: bool
    kept: bool
    forget_at: float | None
    value: Any


VARIABLES: Final = Table(
    "variables",
    VariableRow,
    key=("session_id", "name"),
    indexes={"expiry": ("expires",)},
    values=("value", "constraints", "metadata"),
)
HISTORY: Final = Table(
    "variable_history",
    HistoryRow,
    key=("session_id", "name", "version"),
    indexes={"forgetting": ("forget_at",)},
    values=("value",),
)


def source_of(row: VariableRow | HistoryRow) -> Source:
    """What made the write that a row is of."""
    if row.rolled_back:
        return "rollback"
    return "host" if row.updated_by is None else "worker"
