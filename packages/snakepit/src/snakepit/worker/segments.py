"""The worker's end of the control channel, as far as segments are exchanged over it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable

from snakepit.errors import ProtocolError
from snakepit.wire.exchange import SegmentExchange, receive, rights
from snakepit.wire.frames import Frame
from snakepit.wire.segments import IDLE_SECONDS
from snakepit.worker.port import Port, host_is_gone

# The announcement of a segment was sent before the frame that uses it, so it is only a matter of
# this process's own thread getting its turn; C code that holds the GIL can delay that.
_FETCH_SECONDS = 60.0


class ControlPort(Port):
    """A :class:`Port` that receives and sends descriptors too."""

    exchange: SegmentExchange

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._announced = threading.Condition()
        self._trim_at: float | None = None
        self.exchange = SegmentExchange(self.send, self._send_descriptor, self._fetch, self.wake)

    def read(self) -> list[Frame]:
        """As a port's; looks after the segments as well, and returns the other frames."""
        timeout = None if self._trim_at is None else self._trim_at - time.monotonic()
        self._sleep(None if timeout is None else max(0.0, timeout) * 1000)
        others = self.read_available()
        self.exchange.flush()
        self._trim(time.monotonic())
        return others

    def read_available(self) -> list[Frame]:
        try:
            count, descriptors = receive(self._sock, self._decoder.space, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionError:
            host_is_gone()
        if count == 0:
            host_is_gone()
        self.exchange.arrived(descriptors)
        with self._announced:
            frames = self._decoder.received(count)
            others = [frame for frame in frames if not self.exchange.handle(frame)]
            self._announced.notify_all()
        self.exchange.check_descriptors(self._decoder.pending_bytes)
        return others

    def send_at_once(self, frame: bytes) -> bool:
        """Send a small frame if the host has left room for it; whether it was sent."""
        with self._send_lock:
            try:
                sent = self._sock.send(frame, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionError:
                host_is_gone()
            if sent != len(frame):
                self._send_now(frame[sent:])
        return True

    def wait_for_space(self, wanted: bool) -> None:
        """Whether ``read`` returns, too, when the host has left room for what is to be sent."""
        self._poller.modify(self._sock, select.POLLIN | (select.POLLOUT if wanted else 0))

    def _trim(self, now: float) -> None:
        if self._trim_at is None or now >= self._trim_at:
            self._trim_at = now + IDLE_SECONDS if self.exchange.outgoing.trim(now) else None

    def _fetch(self, announced: Callable[[], bool]) -> None:
        with self._announced:
            if not self._announced.wait_for(announced, _FETCH_SECONDS):
                raise ProtocolError("the host uses a segment that it did not announce")

    def _send_descriptor(self, frame: bytes, fd: int) -> bool:
        with self._send_lock:
            try:
                sent = self._sock.sendmsg([frame], rights(fd))
                if sent != len(frame):
                    self._sock.sendall(memoryview(frame)[sent:])
            except ConnectionError:
                host_is_gone()
            except OSError:
                return False  # too many descriptors under way
        return True
