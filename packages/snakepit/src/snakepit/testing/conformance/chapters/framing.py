"""Frames, the ids of calls, and bodies."""

from __future__ import annotations

import struct
from collections.abc import Callable

from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.program import Channel
from snakepit.testing.conformance.rules import Chapter, broken
from snakepit.wire.codec import encode
from snakepit.wire.credit import Credit
from snakepit.wire.frames import FLAG_SEGMENTS, FLAG_STREAM, MAX_BODY_BYTES, FrameType, encode_frame
from snakepit.wire.messages import call_frame, message_frame

chapter = Chapter()

_HEADER = struct.Struct("<IBBHQ")
_LARGE_BYTES = 8 << 20
_LARGEST_ID = (1 << 64) - 1


def _echo_frame(host: Host, value: object) -> tuple[int, bytes]:
    call_id = host.next_id()
    return call_id, call_frame(call_id, ("echo", {"value": value}, None, None, None, None))


@chapter.rule("frame.dribbled", "puts a frame together that comes byte by byte")
def dribbled(bench: Bench) -> None:
    host = bench.ready()
    call_id, frame = _echo_frame(host, "in pieces")
    for i in range(len(frame)):
        host.data.send(frame[i : i + 1])
    if host.result(call_id) != "in pieces":
        broken("the value that came byte by byte was changed")


@chapter.rule("frame.joined", "takes several frames that come at once, and a part of the next one")
def joined(bench: Bench) -> None:
    host = bench.ready()
    calls = [_echo_frame(host, number) for number in range(40)]
    data = b"".join(frame for _, frame in calls)
    host.data.send(data[:-5])
    host.data.send(data[-5:])
    for number, (call_id, _) in enumerate(calls):
        if host.result(call_id) != number:
            broken(f"call {call_id} was not answered by its own value")


