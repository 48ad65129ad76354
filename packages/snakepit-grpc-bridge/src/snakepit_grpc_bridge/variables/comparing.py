"""Whether a write changed anything. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["is_same"]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values in plain form are the same in type and content. NaN equals itself here:
    what matters is whether a reader could tell the difference.
    """
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is float:
        return _bits(one) == _bits(other)
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if kind is dict:
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if hasattr(kind, "__array_interface__"):
        return bool(
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    return bool(one == other)


def _bits(number: float) -> str:
    return number.hex()
