"""The host's end of a control channel: frames, and descriptors with them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from snakepit.errors import SnakepitError
from snakepit.link.connection import FrameConnection
from snakepit.wire.exchange import SegmentExchange, receive, rights
from snakepit.wire.frames import Frame
from snakepit.wire.segments import IDLE_SECONDS


class ControlConnection(FrameConnection):
    """A :class:`FrameConnection` over which segments are exchanged.

    ``exchange`` handles the frames that are about them; all others go to ``on_frame``.
    """

    exchange: SegmentExchange

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(sock, self._on_any_frame, on_closed)
        self._on_other_frame = on_frame
        self._trimming: asyncio.TimerHandle | None = None
        self.exchange = SegmentExchange(
            self.send, self._send_descriptor, lambda _: self.drain(), self._wake
        )

    def close(self) -> None:
        super().close()
        if self._trimming is not None:
            self._trimming.cancel()
        self.exchange.close()

    def _send_descriptor(self, frame: bytes, fd: int) -> bool:
        if not self._open or self._unsent:
            return False
        try:
            sent = self._sock.sendmsg([frame], rights(fd))
        except OSError:
            return False
        if sent != len(frame):
            # The descriptor has gone with the first byte.
            self._unsent += memoryview(frame)[sent:]
            self._loop.add_writer(self._sock, self._on_writable)
        return True

    def _wake(self) -> None:
        # A view ended, perhaps while garbage is collected somewhere.
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        if self._open:
            self.exchange.flush()

    def _on_any_frame(self, frame: Frame) -> None:
        if not self.exchange.handle(frame):
            self._on_other_frame(frame)
        elif self._trimming is None:
            self._trimming = self._loop.call_later(IDLE_SECONDS, self._trim)

    def _trim(self) -> None:
        left = self.exchange.outgoing.trim(time.monotonic())
        self._trimming = self._loop.call_later(IDLE_SECONDS, self._trim) if left else None

    def _read(self) -> bool:
        try:
            received = receive(self._sock, self._decoder.space)
        except BlockingIOError:
            return False
        except OSError:
            received = None
        if received is None or received.size == 0:
            self._end(None)
            return False
        self.exchange.arrived(received.descriptors)
        try:
            for frame in self._decoder.received(received.size):
                self._on_frame(frame)
            self.exchange.check_descriptors(self._decoder.pending_bytes)
        except SnakepitError as error:
            self._end(error)
            return False
        return True
