"""What writing does to the variables of a session. Pure, but for the transaction it is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from snakepit_grpc_bridge.errors import (
    ReadOnlyVariable,
    ValidationFailed,
    VariableConflict,
    VariableExists,
    VariableNotFound,
)
from snakepit_grpc_bridge.metadata import merged_metadata
from snakepit_grpc_bridge.sessions.gate import Gate, Taken
from snakepit_grpc_bridge.storage import ReadTransaction, Transaction
from snakepit_grpc_bridge.variables.names import (
    check_identifier,
    check_variable_name,
    is_id,
    name_of,
)
from snakepit_grpc_bridge.variables.rows import (
    HISTORY,
    HISTORY_RETENTION,
    VARIABLES,
    HistoryRow,
    VariableRow,
)
from snakepit_grpc_bridge.variables.sizes import size_of
from snakepit_grpc_bridge.variables.types import Declaration
from snakepit_grpc_bridge.variables.values import Values, place_of

__all__ = ["ANY_VERSION", "Change", "Writing", "find", "forget_deleted", "not_found"]

#: Earlier states of a variable that are kept.
HISTORY_LIMIT: Final = 100
#: Bytes of a value that is kept as an earlier state.
HISTORY_VALUE_BYTES: Final = 1 << 16
#: Earlier states that are forgotten in one transaction: a few milliseconds of work.
_BATCH: Final = 200

ANY_VERSION: Final = -1


class Change(NamedTuple):
    """A row before and after; None for no row. ``written`` is the one after, or the deletion."""

    before: VariableRow | None
    after: VariableRow | None
    written: VariableRow | HistoryRow


def find(tx: ReadTransaction, session_id: str, identifier: str, now: float) -> VariableRow | None:
    """The session's own variable of that name or id, if it has one that has not expired."""
    row = tx.get(VARIABLES, session_id, identifier)
    if row is None:  # only now: most are named, and found
        row = _find_by_id(tx, session_id, identifier)
    return None if row is None or _has_expired(row, now) else row


def _find_by_id(tx: ReadTransaction, session_id: str, identifier: str) -> VariableRow | None:
    if not is_id(identifier):
        return None
    row = tx.get(VARIABLES, session_id, name_of(identifier))
    return None if row is None or row.id != identifier else row


def not_found(
    tx: ReadTransaction, identifier: str, session_id: str, *further: str
) -> VariableNotFound:
    """The error for a variable that is in none of these sessions, of which the first one counts."""
    scopes = (session_id, *further)
    if is_id(identifier):
        found = [tx.get(VARIABLES, scope, name_of(identifier)) for scope in scopes]
        successor = next((row.id for row in found if row is not None), None)
        return VariableNotFound.of_id(identifier, session_id, successor)
    rows = (row for scope in scopes for row in tx.scan(VARIABLES.span(scope)))
    return VariableNotFound.of(identifier, session_id, sorted({row.name for row in rows}))


def forget_deleted(tx: Transaction, now: float) -> int:
    """Forget some of what is left of variables that were deleted long ago; how many states. One
    that was created anew keeps what it has had since.
    """
    room = _BATCH
    due = HISTORY.span(by="forgetting", stop=math.nextafter(now, math.inf))
    for row in tx.scan(due, limit=_BATCH):
        span = HISTORY.span(row.session_id, row.name, stop=row.version + 1)
        room -= tx.delete_span(span, limit=room)
        if not room:
            break
    return _BATCH - room


