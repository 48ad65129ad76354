"""What a worker may leave out, checked where it does not."""

from __future__ import annotations

import os
import reprlib
import signal
import time
from collections.abc import Callable

from snakepit.errors import SnakepitError
from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.host import Host, shown
from snakepit.testing.conformance.rules import Broken, Chapter, NotOffered, broken
from snakepit.wire.events import Event, Listen, listen_frame, read_events
from snakepit.wire.exchange import SegmentExchange
from snakepit.wire.features import EVENTS_FEATURE, SEGMENTS_FEATURE, STACKS_FEATURE
from snakepit.wire.frames import FLAG_SEGMENTS, Frame, FrameType
from snakepit.wire.messages import call_frame, message_frame, read_value
from snakepit.worker.stacks import STACKS_FILE, STACKS_SIGNAL

chapter = Chapter()

_TIMEOUT = 60.0
_LARGE = bytes(range(256)) * 4096
_LOOKS = 200


# --- the deadline mark ---------------------------------------------------------------------------


@chapter.rule(
    "mark.deadline", "shows on its mark the earliest deadline of what runs, else 0", needs="mark"
)
def deadline(bench: Bench) -> None:
    host = bench.ready()
    before = time.monotonic() + _TIMEOUT
    running = host.call("call_host", {"name": "f", "args": {}}, timeout=_TIMEOUT)
    called = host.host_call()
    found = host.program.deadline()
    if found is None:
        host.reply(FrameType.RESULT, called.call_id, None)
        host.result(running)
        raise NotOffered("it does not write its mark")
    if not before - 1 <= found <= time.monotonic() + _TIMEOUT:
        broken(f"it shows {found}, where the deadline is about {before}")
    inner = host.call("echo", {"value": 1}, parent=called.call_id, timeout=1.0)
    host.result(inner)
    if (after := host.program.deadline()) != found:
        broken(f"it shows {after} after a nested call, of which {found} is left")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)
    if (left := host.program.deadline()) is not None:
        broken(f"it shows {left}, and nothing runs")


# --- stacks --------------------------------------------------------------------------------------


@chapter.rule(
    "stacks.told", "answers STACKS with its token and the stacks of its threads", needs="stacks"
)
def told_stacks(bench: Bench) -> None:
    host = bench.offering(STACKS_FEATURE)
    running = host.call("call_host", {"name": "f", "args": {}})
    called = host.host_call()
    for token in (13, "text"):
        host.control.send(message_frame(FrameType.STACKS, 0, token))
        found, stacks = host.body(host.expect(FrameType.STACKS, 0, host.control), 2)
        if found != token:
            broken(f"the token {token!r} came back as {found!r}")
        if type(stacks) is not str or not stacks:
            broken(f"its stacks are a text, not {reprlib.repr(stacks)}")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)


@chapter.rule(
    "stacks.written", "writes the stacks of its threads when it gets SIGRTMAX", needs="stacks"
)
def stacks(bench: Bench) -> None:
    host = bench.ready()
    number = host.hello.info.get("stacks")
    if type(number) is not int or STACKS_SIGNAL is None:
        raise NotOffered("it does not name a descriptor for stacks")
    path = f"/proc/{host.program.pid}/fd/{number}"
    if STACKS_FILE not in os.readlink(path):
        broken(f"its descriptor {number} is not the file {STACKS_FILE}")
    with open(path, "r+b", buffering=0) as file:
        file.truncate()
        os.kill(host.program.pid, signal.Signals(STACKS_SIGNAL))
        for _ in range(_LOOKS):
            host.ping("it has time to write")
            file.seek(0)
            if file.read():
                break
        else:
            broken("it wrote no stacks")
    host.echo()


# --- segments ------------------------------------------------------------------------------------


def _exchange(host: Host) -> SegmentExchange:
    """The host's part in exchanging segments with a program."""

    def read_control(announced: Callable[[], bool]) -> None:
        while not announced():
            _handle_control(exchange, host, host.next("SEGMENT", host.control))

    exchange = SegmentExchange(
        host.control.send, host.control.send_descriptor, read_control, lambda: None
    )
    return exchange


def _handle_control(exchange: SegmentExchange, host: Host, frame: Frame) -> None:
    exchange.arrived(host.control.descriptors)
    host.control.descriptors = []
    try:
        handled = exchange.handle(frame)
    except SnakepitError as error:
        raise Broken(f"{shown(frame)}: {error}") from error
    if not handled:
        broken(f"waited for a frame about segments: {shown(frame)} came")


