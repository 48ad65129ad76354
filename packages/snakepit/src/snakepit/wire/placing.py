"""Encoding a message whose large buffers may go into segments instead of its frame.

Encoding assumes that there are none, and costs nothing more then; here the exceptions are handled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
from msgpack import ExtType

from snakepit.telemetry import bus
from snakepit.wire import arrays, values
from snakepit.wire.segments import SEGMENT_THRESHOLD, OutgoingSegments, Placement

# Looking for bytes in a message must stay cheap beside encoding it.
_LOOKED_AT = 1000
_LOOKED_DEEP = 8


class SharedBody(bytes):
    """An encoded body that refers to segments; its frame has to say so.

    ``shared_bytes``: how many it has put there.
    """

    shared_bytes: int


def pack(value: Any, hook: Callable[[Any], Any]) -> bytes:
    """Return ``value`` as msgpack, in a buffer that is not kept."""
    data: bytes = msgpack.Packer(default=hook, strict_types=True).pack(value)
    return data


def inline(value: Any) -> Any:
    """The msgpack hook that puts large arrays into the message itself."""
    try:
        return values.to_wire(value)
    except values.LargeBuffer as large:
        return ExtType(values.Ext.ARRAY.value, arrays.array_to_bytes(large.array))


def pack_with_segments(items: list[Any], segments: OutgoingSegments, limit: int) -> bytes:
    """Return ``items`` as msgpack, large buffers in segments as far as there is room.

    All bytes count for ``limit``, wherever they are: whether a message can be sent must not depend
    on the room in segments. Errors are those of the encoding, and the segments are free again.
    """
    placement = Placement(segments)

    def hook(value: Any) -> Any:
        try:
            return values.to_wire(value)
        except values.LargeBuffer as large:
            payload = arrays.array_to_segment(large.array, placement)
            if payload is not None:
                return ExtType(values.Ext.SHARED_ARRAY.value, payload)
            return ExtType(values.Ext.ARRAY.value, arrays.array_to_bytes(large.array))

    try:
        data = pack(_Bytes(placement).moved(items, 0), hook)
        if len(data) + placement.placed_bytes > limit:
            raise TooLarge(len(data) + placement.placed_bytes)
    except BaseException:
        placement.abandon()
        raise
    if bus.listening:
        _tell(placement)
    if not placement.placed_bytes:
        return data
    body = SharedBody(data)
    body.shared_bytes = placement.placed_bytes
    return body


def _tell(placement: Placement) -> None:
    for event, size in (
        ("snakepit.shared_memory.export", placement.placed_bytes),
        ("snakepit.shared_memory.fallback", placement.refused_bytes),
    ):
        if size:
            bus.tell(event, {"bytes": size}, placement.outgoing.labels)


def has_large_bytes(items: list[Any]) -> bool:
    """Whether large bytes are found by a quick look: alone, or under a key of a map."""
    for item in items:
        if type(item) is dict:
            if any(_is_large_bytes(part) for part in item.values()):
                return True
        elif _is_large_bytes(item):
            return True
    return False


def _is_large_bytes(value: Any) -> bool:
    return type(value) in (bytes, bytearray) and len(value) >= SEGMENT_THRESHOLD


class TooLarge(Exception):
    """The message has ``size`` bytes in all, which is over the limit."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class _Bytes:
    """Moves large bytes of a message into segments; msgpack has no hook for bytes."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._left = _LOOKED_AT

    def moved(self, value: Any, depth: int) -> Any:
        """``value``, or a copy of it that refers to segments."""
        kind = type(value)
        if kind in (bytes, bytearray, memoryview):
            return self._moved_buffer(value)
        if kind not in (list, tuple, dict) or depth > _LOOKED_DEEP:
            return value
        self._left -= len(value)
        if self._left < 0:
            return value
        if kind is dict:
            return {key: self.moved(item, depth + 1) for key, item in value.items()}
        return kind(self.moved(item, depth + 1) for item in value)

    def _moved_buffer(self, value: bytes | bytearray | memoryview) -> Any:
        size = memoryview(value).nbytes
        if size < SEGMENT_THRESHOLD or (type(value) is memoryview and not value.c_contiguous):
            return value
        self._placement.outgoing.carries_bytes = True
        place = self._placement.place(size)
        if place is None:
            return value
        flat = memoryview(value).cast("B")
        place.segment.memory[place.offset : place.offset + size] = flat
        where = [place.segment.segment_id, place.offset, size]
        return ExtType(values.Ext.SHARED_BYTES.value, msgpack.packb(where))
