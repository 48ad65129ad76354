"""The types of values that msgpack does not know, in both directions.

Pure functions on single values: :func:`to_wire` is msgpack's ``default`` hook, and
:class:`Decoding` holds the hooks of one decoding. The table of types is in
:mod:`snakepit.wire.codec`.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast
from uuid import UUID

import msgpack
from msgpack import ExtType

from snakepit.errors import DecodeError, error_from_wire, error_to_wire
from snakepit.wire import arrays
from snakepit.wire._refusal import Refusal
from snakepit.wire.segments import SEGMENT_THRESHOLD, Leases


class Ext(IntEnum):
    """The extension type codes. They are part of the protocol and never change their meaning."""

    BIG_INT = 1
    DATETIME = 2
    DATE = 3
    TIME = 4
    TIMEDELTA = 5
    DECIMAL = 6
    UUID = 7
    PATH = 8
    COMPLEX = 9
    ARRAY = 10
    ARRAY_SCALAR = 11
    SHARED_ARRAY = 12
    SHARED_BYTES = 13
    # Marks have no payload and are the only key of a map, whose value is the content.
    TUPLE = 32
    SET = 33
    FROZENSET = 34
    EXCEPTION = 35


class LargeBuffer(Exception):
    """Raised by :func:`to_wire` for an array that is better copied into a segment."""

    def __init__(self, array: Any = None) -> None:
        super().__init__()
        self.array = array


_Clock = TypeVar("_Clock", datetime, time)

_COMPLEX = struct.Struct(">dd")
_MICROSECOND = timedelta(microseconds=1)
_TUPLE = ExtType(Ext.TUPLE.value, b"")
_SET = ExtType(Ext.SET.value, b"")
_FROZENSET = ExtType(Ext.FROZENSET.value, b"")
_EXCEPTION = ExtType(Ext.EXCEPTION.value, b"")

#: Types that msgpack packs by itself (an int only within 64 bits).
NATIVE: frozenset[type] = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, memoryview, list, dict, ExtType}
)


# --- to the wire ---------------------------------------------------------------------------------


def to_wire(value: Any) -> Any:
    """Return what msgpack packs in place of ``value``; it asks for what it can't pack itself.

    :raises Refusal: ``value`` is of a type that does not travel.
    :raises LargeBuffer: ``value`` is a large array; the caller says where it goes.
    """
    encoder = _BY_TYPE.get(type(value))
    if encoder is not None:
        return encoder(value)
    for base, encoder in _BY_BASE:
        if isinstance(value, base):
            return encoder(value)
    return _to_wire_by_shape(value)


def _to_wire_by_shape(value: Any) -> Any:
    fields = fields_of(value)
    if fields is not None:
        return _native(fields)
    if arrays.is_array(value):
        return _array(value)
    if isinstance(value, (Generator, AsyncGenerator)):
        raise Refusal(
            "is a generator, which does not travel between processes; send a list, or have the "
            "worker take its items one by one, with call_host_stream"
        )
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise Refusal(
        f"is of the type {name}, which does not travel between processes; "
        "send plain data, a dataclass or a pydantic model instead"
    )


def fields_of(value: Any) -> Any:
    """Return the content of a dataclass instance or a pydantic model, or None for all else.

    Other classes with a ``model_dump`` method and ``model_fields`` are taken for models too:
    pydantic is never imported here.
    """
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}
    if hasattr(cls, "model_dump") and hasattr(cls, "model_fields"):
        return value.model_dump()
    return None


def _native(value: Any) -> Any:
    """Return ``value`` ready for msgpack, which asks its hook only once for each value."""
    return to_wire(value) if type(value) not in NATIVE or type(value) is int else value


def _int(value: int) -> Any:
    number = int.__index__(value)
    if -(1 << 63) <= number < 1 << 64:
        return number
    size = (number.bit_length() if number >= 0 else (~number).bit_length()) // 8 + 1
    return ExtType(Ext.BIG_INT.value, number.to_bytes(size, "big", signed=True))


def _datetime(value: datetime) -> ExtType:
    if type(value) is not datetime:
        value = _exact_datetime(value)
    offset, zone = _zone(value.utcoffset(), value.tzinfo)
    text = value.replace(tzinfo=None).isoformat()
    return ExtType(Ext.DATETIME.value, msgpack.packb([text, offset, zone, value.fold]))


def _exact_datetime(value: datetime) -> datetime:
    _refuse_nanoseconds(value)
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return datetime(*day, *clock, tzinfo=value.tzinfo, fold=value.fold)


def _refuse_nanoseconds(value: Any) -> None:
    # Subclasses of the datetime types in other libraries can be finer than microseconds.
    if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
        raise Refusal("has nanoseconds, which would be lost; round it to microseconds")


def _zone(offset: timedelta | None, zone: tzinfo | None) -> tuple[int | None, str | None]:
    key = getattr(zone, "key", None)
    microseconds = None if offset is None else offset // _MICROSECOND
    return microseconds, key if isinstance(key, str) else None


def _date(value: date) -> ExtType:
    return ExtType(Ext.DATE.value, date.isoformat(value).encode())


def _time(value: time) -> ExtType:
    offset, zone = _zone(value.utcoffset(), value.tzinfo)
    text = value.replace(tzinfo=None).isoformat()
    return ExtType(Ext.TIME.value, msgpack.packb([text, offset, zone, value.fold]))


def _timedelta(value: timedelta) -> ExtType:
    _refuse_nanoseconds(value)
    parts = [value.days, value.seconds, value.microseconds]
    return ExtType(Ext.TIMEDELTA.value, msgpack.packb(parts))


def _complex(value: complex) -> ExtType:
    return ExtType(Ext.COMPLEX.value, _COMPLEX.pack(value.real, value.imag))


def _array(value: Any) -> Any:
    if not arrays.is_scalar(value):
        if value.nbytes >= SEGMENT_THRESHOLD:
            raise LargeBuffer(value)
        return ExtType(Ext.ARRAY.value, arrays.array_to_bytes(value))
    number = arrays.scalar_as_python(value)
    if number is not value:
        return _native(number)
    return ExtType(Ext.ARRAY_SCALAR.value, arrays.array_to_bytes(value))


_BY_BASE: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: _native(value.value)),
    (tuple, lambda value: {_TUPLE: list(value)}),
    (set, lambda value: {_SET: list(value)}),
    (frozenset, lambda value: {_FROZENSET: list(value)}),
    (int, _int),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, lambda value: memoryview(value).tobytes()),
    (bytearray, lambda value: memoryview(value).tobytes()),
    (list, list),
    (dict, dict),
    (datetime, _datetime),
    (date, _date),
    (time, _time),
    (timedelta, _timedelta),
    (Decimal, lambda value: ExtType(Ext.DECIMAL.value, str(value).encode())),
    (UUID, lambda value: ExtType(Ext.UUID.value, value.bytes)),
    (Path, lambda value: ExtType(Ext.PATH.value, os.fsencode(value))),
    (PurePosixPath, lambda value: ExtType(Ext.PATH.value, os.fsencode(value))),
    (complex, _complex),
    (BaseException, lambda value: {_EXCEPTION: error_to_wire(value)}),
)
# Most values are of the very type: one look-up for them.
_BY_TYPE: dict[type, Callable[[Any], Any]] = dict(_BY_BASE)


# --- from the wire -------------------------------------------------------------------------------


class Mark:
    """What a mark decodes to until its map is complete."""

    __slots__ = ("kind",)

    def __init__(self, kind: Ext) -> None:
        self.kind = kind


class Decoding:
    """The msgpack hooks of one decoding; ``open_marks`` must be 0 at its end."""

    # Defaults of the class, not set in a constructor: every decoded frame makes an instance.
    open_marks = 0
    #: The segments that the bytes may refer to, if any.
    leases: Leases | None = None
    #: The hook for arrays: none, because it would cost every one of them.
    array: Callable[[list[Any]], list[Any]] | None = None

    def extension(self, code: int, payload: bytes) -> Any:
        """Return the value of an extension; msgpack itself handles its timestamp, code -1."""
        decoder = _DECODERS.get(code)
        if decoder is not None:
            return decoder(payload)
        if self.leases is not None and code in _SHARED:
            return _SHARED[code](payload, self.leases)
        kind = _MARKS.get(code)
        if kind is None or payload:
            raise DecodeError(f"extension type {code} with {len(payload)} bytes is not known")
        self.open_marks += 1
        return Mark(kind)

    def mapping(self, pairs: list[tuple[Any, Any]]) -> Any:
        """Return the map of ``pairs``, or the tuple, set or exception that it stands for."""
        if self.open_marks and len(pairs) == 1 and type(pairs[0][0]) is Mark:
            self.open_marks -= 1
            return _CONTENT[pairs[0][0].kind](pairs[0][1])
        return plain_mapping(pairs)


class CountedDecoding(Decoding):
    """Refuses more than a number of arrays, maps and extensions."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self.array = self._count_array

    def _count_array(self, items: list[Any]) -> list[Any]:
        self._count()
        return items

    def mapping(self, pairs: list[tuple[Any, Any]]) -> Any:
        self._count()
        return super().mapping(pairs)

    def extension(self, code: int, payload: bytes) -> Any:
        self._count()
        return super().extension(code, payload)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DecodeError(f"there are more than {self._limit} arrays, maps and extensions")


