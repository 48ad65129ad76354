"""numpy arrays among a tool's parameters, read without importing numpy. Pure; keeps no state."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["ABSTRACT_DTYPES", "Unfit", "read_array"]

#: numpy's own limit.
_MAX_DIMENSIONS = 64
#: Larger integers are no longer exact as a float.
_EXACT = 1 << 53
#: Below each of numpy's abstract types: the letters of ``dtype.kind``, and what numbers become.
ABSTRACT_DTYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    "number": ("iufc", None),
    "integer": ("iu", None),
    "signedinteger": ("i", None),
    "unsignedinteger": ("u", "uint64"),
    "inexact": ("fc", "float64"),
    "floating": ("f", "float64"),
    "complexfloating": ("c", "complex128"),
}


class Unfit(Exception):
    """A value is none of the kind that was asked for. Never leaves this package."""


def read_array(value: Any, dtype: str | None = None) -> Any:
    """Return a numpy array with elements of ``dtype``: numpy's name for it, or an abstract one.

    An array must have that type already. Nested lists of numbers become one, and stay lists where
    numpy is not loaded, on their way to where it is.

    Raises:
        Unfit: it is neither, or lists of unequal lengths, or numbers that ``dtype`` can't hold.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        if not isinstance(value, (list, tuple)) or not _is_block(value):
            raise Unfit
        if numpy is None:
            return value
        value = _from_numbers(numpy, value, dtype)
    if not _has_type(value, dtype):
        raise Unfit
    return value


def _has_type(array: Any, dtype: str | None) -> bool:
    if dtype is None:
        return True
    if dtype in ABSTRACT_DTYPES:
        return array.dtype.kind in ABSTRACT_DTYPES[dtype][0]
    return bool(array.dtype.name == dtype)


def _from_numbers(numpy: Any, numbers: Any, dtype: str | None) -> Any:
    array = numpy.array(numbers)
    _, wanted = ABSTRACT_DTYPES.get(dtype or "number", ("", dtype))
    if wanted is None:
        return array
    try:
        wanted = numpy.dtype(wanted)
        with numpy.errstate(over="raise", invalid="ignore"):
            if array.size and not _holds(wanted, array):
                raise Unfit
            return array.astype(wanted)
    except (TypeError, FloatingPointError) as error:  # numpy knows no such type; out of its range
        raise Unfit from error


def _holds(wanted: Any, array: Any) -> bool:
    """Say whether numbers keep their value; only floats may be rounded, to shorter floats."""
    given = array.dtype.kind
    if wanted.kind in "iub":
        return given in ("b" if wanted.kind == "b" else "iu") and _comes_back(wanted, array)
    if given == "i" and wanted.kind == "f":
        return _comes_back(wanted, array)
    return (given, wanted.kind) in {("i", "c"), ("f", "f"), ("f", "c"), ("c", "c")}


def _comes_back(wanted: Any, array: Any) -> bool:
    return bool((array.astype(wanted).astype(array.dtype) == array).all())


def _is_block(items: Any) -> bool:
    """Say whether nested lists form a regular block of numbers, or of booleans."""
    level = [items]
    for _ in range(_MAX_DIMENSIONS + 1):
        if not all(isinstance(each, (list, tuple)) for each in level):
            break
        if len({len(each) for each in level}) > 1:
            return False
        level = [item for each in level for item in each]
        if not level:
            return True
    types = set(map(type, level))
    if types == {int}:  # beyond 64 bits numpy would make an array of objects
        return all(-(1 << 63) <= each < 1 << 63 for each in level)
    return types == {bool} or (types <= {int, float, complex} and all(map(_is_exact, level)))


def _is_exact(number: Any) -> bool:
    return type(number) is not int or abs(number) <= _EXACT
