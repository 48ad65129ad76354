"""numpy arrays as bytes, without importing numpy before an array is met.

Payload of both extension types: ``u32`` little-endian length of the head, the head, and the
elements. The head is a msgpack array ``[dtype, shape, order]``, followed by zero bytes so that the
elements start at a multiple of 16 (unaligned arrays are slow, and some libraries refuse them).
``dtype`` is numpy's type string (``"<f8"``, ``">M8[ns]"``), or for structured types a list of
``[name, dtype]`` or ``[name, dtype, shape]``; ``order`` is ``"C"`` or ``"F"``.

Object arrays are refused in both directions: their elements are pointers.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from importlib import import_module
from typing import Any, NamedTuple

import msgpack

from snakepit.errors import DecodeError, PayloadTooLarge
from snakepit.wire._refusal import Refusal
from snakepit.wire.segments import Leases, Placement

#: Larger arrays are refused before they are copied; the frame limit has the same value.
MAX_ARRAY_BYTES = 1 << 30
#: Deepest structured type inside a structured type.
MAX_DTYPE_DEPTH = 16
#: numpy's own limit.
MAX_DIMENSIONS = 64

_ALIGNMENT = 16
_HEAD_LENGTH = struct.Struct("<I")
_KINDS = frozenset("biufcSUVmM")
#: What ``dtype.isbuiltin`` says of a dtype that another package defines, such as bfloat16: it looks
#: like raw bytes, and would arrive as such.
_DEFINED_ELSEWHERE = 2
_TYPE_STRING = re.compile(r"[<>|](?:b1|[iufc]\d{1,2}|[SUV]\d{1,10}|[mM]8(?:\[[^\]]{1,32}\])?)\Z")


def is_array(value: object) -> bool:
    """Return whether ``value`` is a numpy array or scalar; never imports numpy."""
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def is_scalar(value: Any) -> bool:
    """Return whether an array-like (see :func:`is_array`) is a numpy scalar."""
    return isinstance(value, sys.modules["numpy"].generic)


def scalar_as_python(value: Any) -> Any:
    """Return the Python number equal to a numpy scalar, or the scalar itself if there is none."""
    kind, size = value.dtype.kind, value.dtype.itemsize
    exact = kind in "biu" or (kind == "f" and size <= 8) or (kind == "c" and size <= 16)
    return value.item() if exact else value


class _Plain(NamedTuple):
    """An array that can travel, and its head."""

    array: Any
    description: Any
    order: str

    def head(self, *more: Any) -> bytes:
        fields = [self.description, list(self.array.shape), self.order, *more]
        packed: bytes = msgpack.packb(fields)
        return packed


def _plain(value: Any) -> _Plain:
    """Check that an array or scalar can travel.

    :raises Refusal: the array holds objects, or is of a subclass with data of its own (masked).
    :raises PayloadTooLarge: it has more than ``MAX_ARRAY_BYTES``.
    """
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray) and type(value) not in (numpy.ndarray, numpy.memmap):
        raise Refusal(
            f"is a {type(value).__name__}, whose own data would be lost; "
            "send numpy.asarray(...) of it, and a mask as an array beside it"
        )
    array = numpy.asarray(value)
    description = _describe(numpy, array.dtype)
    if array.nbytes > MAX_ARRAY_BYTES:
        raise PayloadTooLarge.of(array.nbytes, MAX_ARRAY_BYTES)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return _Plain(array, description, order)


def check_array(value: Any) -> None:
    """Raise what encoding an array raises."""
    _plain(value)


def array_to_bytes(value: Any) -> bytes:
    """Return the payload for an array or scalar.

    :raises Refusal: the array holds objects, or is of a subclass with data of its own (masked).
    :raises PayloadTooLarge: it has more than ``MAX_ARRAY_BYTES``.
    """
    plain = _plain(value)
    head = plain.head()
    padding = -(_HEAD_LENGTH.size + len(head)) % _ALIGNMENT
    flat = (plain.array.T if plain.order == "F" else plain.array).ravel()
    elements = flat.view("u1").data
    return b"".join((_HEAD_LENGTH.pack(len(head)), head, bytes(padding), elements))


def array_to_segment(value: Any, placement: Placement) -> bytes | None:
    """Copy an array's elements into a segment; return the payload, or None if there is no room.

    Raises as :func:`array_to_bytes`.
    """
    plain = _plain(value)
    place = placement.place(plain.array.nbytes)
    if place is None:
        return None
    numpy: Any = sys.modules["numpy"]
    array = plain.array
    if array.dtype.names is not None:
        # As raw bytes: a copy by fields would leave what was in the gaps of the segment before.
        array = array.view(numpy.dtype((numpy.void, array.dtype.itemsize)))
    target = numpy.ndarray(
        array.shape, array.dtype, buffer=place.segment.memory, offset=place.offset,
        order=plain.order,
    )  # fmt: skip
    numpy.copyto(target, array)
    return plain.head(place.segment.segment_id, place.offset)


def _describe(numpy: Any, dtype: Any) -> Any:
    _check_elements(dtype)
    if dtype.names is None:
        return dtype.str
    return _as_lists(numpy.lib.format.dtype_to_descr(dtype))


def _check_elements(dtype: Any, depth: int = 0) -> None:
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.itemsize == 0:
        raise Refusal(
            f"is an array of dtype {dtype}, whose elements are no plain bytes; "
            "convert it to a number, text or date dtype, or send a list"
        )
    if dtype.isbuiltin == _DEFINED_ELSEWHERE:
        raise Refusal(
            f"is an array of dtype {dtype}, which is not numpy's own; convert it to one of numpy's"
        )
    if depth > MAX_DTYPE_DEPTH:
        raise Refusal(f"has a dtype nested more than {MAX_DTYPE_DEPTH} levels deep")
    for inner in (dtype.fields or {}).values():
        _check_elements(inner[0].base, depth + 1)


def _as_lists(description: Any) -> Any:
    if isinstance(description, (list, tuple)):
        return [_as_lists(item) for item in description]
    return description


def array_from_bytes(payload: bytes) -> Any:
    """Return the read-only array in ``payload``, which it keeps alive.

    :raises DecodeError: the payload is malformed, or numpy is not installed.
    """
    (length,) = _HEAD_LENGTH.unpack_from(payload)
    start = _HEAD_LENGTH.size + length
    description, shape, order = msgpack.unpackb(payload[_HEAD_LENGTH.size : start])
    start += -start % _ALIGNMENT
    dtype, expected = _checked(description, shape, order)
    if expected != len(payload) - start:
        raise DecodeError(
            f"an array from the peer has {len(payload) - start} bytes of elements, "
            f"its dtype and shape need {expected}"
        )
    return _import_numpy().ndarray(tuple(shape), dtype, buffer=payload, offset=start, order=order)


def array_in_segment(payload: bytes, leases: Leases) -> Any:
    """Return a read-only view of the array that ``payload`` describes, which keeps its segment.

    :raises DecodeError: the payload is malformed, or numpy is not installed.
    :raises ProtocolError: it refers to what is no part of a segment.
    """
    description, shape, order, segment_id, offset = msgpack.unpackb(payload)
    dtype, expected = _checked(description, shape, order)
    leases.memory(segment_id, offset, expected)
    numpy = _import_numpy()
    # All views are based on one array, and hold it: it ends with the last of them.
    root = leases.root(segment_id, lambda memory: numpy.frombuffer(memory, "u1"))
    return numpy.ndarray(tuple(shape), dtype, buffer=root, offset=offset, order=order)


def _checked(description: Any, shape: Any, order: Any) -> tuple[Any, int]:
    """The dtype, and how many bytes all elements have."""
    if order not in ("C", "F") or not _is_shape(shape):
        raise DecodeError(f"an array from the peer has shape {shape!r} and order {order!r}")
    dtype = _dtype(_import_numpy(), description)
    if dtype.itemsize == 0:
        raise DecodeError("an array from the peer has elements of no size")
    return dtype, math.prod(shape) * dtype.itemsize


def _import_numpy() -> Any:
    try:
        return import_module("numpy")
    except ImportError as missing:
        raise DecodeError(
            "the peer sent a numpy array, but numpy is not installed here; "
            "install numpy in this environment, or send lists"
        ) from missing


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        return False
    return all(type(size) is int and size >= 0 for size in shape)


def _dtype(numpy: Any, description: Any) -> Any:
    if isinstance(description, str):
        return numpy.dtype(_type_string(description))
    dtype = numpy.lib.format.descr_to_dtype(_fields(description, 0))
    if dtype.hasobject:
        raise DecodeError("an array from the peer has elements that are objects")
    return dtype


def _type_string(text: str) -> str:
    # numpy's own parser takes far more: class names, objects, comma lists.
    if not _TYPE_STRING.match(text):
        raise DecodeError(f"an array from the peer has the unknown dtype {text[:60]!r}")
    return text


def _fields(description: Any, depth: int) -> list[tuple[Any, ...]]:
    if not isinstance(description, list) or not description or depth > MAX_DTYPE_DEPTH:
        raise DecodeError("an array from the peer has a malformed structured dtype")
    return [_field(field, depth) for field in description]


def _field(field: Any, depth: int) -> tuple[Any, ...]:
    if not isinstance(field, list) or len(field) not in (2, 3):
        raise DecodeError("an array from the peer has a malformed field in its dtype")
    name, inner, *shape = field
    title_and_name = tuple(name) if isinstance(name, list) else (name,)
    if not all(isinstance(part, str) for part in title_and_name) or len(title_and_name) > 2:
        raise DecodeError(f"an array from the peer has a field named {name!r}")
    if shape and not _is_shape(shape[0]):
        raise DecodeError(f"an array from the peer has a field of shape {shape[0]!r}")
    kind = _type_string(inner) if isinstance(inner, str) else _fields(inner, depth + 1)
    label = title_and_name if len(title_and_name) == 2 else title_and_name[0]
    return (label, kind, *(tuple(item) for item in shape))