def plain_mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The hook for maps where no extension is expected."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DecodeError("a map has two equal keys")
    return result


def refuse_extension(code: int, _: bytes) -> Any:
    """The hook for extensions where none is expected."""
    raise DecodeError(f"an extension of type {code}")


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise DecodeError(f"a tuple or set is given by a {type(content).__name__}, not an array")
    return content


def _tuple_from(content: Any) -> tuple[Any, ...]:
    return tuple(_list(content))


def _set_from(content: Any) -> set[Any]:
    result = set(_list(content))
    if len(result) != len(content):
        raise DecodeError("a set has two equal elements")
    return result


def _frozenset_from(content: Any) -> frozenset[Any]:
    return frozenset(_set_from(content))


_CONTENT: dict[Ext, Callable[[Any], Any]] = {
    Ext.TUPLE: _tuple_from,
    Ext.SET: _set_from,
    Ext.FROZENSET: _frozenset_from,
    Ext.EXCEPTION: error_from_wire,
}
_MARKS: dict[int, Ext] = {kind.value: kind for kind in _CONTENT}


def _big_int_from(payload: bytes) -> int:
    if not payload:
        raise DecodeError("an integer has no bytes")
    return int.from_bytes(payload, "big", signed=True)


def _parts(payload: bytes, *types: tuple[type, ...]) -> list[Any]:
    parts = msgpack.unpackb(payload)
    if type(parts) is not list or len(parts) != len(types):
        raise DecodeError("a date, time or duration has the wrong number of parts")
    if not all(type(part) in allowed for part, allowed in zip(parts, types, strict=True)):
        raise DecodeError("a date, time or duration has a part of the wrong type")
    return parts


