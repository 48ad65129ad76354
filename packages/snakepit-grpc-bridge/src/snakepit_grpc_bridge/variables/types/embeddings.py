"""Embeddings: vectors of finite numbers. Pure.

Their numbers are a tuple of floats, which needs no numpy, and which numpy takes. Stored and on
their way they are packed.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from snakepit_grpc_bridge.variables.types import arrays, scalars
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["pack", "read_embedding", "unpack"]

_FORMATS = {"float32": "f", "float64": "d"}


def read_embedding(value: Any) -> tuple[float, ...]:
    """Return the numbers of a list, a tuple or a one-dimensional array."""
    numbers = _numbers(value)
    if not numbers:
        raise Unfit("has no numbers")
    if set(map(type, numbers)) != {float}:
        numbers = [_read_number(index, item) for index, item in enumerate(numbers)]
    if not all(map(math.isfinite, numbers)):
        index = next(i for i, number in enumerate(numbers) if not math.isfinite(number))
        raise Unfit(f"has {numbers[index]} at [{index}], and all must be finite")
    return tuple(numbers)


def _numbers(value: Any) -> list[Any]:
    for base in (list, tuple):
        if issubclass(type(value), base):
            return list(base.__iter__(value))
    array = arrays.as_array(value)
    if array.ndim != 1 or array.dtype.kind not in "fiu" or array.itemsize > 8:
        raise Unfit(f"is an array of shape {array.shape} and dtype {array.dtype}")
    numbers: list[Any] = array.tolist()
    return numbers


def _read_number(index: int, item: Any) -> float:
    try:
        return scalars.read_float(item)
    except Unfit as unfit:
        why = f", which {unfit.says}" if unfit.says else ""
        raise Unfit(f"has a value of type {type(item).__name__} at [{index}]{why}") from None


def pack(numbers: tuple[float, ...]) -> dict[str, Any]:
    """Return the numbers as plain data: 32 bits for each if they lose nothing by it, else 64."""
    try:
        data = struct.pack(f"<{len(numbers)}f", *numbers)
        if struct.unpack(f"<{len(numbers)}f", data) == numbers:
            return {"dtype": "float32", "data": data}
    except OverflowError:
        pass
    return {"dtype": "float64", "data": struct.pack(f"<{len(numbers)}d", *numbers)}


def unpack(plain: Any) -> tuple[float, ...]:
    """Return the numbers that :func:`pack` packed."""
    data, letter = plain["data"], _FORMATS[plain["dtype"]]
    return struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data)
