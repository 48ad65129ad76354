"""Plain data: what lists and maps may hold. Pure.

What is read shares nothing with the value that it was read from, and survives travel and storage as
it is. What was read once is copied without another look.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from snakepit_grpc_bridge.variables.types import arrays, scalars
from snakepit_grpc_bridge.variables.types.datetimes import is_plain_zone, read_datetime
from snakepit_grpc_bridge.variables.types.secret import Secret
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["DEPTH_LIMIT", "copy_plain", "read_any", "read_list", "read_map"]

#: Deeper than any sensible configuration; keeps a value that contains itself from looping.
DEPTH_LIMIT: Final = 64
#: Values in one value. Numbers without end belong into an array; and data that holds itself in
#: several places, which takes little memory, would be copied for ever.
MOST_VALUES: Final = 1 << 20

_PATH: Final = type(Path())
#: Values of exactly these types are taken as they are: nothing about them can change.
_ATOMS: Final = frozenset(
    {*(type(None), bool, int, float, complex, bytes), *(date, timedelta, Decimal, UUID)}
)
#: The same, once they were read.
_UNCHANGING: Final = _ATOMS | {str, datetime, time, _PATH, frozenset}
_COLLECTIONS: Final = (list, tuple, set, frozenset)


def read_any(value: Any) -> Any:
    """Return plain data of any kind."""
    return _Reading().read(value, 0)


def read_list(value: Any) -> list[Any]:
    """Return a list of plain data; a tuple becomes one."""
    if not issubclass(type(value), (list, tuple)):
        raise Unfit
    return list(read_any(value))


def read_map(value: Any) -> dict[str, Any]:
    """Return a dict of text to plain data."""
    if not issubclass(type(value), Mapping):
        raise Unfit
    content: dict[str, Any] = read_any(value)
    return content


class _Reading:
    """Reads one value, and counts what is in it."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def read(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is list:
            return self._items(value, list(value), depth)
        if kind is dict:
            return self._mapping(value, depth)
        for base in _COLLECTIONS:
            if issubclass(kind, base):
                # By the methods of the base, which run none of a subclass.
                return base(self._items(value, list(base.__iter__(value)), depth))
        if issubclass(kind, Mapping):
            return self._mapping(value, depth)
        try:
            return _read_leaf(value)
        except Unfit as unfit:
            unfit.at = value
            raise

    def _items(
        self, value: Any, items: list[Any], depth: int, keys: list[str] | None = None
    ) -> list[Any]:
        if depth >= DEPTH_LIMIT:
            raise Unfit(f"is nested more than {DEPTH_LIMIT} levels deep", at=value)
        self._left -= len(items) + 1
        if self._left < 0:
            raise Unfit(f"has or repeats more than {MOST_VALUES} values", at=value)
        try:
            return [
                item
                if type(item) in _ATOMS or (type(item) is str and item.isascii())
                else self.read(item, depth + 1)
                for item in items
            ]
        except Unfit as unfit:
            unfit.inside(value, items, keys)
            raise

    def _mapping(self, value: Any, depth: int) -> dict[str, Any]:
        try:
            # A mapping of another class may have no end.
            content = dict(value if type(value) is dict else islice(value.items(), MOST_VALUES + 1))
        except Exception as error:  # what is no dict runs code of its own
            raise Unfit("does not let its items be read", at=value) from error
        keys = [
            key if type(key) is str and key.isascii() else _read_key(value, key) for key in content
        ]
        items = self._items(value, list(content.values()), depth, keys)
        result = dict(zip(keys, items, strict=True))
        if len(result) != len(content):
            raise Unfit("has keys that differ by more than their text", at=value)
        return result


def _read_key(owner: object, key: Any) -> str:
    try:
        return scalars.read_string(key)
    except Unfit as unfit:
        why = f"that {unfit.says}" if unfit.says else f"of type {type(key).__name__}"
        raise Unfit(f"has a key {why}; keys must be text", at=owner) from None


def _read_leaf(value: Any) -> Any:
    value = arrays.python_number(value)
    kind = type(value)
    if kind in _ATOMS:
        return value
    for bases, read in _LEAVES:
        if issubclass(kind, bases):
            return read(value)
    if arrays.is_array(value):
        return arrays.read_tensor(value)
    raise Unfit(
        f"is of type {kind.__name__}, which is no plain data; convert it, or register a type"
    )


def _read_time(value: time) -> time:
    if type(value) is not time or not is_plain_zone(value.tzinfo):
        raise Unfit("is a time of a class or with a zone of its own, which does not travel")
    return value


def _read_path(value: Path) -> Path:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise Unfit("is a path with a lone surrogate, which can't be encoded") from None
    return value


def _refuse_secret(_: Secret) -> Any:
    raise Unfit("is a secret; keep it in a variable of its own, of type 'secret'")


_LEAVES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (str, scalars.read_string),
    (int, int.__index__),
    (float, float.__float__),
    (complex, complex.__complex__),
    ((bytes, bytearray, memoryview), scalars.read_binary),
    (datetime, read_datetime),
    (time, _read_time),
    (_PATH, _read_path),
    (Secret, _refuse_secret),
)


def copy_plain(value: Any) -> Any:
    """Return a copy of what was read before; it shares only what can't change."""
    kind = type(value)
    if kind in _UNCHANGING:
        return value
    copy = _COPIES.get(kind)
    if copy is not None:
        return copy(value)
    return arrays.view_of(value) if arrays.is_array(value) else value


def _copy_list(value: list[Any]) -> list[Any]:
    return [item if type(item) in _UNCHANGING else copy_plain(item) for item in value]


def _copy_dict(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: item if type(item) in _UNCHANGING else copy_plain(item) for key, item in value.items()
    }


_COPIES: Final[Mapping[type, Callable[[Any], Any]]] = {
    list: _copy_list,
    dict: _copy_dict,
    set: set,  # what can be in a set can't change
    tuple: lambda value: tuple(_copy_list(value)),
}
