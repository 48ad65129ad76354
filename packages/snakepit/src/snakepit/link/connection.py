"""Frames over a non-blocking socket in an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from snakepit import forks
from snakepit.errors import SnakepitError
from snakepit.loops.wakeups import WakeUps
from snakepit.wire.exchange import SegmentExchange, resolved
from snakepit.wire.frames import Frame, FrameDecoder
from snakepit.wire.segments import OutgoingSegments


class FrameConnection:
    """Sends frames, and hands those that arrive to ``on_frame``. It owns ``sock``.

    ``on_closed`` is called once, with the error that ended the connection or None at the end of
    file; not after ``close``.
    """

    #: Where large buffers of what is sent go, if anywhere.
    segments: OutgoingSegments | None = None
    exchange: SegmentExchange | None = None
    #: Who goes on when all that came with one read has been handled.
    wakeups: WakeUps | None = None

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        sock.setblocking(False)
        forks.close_in_child(sock)
        self._sock = sock
        self._send = sock.send
        self._receive_into = sock.recv_into
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._decoder = FrameDecoder()
        self._unsent = bytearray()
        self._gathered: list[bytes] = []
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    def send(self, frame: bytes) -> None:
        """Send a frame now, or when the peer reads on.

        A frame for a closed connection is dropped: its end was reported.
        """
        if self._gathered:
            self._gathered.append(frame)
            frame = b"".join(self._gathered)
            self._gathered.clear()
        if self._unsent or not self._open:
            if self._open:
                self._unsent += frame
            return
        try:
            sent = self._send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader sees the end too, after what the peer still said
        if sent != len(frame):
            self._unsent += memoryview(frame)[sent:]
            self._loop.add_writer(self._sock, self._on_writable)

    def share(self, exchange: SegmentExchange) -> None:
        """Let frames refer to segments from now on."""
        self.exchange = exchange
        self.segments = exchange.outgoing

    def send_soon(self, frame: bytes) -> None:
        """Send a frame together with the others of this turn of the loop: one system call."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(frame)

    def _flush(self) -> None:
        if self._gathered:
            self.send(self._gathered.pop())

    def close(self) -> None:
        """Close the socket; nothing is reported any more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def poll(self) -> bool:
        """Handle what has arrived, if anything has."""
        return self._open and self._read()

    def drain(self) -> None:
        """Read what the peer still said before it ended."""
        while self.poll():
            pass

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        wakeups = self.wakeups
        if wakeups is None:
            self._read()
            return
        wakeups.at_once = True
        try:
            self._read()
        finally:
            wakeups.wake()

    def _read(self) -> bool:
        """Handle one read; False when there was nothing, or the connection ended."""
        try:
            count = self._receive_into(self._decoder.space)
        except BlockingIOError:
            return False
        except OSError:
            count = 0  # a peer that died with our frames unread ends the connection by a reset
        if count == 0:
            self._end(None)
            return False
        try:
            frames = self._decoder.received(count)
            if self._decoder.saw_segments:
                frames = resolved(frames, self.exchange)
            for frame in frames:
                self._on_frame(frame)
        except SnakepitError as error:
            self._end(error)
            return False
        return True

    def _end(self, error: Exception | None) -> None:
        if self._open:
            self.close()
            self._on_closed(error)
