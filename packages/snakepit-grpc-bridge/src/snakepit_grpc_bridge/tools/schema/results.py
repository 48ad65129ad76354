"""What a tool gives, as plain data. Pure."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

__all__ = ["plain_result"]

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_TRAVEL: Final = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, memoryview),
    *(date, time, timedelta, Decimal, UUID, PurePath, BaseException),
)
_CONTAINERS: Final = (list, tuple, set, frozenset)


def plain_result(value: Any) -> Any:
    """Return what a tool gave, or an item of its stream, as data that travels.

    A dataclass or a pydantic model is the mapping of its fields, a member of an Enum its value, and
    what else pydantic has a JSON form for, such as a URL or an address, is that. What is left is
    for the codec to refuse, which says where it is.

    Example:
        >>> import ipaddress
        >>> plain_result({"where": ipaddress.ip_address("127.0.0.1")})
        {'where': '127.0.0.1'}
    """
    if type(value) in _SCALARS:
        return value
    try:
        return _plain(value)
    except RecursionError:  # the codec tells of cycles and of depth
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, _TRAVEL) or _is_numpy(value):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, _CONTAINERS):
        return _plain_items(value)
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(cls)}
    if hasattr(cls, "model_dump") and hasattr(cls, "model_fields"):
        return _plain(value.model_dump(by_alias=True))
    return _json_form(value)


def _plain_items(value: Any) -> Any:
    kind = next(kind for kind in _CONTAINERS if isinstance(value, kind))
    if type(value) is kind and set(map(type, value)) <= _SCALARS:
        return value
    items = [_plain(item) for item in value]
    try:
        return kind(items)
    except TypeError:  # a set of objects that are mappings now
        return items


def _is_numpy(value: Any) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _json_form(value: Any) -> Any:
    # Imported here: workers that give plain data need no pydantic.
    from pydantic_core import to_jsonable_python

    try:
        return to_jsonable_python(value)
    except ValueError:
        return value
