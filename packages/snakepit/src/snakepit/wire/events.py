"""Events of a worker's code on their way to the host. Pure. See PROTOCOL.md.

Both sides hold them to the same bounds: the worker drops and counts what is over them, and so does
the host, which trusts no worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final, NamedTuple

from snakepit.errors import ProtocolError, SnakepitError
from snakepit.telemetry.bus import OWN_PREFIX, require_name
from snakepit.wire.codec import encode
from snakepit.wire.frames import Frame, FrameType, encode_frame
from snakepit.wire.messages import message_frame, read_body

#: Bytes of one event, and of a frame's body; a frame that small is sent whole or not at all.
EVENT_BYTES: Final = 4096
BODY_BYTES: Final = 16384
#: Entries of an event's measurements, and of its metadata; characters of a name and of a text.
MOST_ENTRIES: Final = 32
KEY_LIMIT: Final = 64
TEXT_LIMIT: Final = 1024

_PLAIN: Final = (str, Real, type(None))
# What a body has besides its events, at most.
_HEAD_BYTES: Final = 16


class Event(NamedTuple):
    """One event. ``call_id``: the host's call that it was told in, or 0."""

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]
    call_id: int

    @property
    def may_leave_a_worker(self) -> bool:
        """Whether it is within the bounds, and none of this library's own."""
        try:
            require_name(self.name)
        except SnakepitError:
            return False
        return (
            not self.name.startswith(OWN_PREFIX)
            and _has_short_keys(self.measurements)
            and _has_short_keys(self.metadata)
            and all(_is_number(value) for value in self.measurements.values())
            and all(_is_plain(value) for value in self.metadata.values())
        )


class Events(NamedTuple):
    """What one frame brings: events, and how many were dropped before they could be sent."""

    events: list[Event]
    dropped: int


def encode_event(event: Event) -> bytes | None:
    """An event as an element of ``EVENTS``; None if it may not or can't travel."""
    if not event.may_leave_a_worker:
        return None
    name, measurements, metadata, call_id = event
    try:
        data = encode([name, dict(measurements), dict(metadata), call_id])
    except SnakepitError:
        return None
    return data if len(data) <= EVENT_BYTES else None


def fitting(events: Sequence[bytes]) -> int:
    """How many of the first encoded events fit into a frame."""
    size = _HEAD_BYTES
    for count, event in enumerate(events):
        size += len(event)
        if size > BODY_BYTES:
            return count
    return len(events)


def events_frame(events: Sequence[bytes], dropped: int) -> bytes:
    """The bytes of an ``EVENTS`` with encoded events."""
    count = len(events)
    head = bytes((0x92, 0x90 | count)) if count < 16 else b"\x92\xdc" + count.to_bytes(2, "big")
    return encode_frame(FrameType.EVENTS, 0, b"".join((head, *events, encode(dropped))))


def read_events(frame: Frame) -> Events:
    """What an ``EVENTS`` frame brings; those over the bounds are counted as dropped.

    Raises:
        ProtocolError: it has another shape, or is too large.
    """
    if len(frame.body) > BODY_BYTES:
        raise ProtocolError(f"an EVENTS frame has {len(frame.body)} bytes")
    found, dropped = read_body(frame, 2)
    if type(found) is not list or type(dropped) is not int or dropped < 0:
        raise ProtocolError("the body of an EVENTS frame holds no events and their number")
    events = [_read_event(each) for each in found]
    taken = [event for event in events if event.may_leave_a_worker]
    return Events(taken, dropped + len(events) - len(taken))


def _read_event(fields: Any) -> Event:
    if type(fields) is not list or len(fields) < len(Event._fields):
        raise ProtocolError("an event is an array of four elements")
    event = Event(*fields[: len(Event._fields)])
    name, measurements, metadata, call_id = event
    if (
        type(name) is not str
        or type(measurements) is not dict
        or type(metadata) is not dict
        or type(call_id) is not int
    ):
        raise ProtocolError("an element of an event has the wrong type")
    return event


class Listen(NamedTuple):
    """What the host listens to; what has a lower number is older."""

    number: int
    patterns: list[str]


def listen_frame(listen: Listen) -> bytes:
    """The bytes of a ``LISTEN``."""
    return message_frame(FrameType.LISTEN, 0, *listen)


def read_listen(frame: Frame) -> Listen:
    """What a ``LISTEN`` says.

    Raises:
        ProtocolError: it is malformed.
    """
    number, patterns = read_body(frame, len(Listen._fields))
    if (
        type(number) is not int
        or type(patterns) is not list
        or not all(type(pattern) is str for pattern in patterns)
    ):
        raise ProtocolError("a LISTEN holds a number and an array of texts")
    return Listen(number, patterns)


def _has_short_keys(entries: Mapping[Any, Any]) -> bool:
    if len(entries) > MOST_ENTRIES:
        return False
    return all(isinstance(key, str) and len(key) <= KEY_LIMIT for key in entries)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) and not (isinstance(value, str) and len(value) > TEXT_LIMIT)
