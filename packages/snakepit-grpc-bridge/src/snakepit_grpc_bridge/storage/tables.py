"""Tables as data: what a storage keeps, and which rows of it are meant. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, get_type_hints

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ValidationFailed, did_you_mean
from snakepit_grpc_bridge.storage.columns import (
    MAX_ORDER_BYTES,
    Column,
    Kind,
    Values,
    column_of,
    plain_check,
)

__all__ = ["Order", "Span", "Table"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
#: Kept by the storage itself.
_RESERVED: Final = frozenset({"schema_version", "commits"})

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The order of a table's key, or of one of its indexes.

    Attributes:
        name: the index's name, None for the key.
        columns: the columns it goes by. An index ends with the key, so that its order is total.
        optional: those of them that may be None; such a row is not in the index.
        entry: returns the values of these columns of a row.
    """

    name: str | None
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    entry: Callable[[Any], Values]


class Table(Generic[Row]):
    """A table, declared as data by whoever owns its rows.

    Its columns are the fields of a frozen dataclass: ``str``, ``int`` (64 bits), ``float``,
    ``bool`` and ``bytes``, each ``| None`` if it may be missing, and the fields named in
    ``values``, which take any value that the codec encodes. Memory keeps such a value as the
    object it is (freeze or copy it before); databases keep it as bytes, so that what comes back is
    what the table in :mod:`snakepit.wire.codec` says. Rows are read whole: if the rest of a row is
    often wanted without a large value, give that a table of its own.

    Args:
        name: its name: lower-case letters, digits and _.
        row: the frozen dataclass.
        key: the columns that tell rows apart, and by which they are sorted.
        indexes: further orders by name, each a list of columns. Rows that have None in one of these
            columns are not in the index.
        values: the columns that hold any value.

    Raises:
        ConfigurationError: something of it makes no sense; the message says what.

    Example:
        >>> @dataclass(frozen=True)
        ... class Note:
        ...     author: str
        ...     number: int
        ...     text: str
        ...     expires: float | None
        >>> notes = Table(
        ...     "notes", Note, key=("author", "number"), indexes={"expiry": ("expires",)}
        ... )
        >>> notes.key_of(Note("ada", 1, "hello", None))
        ('ada', 1)
    """

    def __init__(
        self,
        name: str,
        row: type[Row],
        *,
        key: Sequence[str],
        indexes: Mapping[str, Sequence[str]] | None = None,
        values: Sequence[str] = (),
    ) -> None:
        indexes = indexes or {}
        _check_names(name, [name, *indexes])
        self.name = name
        self.row = row
        self.key = tuple(key)
        ordered = {*self.key, *(column for index in indexes.values() for column in index)}
        self.columns = _columns(name, row, ordered, values)
        self._by_name = {column.name: column for column in self.columns}
        _check_orders(self, indexes)
        self.read = _reader([column.name for column in self.columns])
        self.key_of = _reader(self.key)
        self.orders: dict[str | None, Order] = {None: self._order(None, self.key)}
        for index, columns in indexes.items():
            rest = [column for column in self.key if column not in columns]
            self.orders[index] = self._order(index, [*columns, *rest])
        #: Of its parts, in order.
        self.key_types = tuple(self._by_name[name].type for name in self.key)
        self._key_is_plain = plain_check(self.key_types)
        self._plain = [column for column in self.columns if column.kind is not Kind.VALUE]
        self._read_plain = _reader([column.name for column in self._plain])
        # By the types that such columns had in rows that were found right: a few combinations.
        self._plain_checks: dict[tuple[type, ...], Callable[[Values], bool]] = {}

    def __repr__(self) -> str:
        return f"<Table {self.name}>"

    def _order(self, name: str | None, columns: Sequence[str]) -> Order:
        optional = tuple(column for column in columns if self._by_name[column].nullable)
        return Order(name, tuple(columns), optional, _reader(columns))

    def checked(self, row: Row) -> Values:
        """Return the values of a row in the order of the columns.

        Raises:
            ValidationFailed: it is no row of this table, or a column can't hold its value.
        """
        if type(row) is not self.row:
            raise ValidationFailed(
                f"rows of table {self.name!r} are of the type {self.row.__name__}, not "
                f"{type(row).__name__}"
            )
        plain = self._read_plain(row)
        shape = tuple(map(type, plain))
        is_plain = self._plain_checks.get(shape)
        if is_plain is None or not is_plain(plain):
            for column, value in zip(self._plain, plain, strict=True):
                column.check(value)
            self._check_size(row)
            self._plain_checks[shape] = is_plain or plain_check(shape)
        return plain if len(plain) == len(self.columns) else self.read(row)

    def checked_key(self, key: Values) -> Values:
        """Return a key as it was given.

        Raises:
            ValidationFailed: it has too few or too many parts, or a part that no row can have.
        """
        if tuple(map(type, key)) != self.key_types or not self._key_is_plain(key):
            if len(key) != len(self.key):
                raise ValidationFailed(
                    f"a key of table {self.name!r} has the parts {', '.join(self.key)}; "
                    f"{len(key)} were given"
                )
            for name, value in zip(self.key, key, strict=True):
                self._by_name[name].check(value)
        return key

    def column(self, name: str) -> Column:
        """Return the column of a name.

        Raises:
            ConfigurationError: there is none.
        """
        if name not in self._by_name:
            raise ConfigurationError(
                f"table {self.name!r} has no column {name!r}{did_you_mean(name, self._by_name)}"
            )
        return self._by_name[name]

    def span(
        self, *prefix: Any, by: str | None = None, start: Any = None, stop: Any = None
    ) -> Span[Row]:
        """Return the span of the rows whose first columns, in order of the key, equal ``prefix``.

        Args:
            prefix: values of the first columns of the order; none for all rows.
            by: the name of an index, whose order counts then, instead of the key.
            start: the least value that the column after the prefix may have.
            stop: the value from which on it is too large.

        Raises:
            ConfigurationError: there is no such index, or no column that long a prefix or the
                limits could be for.
            ValidationFailed: a value is none that the column can hold.

        Example:
            >>> @dataclass(frozen=True)
            ... class Session:
            ...     id: str
            ...     expires: float | None
            >>> sessions = Table(
            ...     "sessions", Session, key=("id",), indexes={"expiry": ("expires",)}
            ... )
            >>> sessions.span(by="expiry", stop=1700000000.0)
            <Span sessions by expiry, expires < ...>
        """
        order = self.orders.get(by)
        if order is None:
            known = [name for name in self.orders if name is not None]
            raise ConfigurationError(
                f"table {self.name!r} has no index {by!r}{did_you_mean(str(by), known)}"
            )
        limits = [limit for limit in (start, stop) if limit is not None]
        if len(prefix) + bool(limits) > len(order.columns):
            raise ConfigurationError(
                f"table {self.name!r} is ordered by {', '.join(order.columns)}; the prefix and the "
                "limits ask for more columns"
            )
        for name, value in zip(order.columns, prefix, strict=False):
            self._check_bound(name, value)
        for limit in limits:
            self._check_bound(order.columns[len(prefix)], limit)
        return Span(self, order, prefix, start, stop)

    def _check_bound(self, name: str, value: object) -> None:
        if value is None:
            raise ValidationFailed(f"rows without a {name!r} are not in the order")
        self._by_name[name].check(value)

    def _check_size(self, row: Row) -> None:
        for order in self.orders.values():
            size = sum(_size(value) for value in order.entry(row))
            if size > MAX_ORDER_BYTES:
                raise ValidationFailed(
                    f"{', '.join(order.columns)} of table {self.name!r} have {size} bytes "
                    f"together; the limit is {MAX_ORDER_BYTES}, as they are part of a key or index",
                    details={"table": self.name, "size": size, "limit": MAX_ORDER_BYTES},
                )

    def described(self) -> str:
        """Return all that a database has to know of the table, as one line of text."""
        columns = [f"{c.name}:{c.kind.value}{'?' * c.nullable}" for c in self.columns]
        orders = [f"{order.name}({','.join(order.columns)})" for order in self.orders.values()]
        return f"{self.name} {' '.join(columns)} {' '.join(orders)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Span(Generic[Row]):
    """Rows that stand together in one order of a table. Made by :meth:`Table.span`.

    Attributes:
        table: the table.
        order: the order.
        prefix: what the first columns of the order have to equal.
        start: the least value of the column after these, or None.
        stop: the value from which on it is outside, or None.
    """

    table: Table[Row]
    order: Order
    prefix: Values = ()
    start: Any = None
    stop: Any = None

    def __repr__(self) -> str:
        # The values may be private.
        parts = [f"{column} = ..." for column in self.order.columns[: len(self.prefix)]]
        limits = ((self.start, ">="), (self.stop, "<"))
        parts += [f"{self.limited} {sign} ..." for limit, sign in limits if limit is not None]
        by = f" by {self.order.name}" if self.order.name is not None else ""
        return f"<Span {self.table.name}{by}{''.join(f', {part}' for part in parts)}>"

    def position(self, row: Row) -> Values:
        """Return where a row stands in the order.

        Raises:
            ValidationFailed: it is not in the index.
        """
        entry = self.order.entry(row)
        if self.order.optional and None in entry:
            raise ValidationFailed(
                f"the row to go on after is not in the index {self.order.name!r} of table "
                f"{self.table.name!r}"
            )
        return entry

    @property
    def limited(self) -> str:
        """The column that ``start`` and ``stop`` are limits of."""
        return self.order.columns[len(self.prefix)]


