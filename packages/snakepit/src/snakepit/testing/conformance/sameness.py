"""Whether two encodings stand for the same value, by PROTOCOL.md alone. Pure.

Not by the codec of this library: it needs numpy for arrays, and a second reading of the document
finds what the first one has taken for granted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

import msgpack
from msgpack import ExtType, Timestamp

_BIG_INT, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL = range(1, 7)
_UUID, _PATH, _COMPLEX, _ARRAY, _ARRAY_SCALAR = range(7, 12)
_TUPLE, _SET, _FROZENSET, _EXCEPTION = range(32, 36)
_LENGTH: Final = struct.Struct("<I")
_ALIGNMENT: Final = 16

Normal = tuple[Any, ...]


class _Pairs(list[Any]):
    """A map as it was read; its keys may be of any kind."""


def is_same(sent: bytes, received: bytes) -> bool:
    """Whether a worker has handed back the value that it was sent.

    It may not know the zone of a time: then it keeps the offset, and the zone is lost.

    Raises:
        ValueError: what it sent is no valid value.
    """
    found = normal(received)
    return found in (normal(sent), normal(sent, zones=False))


def normal(data: bytes, *, zones: bool = True) -> Normal:
    """A form of an encoded value that is equal for equal values.

    Raises:
        ValueError: it is no valid value.
    """
    try:
        return _normal(_unpacked(data), zones)
    except (struct.error, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"these bytes are no valid value: {error}") from error


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(
        data, ext_hook=ExtType, object_pairs_hook=_Pairs, strict_map_key=False, timestamp=0
    )


def _normal(value: Any, zones: bool) -> Normal:
    if isinstance(value, _Pairs):
        return _of_map(value, zones)
    if isinstance(value, list):
        return "array", tuple(_normal(item, zones) for item in value)
    if isinstance(value, ExtType):
        return _of_extension(value.code, value.data, zones)
    if isinstance(value, Timestamp):
        return _of_timestamp(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_number(value)
    return type(value).__name__, value


def _of_number(value: float) -> Normal:
    # A language may have one kind of number: 2 and 2.0 are the same then, but 0.0 and -0.0 differ.
    if value != value:
        return "number", "NaN"
    return "number", value, value == 0 and math.copysign(1.0, value)


def _of_map(pairs: _Pairs, zones: bool) -> Normal:
    if len(pairs) == 1 and isinstance(pairs[0][0], ExtType):
        kind, content = pairs[0][0].code, pairs[0][1]
        if kind in _MARKS and not pairs[0][0].data:
            return _MARKS[kind](_normal(content, zones))
    entries = [(_normal(key, zones), _normal(item, zones)) for key, item in pairs]
    return "map", tuple(sorted(entries, key=repr))


def _of_elements(name: str) -> Callable[[Normal], Normal]:
    return lambda content: (name, tuple(sorted(content[1], key=repr)))


_MARKS: Final[dict[int, Callable[[Normal], Normal]]] = {
    _TUPLE: lambda content: ("tuple", content),
    _SET: _of_elements("set"),
    _FROZENSET: _of_elements("frozenset"),
    _EXCEPTION: lambda content: ("exception", content),
}


def _of_timestamp(value: Timestamp) -> Normal:
    text = value.to_datetime().replace(tzinfo=None).isoformat()
    return "datetime", text, 0, None, 0


def _of_extension(code: int, data: bytes, zones: bool) -> Normal:
    match code:
        case 1:
            return _of_number(int.from_bytes(data, "big", signed=True))
        case 2 | 4:
            text, offset, zone, fold = _unpacked(data)
            name = "datetime" if code == _DATETIME else "time"
            return name, _shortest(text), offset, zone if zones else None, fold
        case 5:
            return "timedelta", *_unpacked(data)
        case 3 | 6:
            return "date" if code == _DATE else "decimal", data.decode()
        case 10 | 11:
            return _of_array(code, data)
        case 7 | 8 | 9:
            return code, data
    raise ValueError(f"extension type {code} is not known")


def _shortest(text: str) -> str:
    return text.removesuffix(".000000")


def _of_array(code: int, data: bytes) -> Normal:
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    dtype, shape, order = _unpacked(data[_LENGTH.size : end])
    start = end + -end % _ALIGNMENT
    # With one dimension or none there is only one order.
    return code, repr(dtype), tuple(shape), len(shape) > 1 and order, data[start:]