_ZONED = ((str,), (int, type(None)), (str, type(None)), (int,))


def _datetime_from(payload: bytes) -> datetime:
    text, offset, zone, fold = _parts(payload, *_ZONED)
    return _zoned(datetime.fromisoformat(text).replace(fold=fold), offset, zone)


def _time_from(payload: bytes) -> time:
    text, offset, zone, fold = _parts(payload, *_ZONED)
    return _zoned(time.fromisoformat(text).replace(fold=fold), offset, zone)


def _zoned(naive: _Clock, offset: int | None, zone: str | None) -> _Clock:
    if naive.tzinfo is not None:
        raise DecodeError(f"the time {naive} must not name its offset in the text")
    found = None if zone is None else _named_zone(zone)
    if found is not None:
        aware = naive.replace(tzinfo=found)
        if offset is None or aware.utcoffset() == _delta(offset):
            return aware
    # The zone is not known here, or its rules differ: the offset keeps the moment.
    return naive if offset is None else naive.replace(tzinfo=_fixed_zone(offset, zone))


def _delta(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)


def _fixed_zone(offset: int, name: str | None) -> timezone:
    return timezone(_delta(offset)) if name is None else timezone(_delta(offset), name)


def _named_zone(key: str) -> tzinfo | None:
    # Imported here: it is slow to import, and most values have no zone.
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        return None


def _timedelta_from(payload: bytes) -> timedelta:
    days, seconds, microseconds = _parts(payload, (int,), (int,), (int,))
    return timedelta(days, seconds, microseconds)


_DECODERS: dict[int, Callable[[bytes], Any]] = {
    Ext.BIG_INT.value: _big_int_from,
    Ext.DATETIME.value: _datetime_from,
    Ext.DATE.value: lambda payload: date.fromisoformat(payload.decode()),
    Ext.TIME.value: _time_from,
    Ext.TIMEDELTA.value: _timedelta_from,
    Ext.DECIMAL.value: lambda payload: Decimal(payload.decode()),
    Ext.UUID.value: lambda payload: UUID(bytes=payload),
    Ext.PATH.value: lambda payload: Path(os.fsdecode(payload)),
    Ext.COMPLEX.value: lambda payload: complex(*_COMPLEX.unpack(payload)),
    Ext.ARRAY.value: arrays.array_from_bytes,
    Ext.ARRAY_SCALAR.value: lambda payload: cast("Any", arrays.array_from_bytes(payload))[()],
}


def _bytes_in_segment(payload: bytes, leases: Leases) -> bytes:
    segment_id, offset, size = msgpack.unpackb(payload)
    if type(size) is not int or size < 0:
        raise DecodeError(f"shared bytes have the size {size!r}")
    # A copy: bytes are bytes, whatever their size, and hold no segment.
    return leases.memory(segment_id, offset, size)[offset : offset + size]


_SHARED: dict[int, Callable[[bytes, Leases], Any]] = {
    Ext.SHARED_ARRAY.value: arrays.array_in_segment,
    Ext.SHARED_BYTES.value: _bytes_in_segment,
}
