"""The events that this worker's code tells, on their way to the host.

Only those are sent that the host listens to; while it listens to none, nobody here does. They wait
in a bounded buffer for the control thread, so that whoever tells one never waits.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from snakepit._logs import steady_logger
from snakepit.telemetry import bus
from snakepit.wire.events import (
    Event,
    Listen,
    encode_event,
    events_frame,
    fitting,
    read_listen,
)
from snakepit.wire.frames import Frame
from snakepit.worker.context import find_call
from snakepit.worker.segments import ControlPort

#: Events that wait to be sent; further ones are dropped, and counted.
MOST_WAITING: Final = 1024

logger = steady_logger("snakepit.telemetry")


class EventForwarder:
    """Sends events to the host. Thread-safe. Until it is connected, they wait."""

    def __init__(self) -> None:
        self._port: ControlPort | None = None
        self._handler_id = 0
        self._listens = -1
        # Reentrant: an event may be told by a finalizer, in the middle of this code.
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._is_woken = False
        self._has_warned = False
        self._flushing = threading.Lock()

    def connect(self, port: ControlPort) -> None:
        """Send over ``port``, whose thread calls ``flush`` whenever it has been woken."""
        self._port = port

    def listened(self, frame: Frame) -> None:
        """Handle a ``LISTEN``, which comes on both channels: the first one counts."""
        self.listen(read_listen(frame))

    def listen(self, listen: Listen) -> None:
        """Send from now on what the host listens to."""
        with self._lock:
            if listen.number <= self._listens:
                return
            self._listens = listen.number
            self._handler_id = bus.attach_in_place_of(
                self._handler_id, listen.patterns, self._forward
            )

    def _forward(
        self, name: str, measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        if name.startswith(bus.OWN_PREFIX):
            return
        call = find_call()
        event = encode_event(Event(name, measurements, metadata, call.call_id if call else 0))
        if event is None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "an event %s can't leave this worker, and others may not: it has to be small, and "
                "made of text, numbers, booleans and None",
                name,
            )
        with self._lock:
            if event is None or len(self._waiting) >= MOST_WAITING:
                self._dropped += 1
            else:
                self._waiting.append(event)
            is_woken, self._is_woken = self._is_woken, True
        if not is_woken and self._port is not None:
            self._port.wake()

    def flush(self) -> bool:
        """Send what waits; False if some of it has to wait on."""
        assert self._port is not None, "the port's own thread calls this"
        with self._flushing:
            while True:
                with self._lock:
                    if not self._waiting and not self._dropped:
                        self._is_woken = False
                        return True
                    count = fitting(self._waiting)
                    events = list(itertools.islice(self._waiting, count))
                    dropped = self._dropped
                if not self._port.send_at_once(events_frame(events, dropped)):
                    return False
                with self._lock:
                    for _ in events:
                        self._waiting.popleft()
                    self._dropped -= dropped
