"""One connection's exchange of segments: what travels on its control channel, both ways."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from snakepit.errors import ProtocolError
from snakepit.telemetry import bus
from snakepit.wire import codec
from snakepit.wire.frames import FLAG_SEGMENTS, Frame, FrameType
from snakepit.wire.messages import message_frame, read_body
from snakepit.wire.segments import IncomingSegments, Leases, OutgoingSegments

_INT_BYTES = array.array("i").itemsize
# One belongs to a frame; more are received to be closed.
_ANCILLARY_BYTES = socket.CMSG_SPACE(8 * _INT_BYTES)
# Or else the next process that is started inherits what was meant for this one.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Received(NamedTuple):
    """What one read of a control channel brought."""

    size: int
    #: One for each message that carried a descriptor; None where it was lost on arrival.
    descriptors: list[int | None]


def receive(sock: socket.socket, buffer: memoryview, flags: int = 0) -> Received:
    """Read bytes and descriptors. Raises as ``socket.recvmsg``."""
    size, ancillary, flags, _ = sock.recvmsg_into(
        [buffer], _ANCILLARY_BYTES, flags | _CLOSE_ON_EXEC
    )
    descriptors: list[int | None] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(payload[: len(payload) - len(payload) % _INT_BYTES])
            descriptors += fds
    if flags & socket.MSG_CTRUNC:
        descriptors.append(None)
    return Received(size, descriptors)


class SegmentExchange:
    """The segments of one connection, in both directions.

    ``send`` takes a frame for the peer's control channel; ``send_descriptor`` one with a
    descriptor, and returns False if it can't be sent now. ``fetch`` and ``wake``: see
    :class:`IncomingSegments`. Frames and descriptors of the control channel are handed in.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        send_descriptor: Callable[[bytes, int], bool],
        fetch: Callable[[Callable[[], bool]], None],
        wake: Callable[[], None],
    ) -> None:
        self._send = send
        self._send_descriptor = send_descriptor
        self._descriptors: deque[int | None] = deque()
        self.outgoing = OutgoingSegments(self._announce, self._discard)
        self.incoming = IncomingSegments(fetch, wake)

    @property
    def total_bytes(self) -> int:
        """Shared memory of this connection, in both directions."""
        return self.outgoing.total_bytes + self.incoming.total_bytes

    def resolve(self, frame: Frame) -> Frame:
        """Decode a frame that refers to segments.

        Raises:
            ProtocolError: it refers to what is no part of a segment.
        """
        body = codec.resolve(frame.body, Leases(self.incoming))
        if bus.listening:
            size = {"bytes": body.shared_bytes}
            bus.tell("snakepit.shared_memory.import", size, self.outgoing.labels)
        return frame._replace(body=body)

    def label(self, pool: str | None, worker_id: str) -> None:
        """Say whose connection it is, for events."""
        self.outgoing.labels = {"pool": pool, "worker_id": worker_id}

    def flush(self) -> None:
        """Tell the peer which of its segments have no views any more."""
        reusable, spent = self.incoming.take_released()
        if reusable or spent:
            self._send(message_frame(FrameType.RELEASE, 0, reusable, spent))

    def arrived(self, descriptors: list[int | None]) -> None:
        """Keep descriptors for the frames that they came with."""
        self._descriptors.extend(descriptors)

    def check_descriptors(self, pending_bytes: int) -> None:
        """Refuse descriptors that belong to no frame.

        Raises:
            ProtocolError: there are more than an unfinished frame can have.
        """
        if len(self._descriptors) > bool(pending_bytes):
            raise ProtocolError("the peer sent descriptors that belong to no segment")

    def handle(self, frame: Frame) -> bool:
        """Handle a frame of the control channel; False if it is none about segments.

        Raises:
            ProtocolError: the peer broke the rules.
        """
        if frame.type == FrameType.SEGMENT:
            self._on_segment(frame)
        elif frame.type == FrameType.RELEASE:
            self.outgoing.released(*(_ids(ids) for ids in read_body(frame, 2)))
        elif frame.type == FrameType.DISCARD:
            self.incoming.discarded(_ids(read_body(frame, 1)[0]))
        else:
            return False
        return True

    def close(self) -> None:
        """The connection has ended. Views that are alive stay valid."""
        while self._descriptors:
            _close(self._descriptors.popleft())
        self.outgoing.close()
        self.incoming.close()

    def _on_segment(self, frame: Frame) -> None:
        segment_id, size = read_body(frame, 2)
        if not self._descriptors:
            raise ProtocolError("the peer announced a segment without its descriptor")
        fd = self._descriptors.popleft()
        try:
            if type(segment_id) is not int or type(size) is not int:
                raise ProtocolError(f"segment {segment_id!r} of {size!r} bytes is none")
            self.incoming.opened(segment_id, size, fd)
        finally:
            _close(fd)

    def _announce(self, segment_id: int, size: int, fd: int) -> bool:
        return self._send_descriptor(message_frame(FrameType.SEGMENT, 0, segment_id, size), fd)

    def _discard(self, ids: list[int]) -> None:
        self._send(message_frame(FrameType.DISCARD, 0, ids))


def resolved(frames: list[Frame], exchange: SegmentExchange | None) -> list[Frame]:
    """``frames`` with those decoded that refer to segments.

    Raises:
        ProtocolError: one does though it must not, or refers to what is no part of a segment.
    """
    if exchange is None:
        if any(frame.flags & FLAG_SEGMENTS for frame in frames):
            raise ProtocolError("the peer uses segments, on which nobody has agreed")
        return frames
    return [exchange.resolve(frame) if frame.flags & FLAG_SEGMENTS else frame for frame in frames]


def rights(fd: int) -> list[tuple[int, int, Any]]:
    """The ancillary data that carries ``fd``."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]


def _ids(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ProtocolError("the ids of segments are no array of integers")
    return value


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
