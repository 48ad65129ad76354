"""Transactions of a database: rows in, statements out. Runs in the thread of the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar, cast

from snakepit_grpc_bridge.storage.interface import (
    Change,
    FaultPoint,
    ended_transaction,
    unknown_table,
)
from snakepit_grpc_bridge.storage.sql.statements import TableStatements
from snakepit_grpc_bridge.storage.tables import Span, Table

__all__ = ["Cursor", "Execute", "SqlReader", "SqlTransaction", "Tables"]

_Row = TypeVar("_Row")


class Cursor(Protocol):
    """What is used of a driver's cursor after a statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


Execute = Callable[[str, Sequence[Any]], Cursor]
Tables = Mapping[Table[Any], TableStatements]


class SqlReader:
    """A transaction that only reads.

    Attributes:
        failure: the first exception of the driver. It counts also when ``work`` has caught it: the
            database may have undone a part, or all, of the transaction.
    """

    def __init__(self, execute: Execute, tables: Tables) -> None:
        self._run = execute
        self._tables = tables
        self.failure: Exception | None = None

    def get(self, table: Table[_Row], *key: Any) -> _Row | None:
        statements = self._of(table)
        found = self._rows(statements.get, table.checked_key(key))
        return cast("_Row", statements.decode(found[0])) if found else None

    def scan(
        self,
        span: Span[_Row],
        *,
        after: _Row | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[_Row]:
        statements = self._of(span.table)
        found = self._rows(*statements.select(span, after, limit, reverse))
        return [statements.decode(row) for row in found]

    def count(self, span: Span[Any]) -> int:
        return int(self._rows(*self._of(span.table).count(span))[0][0])

    def end(self) -> None:
        """Refuse what comes from now on: the connection has other things to do."""
        self._run = _refuse

    def _of(self, table: Table[Any]) -> TableStatements:
        try:
            return self._tables[table]
        except KeyError:
            raise unknown_table(table) from None

    def _rows(self, text: str, values: Sequence[Any]) -> list[Any]:
        cursor = self._execute(text, values)
        try:
            return cursor.fetchall()
        except Exception as error:
            self.failure = error
            raise

    def _execute(self, text: str, values: Sequence[Any]) -> Cursor:
        if self.failure is not None:
            # There may be no transaction any more: this statement would be one of its own.
            raise self.failure
        try:
            return self._run(text, values)
        except Exception as error:
            self.failure = error
            raise


class SqlTransaction(SqlReader):
    """A transaction that writes too; ``fault_point`` is told of each write.

    Attributes:
        changes: the rows that were written or deleted.
    """

    def __init__(
        self, execute: Execute, tables: Tables, fault_point: Callable[[FaultPoint], None]
    ) -> None:
        super().__init__(execute, tables)
        self._fault_point = fault_point
        self.changes: list[Change] = []

    def put(self, table: Table[_Row], row: _Row) -> None:
        statements = self._of(table)
        self._execute(statements.put, statements.encode(table.checked(row)))
        self._note(Change(table, table.key_of(row)))

    def insert(self, table: Table[_Row], row: _Row) -> bool:
        statements = self._of(table)
        values = statements.encode(table.checked(row))
        inserted = self._execute(statements.insert, values).rowcount > 0
        if inserted:
            self._note(Change(table, table.key_of(row)))
        return inserted

    def delete(self, table: Table[Any], *key: Any) -> bool:
        found = self._execute(self._of(table).delete, table.checked_key(key)).rowcount > 0
        if found:
            self._note(Change(table, key))
        return found

    def delete_span(self, span: Span[Any], *, limit: int | None = None) -> int:
        keys = self._rows(*self._of(span.table).delete_span(span, limit))
        for key in keys:
            self._note(Change(span.table, tuple(key)))
        return len(keys)

    def _note(self, change: Change) -> None:
        self.changes.append(change)
        self._fault_point(FaultPoint.AFTER_WRITE)


def _refuse(*_: object) -> NoReturn:
    raise ended_transaction()
