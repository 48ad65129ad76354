"""How much a value takes, roughly. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

__all__ = ["size_of", "size_seen"]

# A number, or what an element of a list or map takes besides its content.
_WORD: Final = 8
# Values, which take about a millisecond together.
_MOST_SEEN: Final = 5_000


def size_of(plain: Any) -> int:
    """Return about how many bytes plain data takes when it is stored or sent.

    Example:
        >>> size_of({"name": "ada", "scores": [1.0, 2.0]})
        61
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


def size_seen(given: object) -> int:
    """Return about what ``size_of`` does, quickly and of whatever objects: also of a structure that
    holds itself. Of a very large one only the first 5000 values are looked into, and each other
    counts as a place in its list.

    Example:
        >>> size_seen({"name": "ada", "scores": [1.0, 2.0]})
        61
        >>> size_seen([0.5] * 1_000_000)
        8039992
    """
    size = 0
    waiting: list[Iterator[Any]] = [iter((given,))]
    for _ in range(_MOST_SEEN):
        value: Any = next(waiting[-1], _END)
        if value is _END:
            waiting.pop()
            if not waiting:
                break
            continue
        items = _items_of(value)
        if items is None:
            size += size_of(value)
        else:
            size += _WORD * len(value)
            waiting.append(iter(items))
    return size


_END: Final = object()


def _items_of(value: Any) -> Iterable[Any] | None:
    if isinstance(value, dict):
        return chain(value.keys(), value.values())
    return value if isinstance(value, (list, tuple, set, frozenset)) else None
