"""The statements of a table, written by SQLAlchemy and compiled once.

Executing through SQLAlchemy costs more than the statements themselves (measured: 157 of 238 us for
a transaction of five statements on SQLite). So its part ends with the text; the drivers run it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement

from snakepit_grpc_bridge.storage.columns import Values
from snakepit_grpc_bridge.storage.sql.dialects import Convert, Dialect
from snakepit_grpc_bridge.storage.tables import Span, Table

__all__ = ["TableStatements"]


#: All that the text of a statement about a span depends on.
_Shape = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement: its text, and the names of its parameters in order."""

    text: str
    names: tuple[str, ...]
    fixed: Mapping[str, Any]

    def bound(self, values: Mapping[str, Any]) -> Values:
        """Return the parameters in order."""
        return tuple(values[name] if name in values else self.fixed[name] for name in self.names)


class TableStatements:
    """The statements of one table, and the conversion of its rows. Threads may share it.

    Attributes:
        get, put, insert, delete: texts; the parameters are the key, or all values of the row.
    """

    def __init__(self, table: Table[Any], dialect: Dialect) -> None:
        self._row = table.row
        self._dialect = dialect
        self._table = sa.table(
            table.name,
            *(sa.column(column.name, dialect.types[column.kind]) for column in table.columns),
        )
        self._key = [self._table.c[name] for name in table.key]
        of_key = [column == sa.bindparam(column.name) for column in self._key]
        self.get = self._text(sa.select(self._table).where(*of_key), table.key)
        self.delete = self._text(sa.delete(self._table).where(*of_key), table.key)
        names = tuple(column.name for column in table.columns)
        insert = dialect.insert(self._table).values({name: sa.bindparam(name) for name in names})
        self.insert = self._text(insert.on_conflict_do_nothing(), names)
        rest = {name: insert.excluded[name] for name in names if name not in table.key}
        if rest:
            insert = insert.on_conflict_do_update(index_elements=self._key, set_=rest)
            self.put = self._text(insert, names)
        else:  # the row is nothing but its key
            self.put = self.insert
        self._encoders = _conversions(map(dialect.encoder, table.columns))
        self._decoders = _conversions(map(dialect.decoder, table.columns))
        self._spans: dict[_Shape, Statement] = {}

    def encode(self, values: Values) -> Sequence[Any]:
        """Return the values of a row as the database takes them."""
        return _converted(values, self._encoders)

    def decode(self, found: Sequence[Any]) -> Any:
        """Return the row that the database gave."""
        return self._row(*_converted(found, self._decoders))

    def select(
        self, span: Span[Any], after: Any, limit: int | None, reverse: bool
    ) -> tuple[str, Values]:
        """Return text and parameters that read a span."""
        return self._about("select", span, after, limit, reverse)

    def count(self, span: Span[Any]) -> tuple[str, Values]:
        """Return text and parameters that count a span."""
        return self._about("count", span)

    def delete_span(self, span: Span[Any], limit: int | None) -> tuple[str, Values]:
        """Return text and parameters that delete a span and return the keys."""
        return self._about("delete", span, limit=limit)

    # --- spans -------------------------------------------------------------------------------

    def _about(
        self,
        verb: str,
        span: Span[Any],
        after: Any = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> tuple[str, Values]:
        shape: _Shape = (
            *(verb, span.order.name, len(span.prefix), span.start is None, span.stop is None),
            *(after is None, limit is None, reverse),
        )
        statement = self._spans.get(shape)
        if statement is None:
            text = self._of_span(verb, span, after is not None, limit is not None, reverse)
            statement = self._spans[shape] = self._compiled(text)
        values = {f"p{place}": value for place, value in enumerate(span.prefix)}
        values |= {"start": span.start, "stop": span.stop, "most": limit}
        if after is not None:
            values |= {f"a{place}": value for place, value in enumerate(span.position(after))}
        return statement.text, statement.bound(values)

    def _of_span(
        self, verb: str, span: Span[Any], after: bool, limited: bool, reverse: bool
    ) -> sa.Executable:
        columns = [self._table.c[name] for name in span.order.columns]
        where = self._conditions(span, columns, after, reverse)
        if verb == "count":
            return sa.select(sa.func.count()).select_from(self._table).where(*where)
        wanted = self._key if verb == "delete" else list(self._table.c)
        select = sa.select(*wanted).where(*where)
        select = select.order_by(*(each.desc() if reverse else each for each in columns))
        if limited:
            select = select.limit(sa.bindparam("most", type_=sa.BigInteger()))
        if verb == "select":
            return select
        delete = sa.delete(self._table).returning(*self._key)
        return delete.where(sa.tuple_(*self._key).in_(select) if limited else sa.and_(*where))

    def _conditions(
        self, span: Span[Any], columns: Sequence[Any], after: bool, reverse: bool
    ) -> list[ColumnElement[bool]]:
        where: list[ColumnElement[bool]] = [sa.true()]
        # They repeat the condition of the index, or it would not be used.
        where += [self._table.c[name].is_not(None) for name in span.order.optional]
        where += [columns[n] == sa.bindparam(f"p{n}") for n in range(len(span.prefix))]
        if span.start is not None:
            where.append(columns[len(span.prefix)] >= sa.bindparam("start"))
        if span.stop is not None:
            where.append(columns[len(span.prefix)] < sa.bindparam("stop"))
        if after:
            passed = [sa.bindparam(f"a{n}", type_=c.type) for n, c in enumerate(columns)]
            here, there = sa.tuple_(*columns), sa.tuple_(*passed)
            where.append(here < there if reverse else here > there)
        return where

    # --- compiling ---------------------------------------------------------------------------

    def _compiled(self, statement: sa.Executable) -> Statement:
        compiled = statement.compile(dialect=self._dialect.compiler)  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        return Statement(str(compiled), tuple(compiled.positiontup or ()), dict(compiled.params))

    def _text(self, statement: Any, names: Sequence[str]) -> str:
        compiled = self._compiled(statement)
        assert compiled.names == tuple(names), "callers pass the parameters in this order"
        return compiled.text


def _conversions(converts: Iterable[Convert | None]) -> list[tuple[int, Convert]]:
    return [(place, each) for place, each in enumerate(converts) if each is not None]


def _converted(values: Sequence[Any], conversions: list[tuple[int, Convert]]) -> Sequence[Any]:
    if not conversions:
        return values
    converted = list(values)
    for place, convert in conversions:
        converted[place] = convert(converted[place])
    return converted
