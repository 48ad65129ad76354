"""The columns of tables: which values each kind takes. Pure.

What a column takes is the same on every backend, so that a row which was accepted in memory is not
refused, or changed, by a database later.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import Any, Final, Union, get_args, get_origin

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ValidationFailed

__all__ = ["MAX_ORDER_BYTES", "Column", "Kind", "Values", "column_of", "plain_check"]

Values = tuple[Any, ...]

#: UTF-8 bytes of the text (and bytes) in one entry of a key or index; PostgreSQL takes 2704 in all.
MAX_ORDER_BYTES: Final = 2000
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1


class Kind(Enum):
    """What a column holds."""

    TEXT = "text"
    """``str`` without U+0000 (PostgreSQL can't hold it) and lone surrogates (UTF-8 can't)."""
    INTEGER = "integer"
    """``int`` of 64 bits with sign."""
    FLOAT = "float"
    """``float``, NaN, infinities and -0.0 included. Also moments, as seconds since the epoch."""
    BOOL = "bool"
    """``bool``."""
    BYTES = "bytes"
    """``bytes``."""
    VALUE = "value"
    """Any value that :mod:`snakepit.wire.codec` encodes, None included."""


_TYPES: Final[dict[Any, Kind]] = {
    str: Kind.TEXT,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    bool: Kind.BOOL,
    bytes: Kind.BYTES,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a field of the row type.

    Attributes:
        table: the name of its table, for messages.
        name: the field's name.
        kind: what it holds.
        nullable: whether it may be None.
        ordered: whether it is part of the key or of an index.
    """

    table: str
    name: str
    kind: Kind
    nullable: bool
    ordered: bool

    @property
    def type(self) -> type:
        """The type of its values, object for any."""
        return next((cls for cls, kind in _TYPES.items() if kind is self.kind), object)

    def check(self, value: object) -> None:
        """Refuse what the column can't hold.

        Raises:
            ValidationFailed: it has another type (subclasses count as other types: a database
                would give their base back), or one of the values that the kind leaves out.
        """
        if value is None and self.nullable:
            return
        problem = _PROBLEMS[self.kind](value)
        if problem is None and self.ordered and value != value:
            problem = "must not be NaN, which has no place in an order"
        if problem is not None:
            raise ValidationFailed(
                f"column {self.name!r} of table {self.table!r} {problem}",
                details={"table": self.table, "column": self.name},
            )


def plain_check(types: Sequence[type]) -> Callable[[Values], bool]:
    """Return a function that says whether any column takes values of these types.

    A quick look, which settles nearly all rows. False says nothing; ask each column.
    """
    texts, integers, floats, data = (_picker(types, each) for each in (str, int, float, bytes))

    def is_plain(values: Values) -> bool:
        text = "".join(texts(values))
        size = len(text)
        if data is not _nothing:
            size += sum(map(len, data(values)))
        if size > MAX_ORDER_BYTES or not text.isascii() or "\0" in text:
            return False
        if integers is not _nothing:
            found = integers(values)
            if min(found) < _LEAST or max(found) > _MOST:
                return False
        # It is no number if one of them is none.
        return floats is _nothing or (total := sum(floats(values))) == total

    return is_plain


def _picker(types: Sequence[type], wanted: type) -> Callable[[Values], Values]:
    """Return a function that picks the values of one of the types."""
    places = [place for place, each in enumerate(types) if each is wanted]
    if not places:
        return _nothing
    if len(places) > 1:
        return itemgetter(*places)
    only = slice(places[0], places[0] + 1)
    return itemgetter(only)


def _nothing(_: Values) -> Values:
    return ()


def column_of(table: str, name: str, annotation: object, *, value: bool, ordered: bool) -> Column:
    """Return the column that a field of a row type stands for.

    Raises:
        ConfigurationError: there is no kind of column for the field's type.
    """
    if value:
        return Column(table, name, Kind.VALUE, nullable=False, ordered=False)
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    nullable = len(parts) == 2 and type(None) in parts
    if nullable:
        annotation = parts[0] if parts[1] is type(None) else parts[1]
    kind = _TYPES.get(annotation)
    if kind is None:
        raise ConfigurationError(
            f"table {table!r}: there is no kind of column for the field {name!r} of the type "
            f"{annotation!r}; use str, int, float, bool or bytes, '| None' if need be, or name it "
            "in `values`"
        )
    return Column(table, name, kind, nullable, ordered)


def _wrong_type(kind: str) -> Callable[[object], str]:
    def problem(value: object) -> str:
        return f"takes {kind}, not {type(value).__name__}"

    return problem


_no_text = _wrong_type("str")
_no_integer = _wrong_type("int")
_no_float = _wrong_type("float")
_no_bool = _wrong_type("bool")
_no_bytes = _wrong_type("bytes")


def _text(value: object) -> str | None:
    if type(value) is not str:
        return _no_text(value)
    if "\0" in value:
        return "must not hold the character U+0000; keep such text in a column of values"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair, which is no valid text"
    return None


def _integer(value: object) -> str | None:
    if type(value) is not int:
        return _no_integer(value)
    if not _LEAST <= value <= _MOST:
        return "takes integers of 64 bits; keep larger ones in a column of values"
    return None


def _float(value: object) -> str | None:
    return None if type(value) is float else _no_float(value)


def _bool(value: object) -> str | None:
    return None if type(value) is bool else _no_bool(value)


def _bytes(value: object) -> str | None:
    return None if type(value) is bytes else _no_bytes(value)


def _value(_: object) -> None:
    return None


_PROBLEMS: Final[dict[Kind, Callable[[Any], str | None]]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.BOOL: _bool,
    Kind.BYTES: _bytes,
    Kind.VALUE: _value,
}
