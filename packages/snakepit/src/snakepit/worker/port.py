"""The worker's end of the data channel: thread-safe sending, reading by one thread at a time."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import NoReturn

from snakepit.loops.spin import AdaptiveSpin
from snakepit.wire.batching import ItemBatches
from snakepit.wire.credit import SendWindow
from snakepit.wire.exchange import SegmentExchange, resolved
from snakepit.wire.frames import Frame, FrameDecoder
from snakepit.wire.segments import OutgoingSegments
from snakepit.worker.flusher import Flusher

# The host is gone: nobody is left to report to.
_EXIT_HOST_GONE = 3


class Port:
    """Sends and receives frames over a blocking socket. It owns ``sock``."""

    #: Where large buffers of what is sent go, if anywhere.
    segments: OutgoingSegments | None = None
    exchange: SegmentExchange | None = None

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._decoder = FrameDecoder()
        self._send_lock = threading.Lock()
        self._batches = ItemBatches()
        self._flusher = Flusher(self.flush)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        # poll() before recv(): a blocking recv() on a socket pair is woken spuriously.
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._poller.register(self._wake_read, select.POLLIN)
        self._spin = AdaptiveSpin(0.0)

    def look_before_sleeping(self, seconds: float) -> None:
        """Have ``read`` look for bytes that long before it sleeps, while that is worthwhile."""
        self._spin = AdaptiveSpin(seconds)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, frame: bytes) -> None:
        """Send a whole frame; blocks while the host does not read."""
        with self._send_lock:
            if self._batches.gathered:
                self._send_now(self._batches.take())
            self._send_now(frame)

    def send_item(self, call_id: int, body: bytes, window: SendWindow) -> None:
        """Send an ``ITEM`` with a body that has one item and nothing in segments; perhaps together
        with the next ones, if these come quickly. Whatever else is sent is sent after it.
        """
        with self._send_lock:
            if self._batches.add(call_id, body, window, time.perf_counter()):
                self._send_now(self._batches.take())
                self._batches.sent(time.perf_counter())
            else:
                self._flusher.watch()

    def flush(self) -> bool:
        """Send the items that were gathered; whether there were any."""
        with self._send_lock:
            if not self._batches.gathered:
                return False
            self._send_now(self._batches.take())
            return True

    def _send_now(self, frames: bytes) -> None:
        try:
            sent = self._sock.send(frames)
            if sent != len(frames):
                self._sock.sendall(memoryview(frames)[sent:])
        except ConnectionError:
            host_is_gone()

    def read(self) -> list[Frame]:
        """Block until bytes arrive or ``wake`` is called; return the completed frames."""
        if self._spin.is_worthwhile():
            frames = self._look()
            if frames:
                return frames
        self._sleep()
        return self.read_available()

    def _look(self) -> list[Frame]:
        """Read again and again for a while; no frames if none has come in time."""
        give_up_at = time.perf_counter() + self._spin.limit
        while True:
            # Where processors are scarce, the host or another worker needs this one.
            os.sched_yield()
            frames = self.read_available()
            late = time.perf_counter() > give_up_at
            if frames or late:
                break
        self._spin.record(found=not late)
        return frames

    def _sleep(self, milliseconds: float | None = None) -> None:
        """Until bytes arrive, ``wake`` is called or the time is over."""
        for fd, _ in self._poller.poll(milliseconds):
            if fd == self._wake_read:
                os.read(fd, 4096)

    def share(self, exchange: SegmentExchange) -> None:
        """Let frames refer to segments from now on."""
        self.exchange = exchange
        self.segments = exchange.outgoing

    def release(self) -> None:
        """Tell the host now which of its segments have no views any more."""
        if self.exchange is not None:
            self.exchange.flush()

    def wake(self) -> None:
        """Make ``read`` return in the thread that is blocked in it, or else at its next call."""
        with contextlib.suppress(BlockingIOError):  # it is full of wake-ups already
            os.write(self._wake_write, b"w")

    def read_available(self) -> list[Frame]:
        """The frames that can be completed without blocking."""
        try:
            count = self._sock.recv_into(self._decoder.space, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionError:
            host_is_gone()
        if count == 0:
            host_is_gone()
        frames = self._decoder.received(count)
        return resolved(frames, self.exchange) if self._decoder.saw_segments else frames


def host_is_gone() -> NoReturn:
    """End this process at once; there is no host to answer to."""
    os._exit(_EXIT_HOST_GONE)