def _has_expired(row: VariableRow, now: float) -> bool:
    return row.expires is not None and row.expires <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a new variable is declared with."""

    constraints: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False
    ttl: float | None = None


class Writing:
    """The writes of one transaction to the variables of one session.

    ``by`` is who writes. ``changes`` is what was written so far; ``finish`` has to be called at the
    end.
    """

    def __init__(self, tx: Transaction, gate: Gate, values: Values, by: str | None) -> None:
        self._tx = tx
        self._gate = gate
        self._values = values
        self._by = by
        self._use = gate.enter(tx)
        self.changes: list[Change] = []
        # What had expired, and is replaced.
        self._expired: list[VariableRow] = []

    def find(self, identifier: str) -> VariableRow | None:
        """The session's own variable of that name or id."""
        return find(self._tx, self._gate.session_id, identifier, self._gate.now)

    def require(self, identifier: str) -> VariableRow:
        """As :meth:`find`.

        Raises:
            VariableNotFound: there is none.
        """
        row = self.find(identifier)
        if row is None:
            raise not_found(self._tx, identifier, self._gate.session_id)
        return row

    def require_version(self, name: str, expected: int | None) -> None:
        """Refuse to go on if a variable is in another version; None stands for no variable.

        Raises:
            VariableConflict: it is.
        """
        self._require_version(name, self.find(name), expected)

    # --- one variable ----------------------------------------------------------------------------

    def create(
        self, name: str, type_name: str, value: Any, options: Options, *, overwrite: bool
    ) -> VariableRow:
        """Declare a variable.

        Raises:
            VariableExists: there is one, and it is not to be overwritten.
            ReadOnlyVariable: there is one that can't be overwritten.
        """
        check_variable_name(name)
        before = self.find(name)
        if before is not None and not overwrite:
            raise VariableExists(
                f"session {before.session_id!r} has a variable {name!r} already; change it with "
                "set or put, or replace it with create(..., overwrite=True)",
                details={"session_id": before.session_id, "name": name},
            )
        if before is not None:
            _require_writable(before)
        row = self._new(name, type_name, value, options, inferred=False)
        return self._create(before, row)

    def put(self, identifier: str, value: Any, expected: int | None = ANY_VERSION) -> VariableRow:
        """Write a variable, or create it with the type of the value.

        Raises:
            VariableConflict: it is not in the ``expected`` version (None: it is not to be there).
            VariableNotFound: it has an id, and is not there any more: none can be created with one.
        """
        check_identifier(identifier)
        before = self.find(identifier)
        if before is None and is_id(identifier):
            raise not_found(self._tx, identifier, self._gate.session_id)
        self._require_version(identifier, before, expected)
        if before is not None:
            return self.write(before, value)
        type_name = self._values.types.infer(value)
        return self._create(None, self._new(identifier, type_name, value, Options(), inferred=True))

    def write(
        self,
        before: VariableRow,
        value: Any,
        *,
        expected: int | None = ANY_VERSION,
        metadata: Mapping[str, Any] = MappingProxyType({}),
        rolls_back: bool = False,
    ) -> VariableRow:
        """Write a variable that exists; ``metadata`` is merged into its own.

        Raises:
            VariableConflict: it is not in the ``expected`` version.
            ReadOnlyVariable: it can't be written.
            ValidationFailed: the value does not fit, or the metadata are too large.
        """
        self._require_version(before.name, before, expected)
        _require_writable(before)
        type_name = before.type
        if before.inferred and type_name == "integer" and isinstance(value, float):
            type_name = "float"  # temperature = 1 was no promise of whole numbers
        declaration = self._values.declaration(type_name, before.constraints)
        try:
            plain = self._plain(declaration, value, place_of(before))
        except ValidationFailed as error:
            if not before.inferred:
                raise
            raise _of_first_value(error) from error.__cause__
        now = self._gate.now
        # As in UseRow: dataclasses.replace() takes several times as long.
        after = VariableRow(
            session_id=before.session_id,
            name=before.name,
            type=type_name,
            version=before.version + 1,
            born=before.born,
            created_at=before.created_at,
            updated_at=now,
            updated_by=self._by,
            rolled_back=rolls_back,
            inferred=before.inferred,
            read_only=before.read_only,
            ttl=before.ttl,
            expires=None if before.ttl is None else now + before.ttl,
            size=size_of(plain),
            value=plain,
            constraints=before.constraints,
            metadata=merged_metadata(before.metadata, metadata),
        )
        return self._store(before, after)

    def delete(self, identifier: str, expected: int | None = ANY_VERSION) -> bool:
        """Delete a variable; whether there was one.

        Raises:
            VariableConflict: it is not in the ``expected`` version.
        """
        before = self.find(identifier)
        self._require_version(identifier, before, expected)
        if before is not None:
            self._delete(before)
        return before is not None

    def delete_expired(self, name: str) -> None:
        """Delete a variable whose time is over, if it still is."""
        row = self._tx.get(VARIABLES, self._gate.session_id, name)
        if row is not None and _has_expired(row, self._gate.now):
            self._delete(row)

    def _delete(self, before: VariableRow) -> None:
        self._tx.delete(VARIABLES, before.session_id, before.name)
        self._remember(before)
        deletion = HistoryRow(
            session_id=before.session_id,
            name=before.name,
            version=before.version + 1,
            type=before.type,
            updated_at=self._gate.now,
            updated_by=self._by,
            rolled_back=False,
            deleted=True,
            kept=False,
            forget_at=self._gate.now + HISTORY_RETENTION,
            value=None,
        )
        self._tx.put(HISTORY, deletion)
        self.changes.append(Change(before, None, deletion))

    def roll_back(self, identifier: str, version: int) -> VariableRow:
        """Write a variable with the value that it had in an earlier version.

        Raises:
            ValidationFailed: that version is not known any more, or its value was not kept.
        """
        before = self.require(identifier)
        name = before.name
        state = self._tx.get(HISTORY, before.session_id, name, version)
        of_another = is_id(identifier) and version < before.born
        if state is None or state.deleted or not state.kept or of_another:
            raise ValidationFailed(
                f"there is no value of version {version} of variable {identifier!r} to go back to; "
                "see history() for what is kept",
                details={"name": name, "version": version},
            )
        value = self._values.from_store(state.type, state.value, place_of(before))
        return self.write(before, value, rolls_back=True)

    def finish(self) -> int:
        """Note the changes in the session; return its revision.

        Raises:
            QuotaExceeded: it would hold too much.
        """
        if not self.changes:
            return self._use.revision
        variables = size = 0
        for before, after, _ in self.changes:
            variables += (after is not None) - (before is not None)
            size += _size(after) - _size(before)
        for row in self._expired:
            variables -= 1
            size -= row.size
        taken = Taken(variables=variables, bytes=size)
        self._gate.change(self._tx, self._use, taken)
        return self._use.revision + 1

    # --- how ---------------------------------------------------------------------------------

    def _new(
        self, name: str, type_name: str, value: Any, options: Options, *, inferred: bool
    ) -> VariableRow:
        declaration = self._values.types.declare(type_name, options.constraints)
        session_id, now = self._gate.session_id, self._gate.now
        plain = self._plain(declaration, value, f"{session_id}/{name}")
        return VariableRow(
            session_id=session_id,
            name=name,
            type=type_name,
            version=0,
            born=0,
            created_at=now,
            updated_at=now,
            updated_by=self._by,
            rolled_back=False,
            inferred=inferred,
            read_only=options.read_only,
            ttl=options.ttl,
            expires=None if options.ttl is None else now + options.ttl,
            size=size_of(plain),
            value=plain,
            constraints=dict(declaration.constraints),
            metadata=dict(options.metadata),
        )

    def _create(self, before: VariableRow | None, new: VariableRow) -> VariableRow:
        version = self._last_version(new.name, before) + 1
        return self._store(before, dataclasses.replace(new, version=version, born=version))

    def _plain(self, declaration: Declaration[Any], value: Any, place: str) -> Any:
        return self._values.to_store(declaration, declaration.read(value), place)

    def _store(self, before: VariableRow | None, after: VariableRow) -> VariableRow:
        if before is not None:
            self._remember(before)
        self._tx.put(VARIABLES, after)
        self.changes.append(Change(before, after, after))
        return after

    def _remember(self, row: VariableRow) -> None:
        kept = row.size <= HISTORY_VALUE_BYTES
        self._tx.put(
            HISTORY,
            HistoryRow(
                session_id=row.session_id,
                name=row.name,
                version=row.version,
                type=row.type,
                updated_at=row.updated_at,
                updated_by=row.updated_by,
                rolled_back=row.rolled_back,
                deleted=False,
                kept=kept,
                forget_at=None,
                value=row.value if kept else None,
            ),
        )
        self._make_room(row.name, row.version)

    def _make_room(self, name: str, version: int) -> None:
        """Forget the state that is one too many, now that there is one of this version."""
        if version >= HISTORY_LIMIT:
            self._tx.delete(HISTORY, self._gate.session_id, name, version - HISTORY_LIMIT)

    def _last_version(self, name: str, before: VariableRow | None) -> int:
        """So that a variable that is created anew can't be taken for what it was before."""
        if before is not None:
            return before.version
        last = self._last_ended(name)
        self._make_room(name, last)  # that it ended was a version, too
        return last

    def _last_ended(self, name: str) -> int:
        session_id = self._gate.session_id
        expired = self._tx.get(VARIABLES, session_id, name)
        if expired is not None:
            self._expired.append(expired)
            return expired.version
        last = self._tx.scan(HISTORY.span(session_id, name), limit=1, reverse=True)
        return last[0].version if last else -1

    def _require_version(self, name: str, row: VariableRow | None, expected: int | None) -> None:
        actual = None if row is None else row.version
        if expected not in (ANY_VERSION, actual):
            raise VariableConflict.of(name, self._gate.session_id, expected=expected, actual=actual)


def _require_writable(row: VariableRow) -> None:
    if row.read_only:
        raise ReadOnlyVariable(
            f"variable {row.name!r} of session {row.session_id!r} was created read-only; delete "
            "it, or write another one",
            details={"session_id": row.session_id, "name": row.name},
        )


def _size(row: VariableRow | None) -> int:
    return 0 if row is None else row.size


def _of_first_value(error: ValidationFailed) -> ValidationFailed:
    """The error for a value that does not fit a type which nobody has declared."""
    return ValidationFailed(
        f"{error}; the variable has the type of its first value: delete it to give it another",
        details=error.details,
    )
