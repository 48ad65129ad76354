"""Numbers, booleans, text and bytes: what is taken for one, and what never is. Pure.

Nothing is rounded, wrapped or guessed. Subclasses become what they are subclasses of, without
running code of theirs: an ``IntEnum`` is an integer, a ``StrEnum`` text. A numpy scalar is the
Python number that equals it, if there is one. ``True`` is no number, and 1.0 is no integer.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

from snakepit_grpc_bridge.variables.types.arrays import python_number
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = [
    "read_binary",
    "read_boolean",
    "read_choice",
    "read_float",
    "read_integer",
    "read_string",
]

_CONVERT = "is another kind of number; convert it, so that nothing is lost unnoticed"


def read_boolean(value: Any) -> bool:
    """Return ``True`` or ``False``; numpy's booleans too."""
    number = python_number(value)
    if type(number) is not bool:
        raise Unfit
    return number


def read_integer(value: Any) -> int:
    """Return an integer of any size."""
    if type(value) is int:
        return value
    number = python_number(value)
    if type(number) is bool or not issubclass(type(number), int):
        raise Unfit(_CONVERT if _is_number(number) else "")
    return int.__index__(number)


def read_float(value: Any) -> float:
    """Return a float, which NaN, -0.0 and the infinities are too.

    An integer is taken if a float holds it exactly.
    """
    if type(value) is float:
        return value
    number = python_number(value)
    if issubclass(type(number), float):
        return float.__float__(number)
    if type(number) is bool or not issubclass(type(number), int):
        raise Unfit(_CONVERT if _is_number(number) else "")
    return _exactly(int.__index__(number))


def _exactly(number: int) -> float:
    try:
        result = float(number)
    except OverflowError:
        raise Unfit("is too large for a float") from None
    if result != number:
        raise Unfit("is an integer that a float would round")
    return result


def read_string(value: Any) -> str:
    """Return text that can be encoded, which lone surrogates can't."""
    if not issubclass(type(value), str):
        raise Unfit
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unfit(
                f"has a lone surrogate at position {error.start}, which can't be encoded"
            ) from None
    return text


def read_binary(value: Any) -> bytes:
    """Return bytes, which are copied unless they are ``bytes`` already."""
    if type(value) is bytes:
        return value
    if not issubclass(type(value), (bytes, bytearray, memoryview)):
        raise Unfit
    try:
        view = memoryview(value)
    except ValueError:
        raise Unfit("is a memoryview that was released") from None
    if view.format not in ("B", "b", "c"):
        raise Unfit("has elements that are no bytes; cast it to 'B', or store it as a tensor")
    return view.tobytes()


def read_choice(value: Any) -> str | int | float | bool:
    """Return text, a number or a boolean, each in its own type."""
    number = python_number(value)
    for base, read in _CHOICES:
        if issubclass(type(number), base):
            choice: str | int | float | bool = read(number)
            return choice
    raise Unfit


_CHOICES: tuple[tuple[type, Any], ...] = (
    (str, read_string),
    (bool, read_boolean),
    (int, read_integer),
    (float, read_float),
)


def _is_number(value: object) -> bool:
    return issubclass(type(value), Number) and type(value) is not bool
