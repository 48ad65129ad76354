"""The types of variables: which values and constraints each takes. Pure; keeps no state.

``validate_value`` returns the value as it is stored: a copy that shares nothing with the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from snakepit_grpc_bridge.errors import UnsupportedType, ValidationFailed, did_you_mean

__all__ = ["copy_value", "infer_type", "supported_types", "validate_constraints", "validate_value"]

#: Values that can't change, so that they need no copy.
_SCALARS = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(datetime, date, time, timedelta, Decimal, UUID),
)
#: Deeper than any sensible configuration; keeps a value that contains itself from looping.
_DEPTH_LIMIT = 64

Reader = Callable[[Any], Any]
Check = Callable[[Any, Any], str | None]


@dataclass(frozen=True, slots=True)
class _Type:
    """``read`` returns the stored form or raises TypeError; ``expects`` says what it takes."""

    read: Reader
    expects: str
    constraints: tuple[str, ...] = ()
    required: str | None = None


def supported_types() -> dict[str, tuple[str, ...]]:
    """Return the constraints that each type takes, by type name.

    Example:
        >>> supported_types()["integer"]
        ('min', 'max')
    """
    return {name: kind.constraints for name, kind in _TYPES.items()}


def infer_type(value: object) -> str:
    """Return the type that fits a value.

    Raises:
        UnsupportedType: none does.

    Example:
        >>> infer_type(0.2), infer_type(["a"])
        ('float', 'list')
    """
    for name, classes in _INFERRED.items():
        if isinstance(value, classes):
            return name
    raise UnsupportedType(
        f"no variable type fits a {type(value).__name__}; convert it to plain data, or name one of "
        f"the types: {', '.join(_TYPES)}"
    )


def validate_constraints(type_name: str, constraints: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the constraints if the type takes them.

    Raises:
        UnsupportedType: there is no such type.
        ValidationFailed: a constraint is unknown, missing or makes no sense.
    """
    kind = _type(type_name)
    for name, limit in constraints.items():
        if name not in kind.constraints:
            takes = ", ".join(kind.constraints) or "none"
            raise ValidationFailed(
                f"type {type_name!r} has no constraint {name!r}"
                f"{did_you_mean(name, kind.constraints)} (it takes: {takes})"
            )
        _check_limit(type_name, name, limit)
    if kind.required is not None and kind.required not in constraints:
        raise ValidationFailed(f"type {type_name!r} needs the constraint {kind.required!r}")
    checked: dict[str, Any] = copy_value(dict(constraints))
    return checked


def validate_value(value: object, type_name: str, constraints: Mapping[str, Any]) -> Any:
    """Return ``value`` as it is stored, if it has the type and keeps the constraints.

    Raises:
        UnsupportedType: there is no such type.
        ValidationFailed: the value has another type or breaks a constraint.

    Example:
        >>> validate_value(1, "float", {"min": 0.0})
        1.0
    """
    kind = _type(type_name)
    try:
        stored = kind.read(value)
    except (TypeError, OverflowError) as error:
        raise ValidationFailed(
            f"a variable of type {type_name!r} takes {kind.expects}, not {_shown(value)}"
            + (f" ({error})" if str(error) else "")
        ) from error
    for name, limit in constraints.items():
        problem = _CONSTRAINTS[name](stored, limit)
        if problem:
            raise ValidationFailed(f"{_shown(value)} is not allowed: it {problem}")
    return stored


def copy_value(value: Any, depth: int = 0) -> Any:
    """Return plain data that shares no container with ``value``.

    Raises:
        TypeError: something in it is no plain data; the message says what.
    """
    if isinstance(value, _SCALARS):
        return value
    if depth >= _DEPTH_LIMIT:
        raise TypeError(f"it is nested more than {_DEPTH_LIMIT} levels deep")
    if isinstance(value, Mapping):
        return {_key(key): copy_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return _plain_class(value)(copy_value(item, depth + 1) for item in value)
    raise TypeError(f"it holds a {type(value).__name__}, which is no plain data")


# --- reading -------------------------------------------------------------------------------------


def _exactly(*classes: type) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, classes) or (isinstance(value, bool) and bool not in classes):
            raise TypeError
        return value

    return read


def _read_float(value: Any) -> float:
    return float(_exactly(int, float)(value))


def _read_binary(value: Any) -> bytes:
    return bytes(_exactly(bytes, bytearray, memoryview)(value))