# --- declarations --------------------------------------------------------------------------------


def _columns(table: str, row: type, ordered: set[str], values: Sequence[str]) -> tuple[Column, ...]:
    parameters = getattr(row, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise ConfigurationError(
            f"table {table!r}: {row!r} has to be a frozen dataclass, whose fields are the columns"
        )
    names = [each.name for each in dataclasses.fields(row)]
    _check_names(table, names)
    for name in [*ordered, *values]:
        if name not in names:
            raise ConfigurationError(
                f"table {table!r}: {row.__name__} has no field {name!r}{did_you_mean(name, names)}"
            )
    hints = get_type_hints(row)
    return tuple(
        column_of(table, name, hints[name], value=name in values, ordered=name in ordered)
        for name in names
    )


def _check_orders(table: Table[Any], indexes: Mapping[str, Sequence[str]]) -> None:
    for name, order in {"key": table.key, **indexes}.items():
        if not order or len(set(order)) < len(order):
            raise ConfigurationError(
                f"table {table.name!r}: {name} has to name one column at least, and each once"
            )
    columns = {column.name: column for column in table.columns}
    for name in table.key:
        if columns[name].nullable or columns[name].kind not in (Kind.TEXT, Kind.INTEGER):
            raise ConfigurationError(
                f"table {table.name!r}: the key column {name!r} has to be of the type str or int"
            )
    for name, order in indexes.items():
        if any(columns[column].kind is Kind.VALUE for column in order):
            raise ConfigurationError(
                f"table {table.name!r}: values have no order that index {name!r} could be in"
            )


def _check_names(table: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.match(name) or name in _RESERVED:
            raise ConfigurationError(
                f"table {table!r}: {name!r} is no usable name; use lower-case letters, digits and "
                f"_, at most 40 characters (taken: {', '.join(sorted(_RESERVED))})"
            )


def _reader(names: Sequence[str]) -> Callable[[Any], Values]:
    """Return a function from a row to the values of some columns."""
    if len(names) > 1:
        return attrgetter(*names)
    read = attrgetter(names[0])
    return lambda row: (read(row),)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 0
