"""Values as bytes: msgpack with a fixed set of extension types.

Data only: nothing is unpickled, and no class is looked up by a name from the wire.

====  ================  ==========================================================================
code  sent for          payload
====  ================  ==========================================================================
-1    (never sent)      msgpack's own timestamp; accepted, gives an aware datetime in UTC
1     int               beyond 64 bits: big-endian two's complement, in as few bytes as possible
2     datetime          msgpack array ``[text, offset, zone, fold]``: ISO 8601 local time without
                        offset; microseconds east of UTC or nil; IANA zone or nil; 0 or 1
3     date              ISO 8601 text
4     time              as datetime
5     timedelta         msgpack array ``[days, seconds, microseconds]`` as in Python
6     Decimal           decimal text, ``NaN`` and ``Infinity`` included
7     UUID              16 bytes
8     Path              the path's bytes
9     complex           two big-endian IEEE doubles: real, imaginary
10    numpy array       see :mod:`snakepit.wire.arrays`; arrives read-only
11    numpy scalar      as a 0-dimensional array; only if no Python number equals it
12    numpy array       in a segment, see PROTOCOL.md; arrives as a read-only view of it
13    bytes             in a segment; arrive as bytes
32    tuple             mark, see below; content: array
33    set               mark; content: array without equal elements
34    frozenset         mark; content: array without equal elements
35    exception         mark; content: an error map, see PROTOCOL.md
====  ================  ==========================================================================

A *mark* is an extension without payload. It occurs only as the single key of a map, and the map's
value is the content: ``(1, 2)`` is the map ``{mark 32: [1, 2]}``. So containers are always plain
msgpack, and one limit on nesting holds for all.

=========================================  =======================================================
value                                      arrives as
=========================================  =======================================================
None, bool, int, float, str, list, dict    the same; dict keys may be any hashable value above
bytes, bytearray, memoryview               bytes
subclass of int, float, str, bytes,        its base (a NamedTuple is a tuple)
list, dict, tuple, set, date, ...
Enum member                                its value
dataclass, pydantic model                  dict of its fields
datetime with a zone not known here        the same moment, with the fixed offset
numpy scalar equal to a Python number      that number (``float64``, ``int8``, ``bool_``, ...)
exception                                  a SnakepitError: the same class, or RemoteError
=========================================  =======================================================

Everything runs in the calling thread; all functions may be called from several threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgpack

from snakepit.errors import DecodeError
from snakepit.errors import error_text as text
from snakepit.wire import placing, values
from snakepit.wire.explain import cause_of, explain, too_large
from snakepit.wire.frames import MAX_BODY_BYTES
from snakepit.wire.locate import path_of_failure, shown
from snakepit.wire.segments import SEGMENT_THRESHOLD, Leases, OutgoingSegments

#: Arrays, maps and extensions in one value: a byte of such takes up to a hundred in memory.
MAX_OBJECTS = 1 << 22
#: Bytes of one encoded value, unless the caller says otherwise.
MAX_PAYLOAD_BYTES = MAX_BODY_BYTES

# A packer keeps its buffer, which has grown to its largest value: only small ones are kept.
_KEEP_BYTES = 1 << 16
# Bytes that are decoded as plain values at first: to find an extension in them is to have lost
# little.
_SHORT = 1 << 12
_NEW_BUFFER_BYTES = 1 << 12

# Making a packer costs as much as packing a small value, so idle ones are kept. Taking one out
# is atomic: no two threads share one, nor do an encoding and one that user code runs inside it.
_idle_packers: list[msgpack.Packer] = []


def encode(value: Any, *, root: str = "value", limit: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Return ``value`` as bytes.

    ``root`` names the value in error messages; ``limit`` is the largest size in bytes.

    :raises EncodeError: a value inside is of a kind that does not travel, contains itself, or is
        nested too deeply; ``path`` says where (``args.items[3].client``).
    :raises PayloadTooLarge: the encoded value has more than ``limit`` bytes.

    Example::

        assert decode(encode({"when": (2024, 2, 29)})) == {"when": (2024, 2, 29)}
    """
    try:
        data = _pack_inline(value)
    except MemoryError:
        raise
    except Exception as failure:
        raise explain(failure, [(root, value)]) from cause_of(failure)
    if len(data) > limit:
        raise too_large(len(data), limit, [(root, value)])
    return data


def encode_fields(
    fields: list[Any],
    names: Sequence[str],
    segments: OutgoingSegments | None = None,
    *,
    limit: int = MAX_PAYLOAD_BYTES,
) -> bytes:
    """Return a msgpack array of ``fields``, whose ``names`` begin the paths in errors; those of
    optional fields at the end may be left over.

    Large buffers go into ``segments``, where there are any; the result is a ``SharedBody`` then.
    The same errors as :func:`encode`.

    Example::

        body = encode_fields(["work", {"x": 1}], ["command", "args"])
        assert decode(body) == ["work", {"x": 1}]
    """
    data: bytes = b""
    try:
        if segments is None or not segments.carries_bytes or not placing.has_large_bytes(fields):
            try:
                packer = _idle_packers.pop()
            except IndexError:
                packer = _new_packer()
            data = packer.pack(fields)  # one that failed is dropped with what it had written
            size = len(data)
            if size <= _KEEP_BYTES:
                _idle_packers.append(packer)
            if size < SEGMENT_THRESHOLD and size <= limit:
                return data
    except values.LargeBuffer:
        pass
    except MemoryError:
        raise
    except Exception as failure:
        raise explain(failure, zip(names, fields, strict=False)) from cause_of(failure)
    if not data or segments is not None:
        data = _pack_large(fields, names, segments, limit)
    if len(data) > limit:
        raise too_large(len(data), limit, zip(names, fields, strict=False))
    return data


