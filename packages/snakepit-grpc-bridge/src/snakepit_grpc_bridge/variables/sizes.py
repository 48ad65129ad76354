"""How much a value takes, roughly. Pure."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["size_of"]

# A number, or what an element of a list or map takes besides its content.
_WORD: Final = 8


def size_of(plain: Any) -> int:
    """Return about how many bytes plain data takes when it is stored or sent.

    Example:
        >>> size_of({"name": "ada", "scores": [1.0, 2.0]})
        53
    """
    kind = type(plain)
    if kind is str or kind is bytes:
        return len(plain)
    if kind is dict:
        return sum(_WORD + size_of(key) + size_of(value) for key, value in plain.items())
    if kind in (list, tuple, set, frozenset):
        return sum(_WORD + size_of(item) for item in plain)
    nbytes = getattr(plain, "nbytes", None)  # of arrays
    return nbytes if isinstance(nbytes, int) else _WORD