def _read_list(value: Any) -> list[Any]:
    return list(copy_value(_exactly(list, tuple)(value)))


def _read_map(value: Any) -> Any:
    return copy_value(_exactly(Mapping)(value))


def _read_embedding(value: Any) -> tuple[float, ...]:
    if hasattr(value, "tolist") and getattr(value, "ndim", None) == 1:
        value = value.tolist()  # a numpy array, without importing numpy
    numbers = tuple(_read_float(item) for item in _exactly(list, tuple)(value))
    if not numbers or not all(map(math.isfinite, numbers)):
        raise TypeError("it must hold at least one number, all of them finite")
    return numbers


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"it has the key {key!r}, and keys must be text")
    return key


def _plain_class(value: object) -> Callable[[Any], Any]:
    return next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))


# --- constraints ---------------------------------------------------------------------------------


def _above(value: Any, limit: Any) -> str | None:
    # Written so that NaN, which is neither above nor below, is refused.
    return None if value >= limit else f"must be at least {limit!r}"


def _below(value: Any, limit: Any) -> str | None:
    return None if value <= limit else f"must be at most {limit!r}"


def _longer(value: Any, limit: Any) -> str | None:
    return None if len(value) >= limit else f"must have a length of at least {limit}"


def _shorter(value: Any, limit: Any) -> str | None:
    return None if len(value) <= limit else f"must have a length of at most {limit}"


def _among(value: Any, choices: Any) -> str | None:
    # 1 == True: a choice is one of the listed values in type, too.
    found = any(type(value) is type(choice) and value == choice for choice in choices)
    return None if found else f"must be one of {', '.join(map(repr, choices))}"


def _sized(value: Any, size: Any) -> str | None:
    return None if len(value) == size else f"must have {size} dimensions, it has {len(value)}"


def _check_limit(type_name: str, name: str, limit: Any) -> None:
    if name in ("min", "max"):
        right = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        right = right and not math.isnan(limit)
        expected = "a number"
    elif name == "choices":
        right = isinstance(limit, Sequence) and not isinstance(limit, (str, bytes)) and bool(limit)
        right = right and all(isinstance(choice, (str, int, float, bool)) for choice in limit)
        expected = "a list of text, numbers or booleans that is not empty"
    else:
        right = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
        expected = "a whole number of at least 0"
    if not right:
        raise ValidationFailed(
            f"the constraint {name!r} of type {type_name!r} must be {expected}, it was {limit!r}"
        )


_CONSTRAINTS: Final[Mapping[str, Check]] = {
    "min": _above,
    "max": _below,
    "min_length": _longer,
    "max_length": _shorter,
    "choices": _among,
    "dimensions": _sized,
}
_RANGE = ("min", "max")
_LENGTH = ("min_length", "max_length")

_TYPES: Final[Mapping[str, _Type]] = {
    "string": _Type(_exactly(str), "text", _LENGTH),
    "integer": _Type(_exactly(int), "a whole number", _RANGE),
    "float": _Type(_read_float, "a number", _RANGE),
    "boolean": _Type(_exactly(bool), "True or False"),
    "binary": _Type(_read_binary, "bytes", _LENGTH),
    "list": _Type(_read_list, "a list of plain data", _LENGTH),
    "map": _Type(_read_map, "a mapping of text to plain data", _LENGTH),
    "choice": _Type(
        _exactly(str, int, float, bool), "one of its choices", ("choices",), required="choices"
    ),
    "embedding": _Type(_read_embedding, "a list of numbers", ("dimensions",)),
}
#: In this order: a bool is an int too.
_INFERRED: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "integer": (int,),
    "float": (float,),
    "string": (str,),
    "binary": (bytes, bytearray, memoryview),
    "list": (list, tuple),
    "map": (Mapping,),
}


def _type(name: str) -> _Type:
    kind = _TYPES.get(name)
    if kind is None:
        raise UnsupportedType(
            f"there is no variable type {name!r}{did_you_mean(str(name), _TYPES)} "
            f"(types: {', '.join(_TYPES)})",
            details={"type": str(name), "supported": list(_TYPES)},
        )
    return kind


def _shown(value: object) -> str:
    # Only the type of long or nested values: they may be large, or private.
    plain = isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 40)
    return f"{value!r}" if plain else f"this {type(value).__name__}"
