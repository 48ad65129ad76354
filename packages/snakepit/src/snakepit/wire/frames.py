"""Frames: bytes in, typed frames out. Pure; it knows no socket and no call.

The layout is that of PROTOCOL.md: a little-endian header of 16 bytes, then the body.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from snakepit.errors import PayloadTooLarge, ProtocolError

PROTOCOL_VERSIONS: Final = (1,)
MAX_BODY_BYTES: Final = 1 << 30
FLAG_STREAM: Final = 0x01
FLAG_NESTED: Final = 0x02
#: The body refers to segments; only where both sides have announced that they know them.
FLAG_SEGMENTS: Final = 0x04
_KNOWN_FLAGS: Final = FLAG_STREAM | FLAG_NESTED | FLAG_SEGMENTS

_HEADER: Final = Struct("<IBBHQ")
HEADER_BYTES: Final = _HEADER.size
#: Where in a frame its type is.
FRAME_TYPE_AT: Final = 4
#: The header of a frame, of: size of its body, type, flags, 0, call id.
pack_header: Final = _HEADER.pack
# The same header with its type, flags and reserved field as one number.
_unpack_header: Final = Struct("<IIQ").unpack_from
# Large enough that a busy connection drains many small frames with one system call.
_READ_BYTES: Final = 1 << 16


class FrameType(IntEnum):
    """What a frame means; see the table in PROTOCOL.md."""

    HELLO = 1
    WELCOME = 2
    READY = 3
    FAILED = 4
    SHUTDOWN = 5
    CALL = 16
    RESULT = 17
    ERROR = 18
    CANCELLED = 19
    ITEM = 20
    END = 21
    CREDIT = 22
    CANCEL = 32
    PING = 33
    PONG = 34
    RECALL = 35
    RECALLED = 36
    LISTEN = 37
    EVENTS = 38
    STACKS = 39
    SEGMENT = 40
    RELEASE = 41
    DISCARD = 42


_KNOWN_TYPES: Final = frozenset(int(kind) for kind in FrameType)
# The type and the flags of all headers without segments, by the number that these are unpacked as.
_PLAIN_KINDS: Final = {
    kind | flags << 8: (kind, flags)
    for kind in _KNOWN_TYPES
    for flags in range((FLAG_STREAM | FLAG_NESTED) + 1)
}


class Frame(NamedTuple):
    """One received frame; ``body`` is a copy, so it may be kept."""

    type: int
    flags: int
    call_id: int
    body: bytes


# Its own constructor takes twice as long, for every frame.
_new_frame: Final = tuple.__new__


def encode_frame(kind: int, call_id: int, body: bytes, flags: int = 0) -> bytes:
    """The bytes of one frame.

    Raises:
        PayloadTooLarge: the body is over 1 GiB.
    """
    size = len(body)
    if size > MAX_BODY_BYTES:
        raise _too_large(size, MAX_BODY_BYTES)
    return pack_header(size, kind, flags, 0, call_id) + body


class FrameDecoder:
    """Cuts a byte stream into frames.

    Read into ``space`` and report the count to ``received()``; or hand over bytes with ``feed()``.

    Raises (from ``received`` and ``feed``; the connection is unusable afterwards):
        ProtocolError: an unknown type, an unknown flag or a non-zero reserved field.
        PayloadTooLarge: a header announces a body over the limit. Nothing is allocated for it.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        #: The free part of the buffer, never empty: read into it, then report to ``received()``.
        self.space = self._view
        #: Whether a frame with ``FLAG_SEGMENTS`` has come.
        self.saw_segments = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of an unfinished frame; non-zero at EOF means the peer died within one."""
        return self._filled

    def feed(self, data: bytes) -> list[Frame]:
        """Decode the frames that ``data`` completes."""
        frames: list[Frame] = []
        offset = 0
        while offset < len(data):
            target = self.space
            count = min(len(target), len(data) - offset)
            target[:count] = data[offset : offset + count]
            frames += self.received(count)
            offset += count
        return frames

    def received(self, count: int) -> list[Frame]:
        """Decode the frames that the ``count`` bytes just written complete."""
        if HEADER_BYTES <= count <= self._max_body_bytes and not self._filled:
            size, kind, call_id = _unpack_header(self._buffer)
            plain = _PLAIN_KINDS.get(kind)
            if plain is not None and size == count - HEADER_BYTES:
                # Most reads bring one frame, whole and plain.
                body = self._view[HEADER_BYTES:count].tobytes()
                return [_new_frame(Frame, (*plain, call_id, body))]
        return self._cut(count)

    def _cut(self, count: int) -> list[Frame]:
        """The frames in whatever has come."""
        view = self._view
        filled = self._filled + count
        frames: list[Frame] = []
        offset = 0
        while filled - offset >= HEADER_BYTES:
            size, kind, call_id = _unpack_header(view, offset)
            kind, flags = _PLAIN_KINDS.get(kind) or self._split_uncommon(kind)
            if size > self._max_body_bytes:
                raise _too_large(size, self._max_body_bytes)
            start = offset + HEADER_BYTES
            end = start + size
            if end > filled:
                break
            frames.append(_new_frame(Frame, (kind, flags, call_id, view[start:end].tobytes())))
            offset = end
        if offset != filled or self._filled:
            self._keep(offset, filled)
        return frames

    def _split_uncommon(self, fields: int) -> tuple[int, int]:
        """The type and the flags of a header that refers to segments, or is wrong."""
        kind, flags, reserved = fields & 0xFF, fields >> 8 & 0xFF, fields >> 16
        if kind not in _KNOWN_TYPES or flags & ~_KNOWN_FLAGS or reserved:
            raise ProtocolError(
                f"the peer sent a frame of type {kind} with flags {flags:#x} and "
                f"reserved {reserved:#x}, which version 1 does not know"
            )
        if flags & FLAG_SEGMENTS:
            self.saw_segments = True
        return kind, flags

    def _keep(self, offset: int, filled: int) -> None:
        """Keep the bytes of an unfinished frame, and have space behind them."""
        rest = filled - offset
        if rest and offset:
            self._view[:rest] = bytes(self._view[offset:filled])
        self._filled = rest
        if rest == len(self._buffer):
            # Doubling, and not to the announced size: a header may lie about what follows.
            self._resize(len(self._buffer) * 2)
        elif not rest and len(self._buffer) > _READ_BYTES:
            self._resize(_READ_BYTES)
        self.space = self._view[rest:]

    def _resize(self, size: int) -> None:
        grown = bytearray(size)
        grown[: self._filled] = self._view[: self._filled]
        self._buffer = grown
        self._view = memoryview(grown)


def _too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"a frame body of {size} bytes is over the limit of {limit} bytes; "
        "send the data in pieces, as a stream, or by a path both sides can read",
        details={"size": size, "limit": limit},
    )