@chapter.rule("frame.large", "takes and sends bodies of several MiB")
def large(bench: Bench) -> None:
    host = bench.fresh()
    host.start(features=[])
    host.echo(bytes(range(256)) * (_LARGE_BYTES // 256))


def _refused_header(host: Host, channel: Channel, header: bytes, what: str) -> None:
    channel.send(header)
    host.ends(what)


def _on_both_channels(bench: Bench, make: Callable[[], bytes], what: str) -> None:
    for name in ("data", "control"):
        host = bench.fresh()
        host.start()
        _refused_header(host, getattr(host, name), make(), f"{what} on {name}")


@chapter.rule("frame.unknown_type", "closes the connection on a type it does not know")
def unknown_type(bench: Bench) -> None:
    _on_both_channels(bench, lambda: _HEADER.pack(1, 99, 0, 0, 0) + b"\x90", "type 99")


@chapter.rule("frame.unknown_flag", "closes the connection on a flag it does not know")
def unknown_flag(bench: Bench) -> None:
    for flag in (0x08, 0x80):
        host = bench.fresh()
        host.start()
        header = _HEADER.pack(1, FrameType.CALL, flag, 0, host.next_id())
        _refused_header(host, host.data, header + b"\x90", f"flag {flag:#x}")


@chapter.rule(
    "frame.segments_flag", "closes the connection on a flag of a feature nobody agreed to"
)
def segments_flag(bench: Bench) -> None:
    host = bench.fresh()
    host.start(features=[])
    body = encode(["echo", {"value": 1}, None, None, None, None])
    host.data.send(encode_frame(FrameType.CALL, host.next_id(), body, FLAG_SEGMENTS))
    host.ends("the flag SEGMENTS")


@chapter.rule("frame.reserved", "closes the connection on a reserved bit")
def reserved(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    header = _HEADER.pack(1, FrameType.CALL, 0, 0x100, host.next_id())
    _refused_header(host, host.data, header + b"\x90", "a reserved bit")


@chapter.rule(
    "frame.too_long", "refuses a body over the limit from its header, without waiting for it"
)
def too_long(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    header = _HEADER.pack(MAX_BODY_BYTES + 1, FrameType.CALL, 0, 0, host.next_id())
    _refused_header(host, host.data, header, "a body of more than 1 GiB")


@chapter.rule(
    "frame.wrong_sender", "closes the connection on a frame that a host may not send there"
)
def wrong_sender(bench: Bench) -> None:
    frames = (
        ("data", message_frame(FrameType.READY, 0, {})),
        ("data", message_frame(FrameType.PING, 0, 1)),
        ("control", message_frame(FrameType.PONG, 0, 1)),
        ("control", message_frame(FrameType.SHUTDOWN, 0)),
    )
    for name, frame in frames:
        host = bench.fresh()
        host.start()
        channel: Channel = getattr(host, name)
        _refused_header(host, channel, frame, f"a frame of type {frame[4]} on {name}")


@chapter.rule("call.odd_id", "closes the connection on a call of the host with an even id")
def odd_id(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.call("echo", {"value": 1}, call_id=2)
    host.ends("an even call id")


@chapter.rule("call.ascending_id", "closes the connection on a call id that does not ascend")
def ascending_id(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.result(host.call("echo", {"value": 1}, call_id=5))
    host.call("echo", {"value": 1}, call_id=5)
    host.ends("a call id that came before")


@chapter.rule("call.largest_id", "answers a call whose id has all of its 64 bits")
def largest_id(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.result(host.call("echo", {"value": 1}, call_id=_LARGEST_ID))


@chapter.rule("body.later_version", "ignores elements that a later version has appended")
def appended(bench: Bench) -> None:
    host = bench.ready()
    call_id = host.raw_call(encode(["echo", {"value": 7}, None, None, None, None, "new", {}]))
    if host.result(call_id) != 7:
        broken("the value was changed")
    credit = [1, 1 << 20, "new"]
    body = encode(["count", {"n": 2, "pause": 0}, None, None, None, credit])
    stream = host.raw_call(body, flags=FLAG_STREAM)
    host.items(stream)
    host.data.send(message_frame(FrameType.CREDIT, stream, 1, 1 << 20, "new"))
    host.items(stream)
    host.end(stream)
    host.control.send(message_frame(FrameType.PING, 0, "token", "new"))
    host.expect(FrameType.PONG, 0, host.control)


@chapter.rule("body.malformed", "ends a call with protocol_error whose body has the wrong shape")
def malformed(bench: Bench) -> None:
    host = bench.ready()
    bodies = (
        encode({"command": "echo"}),
        encode([]),
        encode(["echo", {"value": 1}, None, None, None]),
        encode([7, {"value": 1}, None, None, None, None]),
        encode(["echo", ["value"], None, None, None, None]),
        encode(["echo", {"value": 1}, "soon", None, None, None]),
        encode(["echo", {"value": 1}, None, 7, None, None]),
    )
    for body in bodies:
        _expect_code(host, host.raw_call(body), "protocol_error")
    host.echo()


@chapter.rule("body.undecodable", "ends a call with decode_error whose values can't be decoded")
def undecodable(bench: Bench) -> None:
    host = bench.ready()
    for value in (b"\xd4\x7f\x00", b"\xc1", b"\xa1\xff", b""):
        _expect_code(host, host.raw_call(echo_body(value)), "decode_error")
    host.echo()


@chapter.rule("body.flags", "ends a call with protocol_error whose flags contradict its body")
def flags(bench: Bench) -> None:
    host = bench.ready()
    body = encode(["echo", {"value": 1}, None, None, None, None])
    _expect_code(host, host.raw_call(body, flags=FLAG_STREAM), "protocol_error")
    body = encode(["count", {"n": 1, "pause": 0}, None, None, None, [1, 1]])
    _expect_code(host, host.raw_call(body), "protocol_error")
    host.echo()


@chapter.rule("body.credit", "closes the connection on a CREDIT that grants nothing")
def credit(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    stream = host.stream("count", {"n": 9, "pause": 0}, Credit(1, 1 << 20))
    host.items(stream)
    host.data.send(message_frame(FrameType.CREDIT, stream, 0, -1))
    host.ends("credit of no items")


@chapter.rule("body.control", "closes the connection on a malformed body on its control channel")
def control(bench: Bench) -> None:
    for kind in (FrameType.PING, FrameType.RECALL):
        host = bench.fresh()
        host.start()
        host.control.send(message_frame(kind, 0))
        host.ends(f"an empty body of {kind.name}")


def _expect_code(host: Host, call_id: int, code: str) -> None:
    found = host.error(call_id).get("code")
    if found != code:
        broken(f"the error has the code {found!r}, not {code!r}")


def echo_body(value: bytes) -> bytes:
    """The body of a call that echoes a value which is encoded already."""
    return b"\x96" + encode("echo") + b"\x81" + encode("value") + value + b"\xc0" * 4
