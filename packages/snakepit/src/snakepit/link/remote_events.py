"""The events that the code of one worker tells: which of them the host wants, and what comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from snakepit.calls.call import Call
from snakepit.telemetry import bus
from snakepit.telemetry.trace import CORRELATION_ID
from snakepit.wire.events import Listen, listen_frame, read_events
from snakepit.wire.frames import Frame

#: Events a second that a worker may tell, and how many at once; further ones are dropped.
RATE: Final = 2000.0
BURST: Final = 4096.0
# Ended calls whose events may still be on their way.
_CALLS_KEPT: Final = 1024


class Sender(Protocol):
    """One of a worker's channels."""

    def send(self, frame: bytes) -> None: ...


class Budget:
    """How many events a worker may still tell: a token bucket. Pure: it takes `now`."""

    def __init__(self, now: float) -> None:
        self._left = BURST
        self._at = now

    def take(self, wanted: int, now: float) -> int:
        """How many of so many events may pass."""
        self._left = min(BURST, self._left + max(0.0, now - self._at) * RATE)
        self._at = now
        taken = min(wanted, int(self._left))
        self._left -= taken
        return taken


class RemoteEvents:
    """What one worker tells. Belongs to the event loop of that worker, whose open calls are
    ``calls``. ``channels``: what it is told comes on each, so that it is read at once, also while a
    command runs, and before any later call.
    """

    def __init__(
        self, worker_id: str, calls: Mapping[int, Call], channels: Sequence[Sender]
    ) -> None:
        #: The name of the worker's pool.
        self.pool = ""
        self._worker_id = worker_id
        self._calls = calls
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._listen = Listen(0, [])
        self._budget = Budget(time.monotonic())
        # Of calls that were sent with an id: their events may come when they are over.
        self._told: OrderedDict[int, str] = OrderedDict()

    def open(self) -> list[str]:
        """What the worker is to tell from its start on; it hears of every change."""
        self._listen = Listen(0, bus.patterns_for_workers())
        bus.watch(self)
        return self._listen.patterns

    def patterns_changed(self) -> None:
        """Any thread."""
        if _running_loop() is self._loop:
            self._tell_worker()  # before the calls that are made next
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the worker gone with it
            self._loop.call_soon_threadsafe(self._tell_worker)

    def _tell_worker(self) -> None:
        patterns = bus.patterns_for_workers()
        if patterns != self._listen.patterns:
            self._listen = Listen(self._listen.number + 1, patterns)
            frame = listen_frame(self._listen)
            for channel in self._channels:
                channel.send(frame)

    def note_call(self, call: Call) -> None:
        """A call is sent with a correlation id of its own."""
        self._told[call.wire_id] = call.correlation_id
        if len(self._told) > _CALLS_KEPT:
            self._told.popitem(last=False)

    def arrived(self, frame: Frame) -> None:
        """Tell what an ``EVENTS`` frame brings.

        Raises:
            ProtocolError: it is malformed.
        """
        events, dropped = read_events(frame)
        passed = self._budget.take(len(events), time.monotonic())
        labels = {"pool": self.pool, "worker_id": self._worker_id}
        for event in events[:passed]:
            # Last: what the worker itself says of these is not asked.
            metadata = {**event.metadata, **labels, CORRELATION_ID: self._id_of(event.call_id)}
            bus.tell(event.name, event.measurements, metadata)
        lost = {"worker": dropped, "host": len(events) - passed}
        for where, count in lost.items():
            if count:
                bus.tell("snakepit.telemetry.dropped", {"events": count}, {**labels, "by": where})

    def _id_of(self, wire_id: int) -> str | None:
        if not wire_id:
            return None
        call = self._calls.get(wire_id)
        if call is not None:
            return call.correlation_id
        return self._told.get(wire_id) or f"{self._worker_id}/{wire_id}"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
