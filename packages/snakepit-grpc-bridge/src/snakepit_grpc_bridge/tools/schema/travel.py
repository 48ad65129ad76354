"""What a value becomes on its way to another process, so that a call means the same from anywhere.

Pure; keeps no state. The rules are those of snakepit's codec, see :mod:`snakepit.wire.codec`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

__all__ = ["as_it_travels", "type_name"]

_AS_THEY_ARE: Final = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple, set})
#: A subclass arrives as its base.
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
)
_TYPE_NAMES: Final[Mapping[type, str]] = {
    type(None): "None",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "text",
    bytes: "bytes",
    list: "a list",
    dict: "a mapping",
    tuple: "a tuple",
    set: "a set",
}


def as_it_travels(value: Any) -> Any:
    """Return what arrives when ``value`` travels; what is inside it is left as it is.

    An Enum's member becomes its value, a dataclass or a pydantic model the mapping of its fields,
    a numpy scalar the Python number that equals it.

    Example:
        >>> import signal
        >>> as_it_travels(signal.SIGINT)
        2
    """
    cls = type(value)
    if cls in _AS_THEY_ARE:
        return value
    if isinstance(value, Enum):
        return as_it_travels(value.value)
    if dataclasses.is_dataclass(cls):
        # Only what the class can be made from again.
        return {
            each.name: getattr(value, each.name) for each in dataclasses.fields(cls) if each.init
        }
    if hasattr(cls, "model_dump") and hasattr(cls, "model_fields"):
        return _content_of_model(value)
    for base, to_base in _BASES:
        if isinstance(value, base):
            return to_base(value)
    return _number_of(value)


def _content_of_model(model: Any) -> Any:
    """Return the fields of a pydantic model under the names that it is made with."""
    if getattr(model, "__pydantic_root_model__", False):
        return as_it_travels(model.root)
    content = dict(getattr(model, "model_extra", None) or {})
    for name, field in type(model).model_fields.items():
        alias = getattr(field, "validation_alias", None)
        content[alias if isinstance(alias, str) else name] = getattr(model, name)
    return content


def _number_of(value: Any) -> Any:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return value
    return value.item() if value.dtype.kind in "biufc" else value


def type_name(value: object) -> str:
    """Return how messages call the type of a value; never the value, which may be private."""
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")