def _started(bench: Bench) -> Host:
    if SEGMENTS_FEATURE not in bench.ready().features:
        raise NotOffered(f"it does not name {SEGMENTS_FEATURE!r} among its features")
    host = bench.fresh()
    host.start(features=[SEGMENTS_FEATURE])
    return host


@chapter.rule(
    "segments.received",
    "reads what is in the host's segments, then releases them",
    needs="segments",
)
def received(bench: Bench) -> None:
    host = _started(bench)
    exchange = _exchange(host)
    for _ in range(3):
        call_id = host.next_id()
        fields = ("echo", {"value": _LARGE}, None, None, None, None)
        frame = call_frame(call_id, fields, exchange.outgoing)
        if not frame[5] & FLAG_SEGMENTS:
            raise NotOffered("there is no shared memory on this system")
        host.data.send(frame)
        _expect_large(host, exchange, call_id)
        while not exchange.outgoing.trim(0.0):
            _handle_control(exchange, host, host.next("RELEASE", host.control))
    exchange.close()


@chapter.rule(
    "segments.sent", "announces its sealed segments before it uses them", needs="segments"
)
def sent(bench: Bench) -> None:
    host = _started(bench)
    exchange = _exchange(host)
    for _ in range(3):
        call_id = host.next_id()
        fields = ("echo", {"value": _LARGE}, None, None, None, None)
        host.data.send(call_frame(call_id, fields))
        _expect_large(host, exchange, call_id)
    exchange.close()


def _expect_large(host: Host, exchange: SegmentExchange, call_id: int) -> None:
    frame = host.next("RESULT")
    if frame.type != FrameType.RESULT or frame.call_id != call_id:
        broken(f"waited for RESULT for call {call_id}: {shown(frame)} came")
    try:
        if frame.flags & FLAG_SEGMENTS:
            frame = exchange.resolve(frame)
        value = read_value(frame)
    except SnakepitError as error:
        raise Broken(f"{shown(frame)} can't be read: {error}") from error
    if value != _LARGE:
        broken("a large value was changed")
    exchange.flush()


@chapter.rule(
    "segments.unagreed", "sends all bytes in frames to a host that does not agree to segments"
)
def unagreed(bench: Bench) -> None:
    host = bench.fresh()
    host.start(features=[])
    host.echo(_LARGE)
    if host.control.next(0.0) is not None:
        broken("it sent a frame about segments")


# --- events --------------------------------------------------------------------------------------


def _listening(bench: Bench, *patterns: str) -> Host:
    bench.offering(EVENTS_FEATURE)
    host = bench.fresh()
    host.greet()
    host.welcome(features=[EVENTS_FEATURE], listen=list(patterns))
    host.ready()
    return host


def _tell(host: Host, name: str) -> int:
    call_id = host.call("tell", {"name": name})
    host.result(call_id)
    return call_id


def _expect_event(host: Host, name: str, call_id: int) -> None:
    frame = host.expect(FrameType.EVENTS, 0, host.control)
    try:
        found = read_events(frame)
    except SnakepitError as error:
        raise Broken(f"an EVENTS can't be read: {error}") from error
    if found != ([Event(name, {"n": 1}, {}, call_id)], 0):
        broken(f"waited for the event {name!r} of call {call_id}: {found} came")


@chapter.rule("events.told", "tells the events that the host listens to, by call", needs="events")
def told(bench: Bench) -> None:
    host = _listening(bench, "suite.*")
    for name in ("suite.one", "suite.two"):
        _expect_event(host, name, _tell(host, name))


@chapter.rule("events.unheard", "tells no event that the host does not listen to", needs="events")
def unheard(bench: Bench) -> None:
    host = _listening(bench, "suite.*")
    _tell(host, "other.one")
    host.ping("it has time to tell")
    _expect_event(host, "suite.one", _tell(host, "suite.one"))


@chapter.rule(
    "events.listen", "heeds the LISTEN of the highest number, on either channel", needs="events"
)
def listen(bench: Bench) -> None:
    host = _listening(bench)
    host.control.send(listen_frame(Listen(2, ["suite.*"])))
    host.ping("it has read that")
    host.data.send(listen_frame(Listen(1, ["other.*"])))
    _tell(host, "other.one")
    _expect_event(host, "suite.one", _tell(host, "suite.one"))
    host.data.send(listen_frame(Listen(3, ["other.*"])))
    _expect_event(host, "other.one", _tell(host, "other.one"))
