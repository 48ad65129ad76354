"""What the two databases say differently."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from snakepit.errors import DecodeError
from snakepit.wire import codec
from snakepit_grpc_bridge.storage.columns import Column, Kind

__all__ = ["MAX_VALUE_BYTES", "POSTGRESQL", "SQLITE", "Dialect"]

#: Bytes of one encoded value. A field of PostgreSQL has 1 GiB at most, one of SQLite 10**9 bytes.
MAX_VALUE_BYTES: Final = 1 << 28

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How statements are written for a database, and how its columns hold values.

    Attributes:
        compiler: SQLAlchemy's dialect, with positional parameters.
        insert: its INSERT, which knows ON CONFLICT.
        tables: asks whether there is a table of a name.
        types: the type of the column for each kind.
        to_column, from_column: conversions of the kinds that the driver does not take as they are.
    """

    compiler: sa.Dialect
    insert: Callable[..., Any]
    tables: str
    types: dict[Kind, sa.types.TypeEngine[Any]]
    to_column: dict[Kind, Convert]
    from_column: dict[Kind, Convert]

    def encoder(self, column: Column) -> Convert | None:
        """Return the conversion of a value that is written to a column."""
        if column.kind is Kind.VALUE:
            return _value_encoder(column.name)
        return self.to_column.get(column.kind)

    def decoder(self, column: Column) -> Convert | None:
        """Return the conversion of what is read from a column."""
        if column.kind is Kind.VALUE:
            return _value_decoder(column)
        return self.from_column.get(column.kind)


def _value_encoder(name: str) -> Convert:
    def encode(value: Any) -> bytes:
        return codec.encode(value, root=name, limit=MAX_VALUE_BYTES)

    return encode


def _value_decoder(column: Column) -> Convert:
    def decode(data: bytes) -> Any:
        try:
            return codec.decode(data)
        except DecodeError as error:
            raise DecodeError(
                f"column {column.name!r} of table {column.table!r} holds what can't be read: "
                f"{error.message}",
                details={"table": column.table, "column": column.name},
            ) from error

    return decode


def _float_to_sqlite(value: float | None) -> float | str | None:
    # SQLite turns NaN into NULL. As text it stands after all numbers, as PostgreSQL has it.
    return "NaN" if value != value else value


def _float_from_sqlite(value: float | str | None) -> float | None:
    return math.nan if isinstance(value, str) else value


def _bool_from_sqlite(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _compiler(dialect: Callable[..., sa.Dialect], paramstyle: str) -> sa.Dialect:
    return dialect(paramstyle=paramstyle)


SQLITE: Final = Dialect(
    compiler=_compiler(sqlite.dialect, "qmark"),
    insert=sqlite.insert,
    tables="SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?",
    types={
        Kind.TEXT: sa.Text(),
        Kind.INTEGER: sa.BigInteger(),
        # A REAL column would make 0.0 of -0.0; one of the type BLOB keeps what it is given.
        Kind.FLOAT: sa.LargeBinary(),
        Kind.BOOL: sa.Boolean(),
        Kind.BYTES: sa.LargeBinary(),
        Kind.VALUE: sa.LargeBinary(),
    },
    to_column={Kind.FLOAT: _float_to_sqlite},
    from_column={
        Kind.FLOAT: _float_from_sqlite,
        Kind.BOOL: _bool_from_sqlite,
    },
)

POSTGRESQL: Final = Dialect(
    compiler=_compiler(postgresql.dialect, "format"),
    insert=postgresql.insert,
    tables="SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = %s",
    types={
        # By bytes, as Python and SQLite compare text, whatever the locale of the server.
        Kind.TEXT: sa.Text(collation="C"),
        Kind.INTEGER: sa.BigInteger(),
        Kind.FLOAT: sa.Double(),
        Kind.BOOL: sa.Boolean(),
        Kind.BYTES: sa.LargeBinary(),
        Kind.VALUE: sa.LargeBinary(),
    },
    to_column={},
    from_column={},
)
