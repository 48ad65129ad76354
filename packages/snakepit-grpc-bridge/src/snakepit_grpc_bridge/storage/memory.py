"""The storage that ends with its process: dictionaries, and sorted lists for the orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar, cast

from sortedcontainers import SortedList

from snakepit import forks
from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.storage.columns import Values
from snakepit_grpc_bridge.storage.interface import (
    Change,
    ReadTransaction,
    Storage,
    Transaction,
    ended_transaction,
    not_open,
    refuse_coroutine,
    unknown_table,
)
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.tables import Order, Span, Table

__all__ = ["MemoryStorage"]

_T = TypeVar("_T")
_Row = TypeVar("_Row")


class _Top:
    """Greater than anything: ends a range of tuples that begin alike."""

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


_TOP: Final = _Top()


class _Rows:
    """The rows of one table, by key and in each of its orders."""

    def __init__(self, table: Table[Any]) -> None:
        self.by_key: dict[Values, Any] = {}
        self.has_text_keys = set(table.key_types) == {str}
        self._sorted = {name: SortedList() for name in table.orders}
        self._keys = self._sorted[None]
        self._indexes = [
            (order, self._sorted[name]) for name, order in table.orders.items() if name is not None
        ]
        self._key_parts = {
            name: tuple(order.columns.index(column) for column in table.key)
            for name, order in table.orders.items()
        }

    def replace(self, key: Values, old: Any, new: Any) -> None:
        """Put ``new`` where ``old`` is; None stands for no row."""
        for order, entries in self._indexes:
            before, after = _entry(order, old), _entry(order, new)
            if before != after:
                if before is not None:
                    entries.remove(before)
                if after is not None:
                    entries.add(after)
        if new is None:
            del self.by_key[key]
            self._keys.remove(key)
        else:
            self.by_key[key] = new
            if old is None:
                self._keys.add(key)

    def keys(self, span: Span[Any], after: Any = None, reverse: bool = False) -> Iterator[Values]:
        """The keys of a span's rows in its order."""
        entries = self._sorted[span.order.name]
        low, high = _bounds(span)
        inclusive = (True, False)
        if after is not None:
            passed = span.position(after)
            if reverse and passed < high:
                high = passed
            elif not reverse and passed >= low:
                low, inclusive = passed, (False, False)
        found = entries.irange(low, high, inclusive, reverse=reverse)
        if span.order.name is None:
            return cast("Iterator[Values]", found)
        parts = self._key_parts[span.order.name]
        return (tuple(entry[part] for part in parts) for entry in found)

    def count(self, span: Span[Any]) -> int:
        entries = self._sorted[span.order.name]
        low, high = _bounds(span)
        found: int = entries.bisect_left(high) - entries.bisect_left(low)
        return max(0, found)


def _entry(order: Order, row: Any) -> Values | None:
    """Where a row stands in an order, or None if it is not in it."""
    if row is None:
        return None
    entry = order.entry(row)
    return None if order.optional and None in entry else entry


def _bounds(span: Span[Any]) -> tuple[Values, Values]:
    low = span.prefix if span.start is None else (*span.prefix, span.start)
    high = (*span.prefix, _TOP if span.stop is None else span.stop)
    return low, high


class _Reader:
    """A transaction that only reads. Nothing gets in between, as it runs in one go."""

    def __init__(self, tables: dict[Table[Any], _Rows]) -> None:
        self._tables = tables

    def get(self, table: Table[_Row], *key: Any) -> _Row | None:
        rows = self._tables.get(table) or self._rows(table)
        found: _Row | None = None
        # No key that is not right is found, but that 1 equals 1.0 and True.
        if rows.has_text_keys or tuple(map(type, key)) == table.key_types:
            try:  # noqa: SIM105 - suppress() would take as long as the look
                found = rows.by_key.get(key)
            except TypeError:  # not hashable
                pass
        if found is None:
            table.checked_key(key)
        return found

    def scan(
        self,
        span: Span[_Row],
        *,
        after: _Row | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[_Row]:
        rows = self._rows(span.table)
        keys = rows.keys(span, after, reverse)
        return [rows.by_key[key] for key in islice(keys, limit)]

    def count(self, span: Span[Any]) -> int:
        return self._rows(span.table).count(span)

    def _rows(self, table: Table[Any]) -> _Rows:
        try:
            return self._tables[table]
        except KeyError:
            raise (unknown_table(table) if self._tables else ended_transaction()) from None

    def end(self) -> None:
        self._tables = {}


class _Transaction(_Reader):
    """A transaction that keeps what it replaced, to put it back if it fails."""

    def __init__(self, tables: dict[Table[Any], _Rows]) -> None:
        super().__init__(tables)
        self._replaced: list[tuple[Table[Any], Values, Any]] = []

    def put(self, table: Table[_Row], row: _Row) -> None:
        rows = self._rows(table)
        table.checked(row)
        key = table.key_of(row)
        self._replace(table, rows, key, rows.by_key.get(key), row)

    def insert(self, table: Table[_Row], row: _Row) -> bool:
        rows = self._rows(table)
        table.checked(row)
        key = table.key_of(row)
        if key in rows.by_key:
            return False
        self._replace(table, rows, key, None, row)
        return True

    def delete(self, table: Table[Any], *key: Any) -> bool:
        rows = self._rows(table)
        old = rows.by_key.get(table.checked_key(key))
        if old is None:
            return False
        self._replace(table, rows, key, old, None)
        return True

    def delete_span(self, span: Span[Any], *, limit: int | None = None) -> int:
        rows = self._rows(span.table)
        keys = list(islice(rows.keys(span), limit))
        for key in keys:
            self._replace(span.table, rows, key, rows.by_key[key], None)
        return len(keys)

    def _replace(self, table: Table[Any], rows: _Rows, key: Values, old: Any, new: Any) -> None:
        self._replaced.append((table, key, old))
        rows.replace(key, old, new)

    def roll_back(self) -> None:
        for table, key, old in reversed(self._replaced):
            rows = self._tables[table]
            rows.replace(key, rows.by_key.get(key), old)

    def changes(self) -> list[Change]:
        return list(dict.fromkeys(Change(table, key) for table, key, _ in self._replaced))


class MemoryStorage(Storage):
    """Keeps everything in this process. A transaction runs at once, on the event loop.

    Values are kept as the objects they are; ``get`` returns the very row that was put.
    """

    is_shared = False

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._declared = schema.tables
        self._tables: dict[Table[Any], _Rows] | None = None
        self._forks = forks.count

    def __repr__(self) -> str:
        return "<MemoryStorage>"

    async def start(self) -> None:
        if self._tables is not None:
            raise ConfigurationError("this storage is open already")
        self._tables = {table: _Rows(table) for table in self._declared}
        self._forks = forks.count

    async def aclose(self) -> None:
        self._tables = None

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        tx = _Transaction(self._opened())
        try:
            result = work(tx)
            refuse_coroutine(result)
        except BaseException:
            tx.roll_back()
            raise
        finally:
            tx.end()
        if self._listeners and (changes := tx.changes()):
            self._tell(changes)
        return result

    async def read(self, work: Callable[[ReadTransaction], _T]) -> _T:
        tx = _Reader(self._opened())
        try:
            result = work(tx)
        finally:
            tx.end()
        refuse_coroutine(result)
        return result

    async def foreign_version(self) -> str:
        self._opened()
        return ""  # nobody else can write

    def _opened(self) -> dict[Table[Any], _Rows]:
        tables = self._tables
        if tables is None or forks.count != self._forks:
            raise not_open(forked=tables is not None)
        return tables