def _pack_large(
    fields: list[Any], names: Sequence[str], segments: OutgoingSegments | None, limit: int
) -> bytes:
    try:
        if segments is None:
            return placing.pack(fields, placing.inline)
        return placing.pack_with_segments(fields, segments, limit)
    except MemoryError:
        raise
    except placing.TooLarge as failure:
        raise too_large(failure.size, limit, zip(names, fields, strict=False)) from None
    except Exception as failure:
        raise explain(failure, zip(names, fields, strict=False)) from cause_of(failure)


def fingerprint(fields: list[Any]) -> bytes | None:
    """16 bytes by which equal ``fields`` are recognized within this process; None for fields that
    hold large buffers or can't travel.

    Example::

        assert fingerprint([{"x": 1}]) == fingerprint([{"x": 1}]) != fingerprint([{"x": 2}])
    """
    if placing.has_large_bytes(fields):
        return None
    try:
        data = _pack(fields)
    except Exception:  # whatever is wrong with it is told when it is sent
        return None
    return hashlib.blake2b(data, digest_size=16).digest()


class ResolvedBody(bytes):
    """A body that refers to segments, and what it stands for.

    It is decoded as soon as it comes: a frame that is dropped unread then releases its segments,
    and one that is read twice uses them once. ``shared_bytes``: how many it has there.
    """

    value: Any
    error: DecodeError | None
    shared_bytes: int

    def content(self) -> Any:
        """The value; raises as :func:`decode`."""
        if self.error is not None:
            raise self.error
        return self.value


def resolve(data: bytes, leases: Leases) -> ResolvedBody:
    """Decode bytes that may refer to segments.

    :raises ProtocolError: they refer to what is no part of a segment.
    """
    body = ResolvedBody(data)
    body.value, body.error = None, None
    try:
        body.value = decode(data, leases)
    except DecodeError as error:
        _forget_frames(error)
        body.error = error
    finally:
        leases.close()
    body.shared_bytes = leases.used_bytes
    if leases.violation is not None:
        raise leases.violation
    return body


def _forget_frames(error: BaseException | None) -> None:
    """Take off the tracebacks: they hold views, and the error may be kept, in a log for example."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def decode(data: bytes | bytearray | memoryview, leases: Leases | None = None) -> Any:
    """Return the value in ``data``; numpy arrays are read-only.

    ``leases``: the segments that ``data`` may refer to.

    :raises DecodeError: ``data`` is not exactly one valid value, or holds a numpy array and numpy
        is not installed, or more than ``MAX_OBJECTS`` objects. No other error, whatever the bytes;
        lengths are checked before memory is taken for them.
    """
    if leases is None:
        try:  # suppress() would take as long as the decoding
            if len(data) < _SHORT:
                return _unpack_plain(data)
        except Exception:  # noqa: S110  # more than plain values, or wrong: looked at closely below
            pass
    try:
        # Each object takes a byte at least, so that only in long bytes they have to be counted.
        counts = len(data) > MAX_OBJECTS
        decoding = values.CountedDecoding(MAX_OBJECTS) if counts else values.Decoding()
        if leases is not None:
            decoding.leases = leases
        value = msgpack.unpackb(
            data,
            strict_map_key=False,
            timestamp=3,
            object_pairs_hook=decoding.mapping,
            list_hook=decoding.array,
            ext_hook=decoding.extension,
        )
    except DecodeError:
        raise
    except Exception as failure:  # the hooks run parsers of the standard library and of numpy
        reason = text.message_of(failure) or type(failure).__name__
        raise DecodeError(f"bytes from the peer are no valid value: {reason}") from failure
    if decoding.open_marks:
        raise DecodeError("a mark of a tuple, set or exception stands alone")
    return value


def _unpack_plain(data: bytes | bytearray | memoryview) -> Any:
    """The value in short bytes of plain values; any exception for all others."""
    return msgpack.unpackb(
        data,
        strict_map_key=False,
        timestamp=3,
        object_pairs_hook=values.plain_mapping,
        ext_hook=values.refuse_extension,
    )


def decode_fields(data: bytes, names: Sequence[str]) -> Any:
    """As :func:`decode`; errors name the path, which begins with one of ``names``.

    Example::

        assert decode_fields(encode_fields([1, 2], ["x", "y"]), ["x", "y"]) == [1, 2]
    """
    if type(data) is ResolvedBody:
        return data.content()
    try:
        return decode(data)
    except DecodeError as error:
        path = path_of_failure(data, names, decode)
        if path is None:
            raise
        raise DecodeError(
            f"{shown(path)}: {error.message}", details={**error.details, "path": path}
        ) from error


def _pack(value: Any) -> bytes:
    data: bytes = _new_packer().pack(value)
    return data


def _new_packer() -> msgpack.Packer:
    return msgpack.Packer(default=values.to_wire, strict_types=True, buf_size=_NEW_BUFFER_BYTES)


def _pack_inline(value: Any) -> bytes:
    try:
        return _pack(value)
    except values.LargeBuffer:
        return placing.pack(value, placing.inline)
