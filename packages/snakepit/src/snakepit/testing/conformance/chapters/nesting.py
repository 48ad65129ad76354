"""Calls of the worker to the host, and calls that these make back into the worker."""

from __future__ import annotations

from typing import Any

from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.chapters.calling import check_error
from snakepit.testing.conformance.host import Host, HostCallSeen, shown
from snakepit.testing.conformance.rules import Chapter, broken
from snakepit.wire.codec import encode
from snakepit.wire.credit import Credit
from snakepit.wire.frames import FrameType, encode_frame
from snakepit.wire.messages import read_credit

chapter = Chapter()

_DEPTH = 10
_TIMEOUT = 30.0
_STREAMED = 300


def _ask(host: Host, args: dict[str, Any] | None = None, **options: Any) -> int:
    return host.call("call_host", {"name": "lookup", "args": args or {}}, **options)


@chapter.rule(
    "host.call", "calls the host for the call it runs: by parent, with even and ascending ids"
)
def call(bench: Bench) -> None:
    host = bench.ready()
    last = 0
    for number in range(3):
        args = {"number": number, "more": [None, "text"]}
        running = _ask(host, args)
        called = host.host_call()
        if (called.command, dict(called.args)) != ("lookup", args):
            broken(f"it called {called.command} with {called.args}")
        if called.parent != running:
            broken(f"its parent is {called.parent}, not the call that runs, {running}")
        if called.call_id <= last:
            broken(f"its call ids are {last} and then {called.call_id}")
        if called.credit is not None:
            broken("a call that takes one value has no credit")
        last = called.call_id
        host.reply(FrameType.RESULT, called.call_id, {"found": number})
        if host.result(running) != {"found": number}:
            broken("the command did not get what the host answered")


@chapter.rule("host.remaining", "passes the remaining time on to the calls that the code makes")
def remaining(bench: Bench) -> None:
    host = bench.ready()
    running = _ask(host, timeout=_TIMEOUT)
    called = host.host_call()
    if called.timeout is None or not 0 < called.timeout <= _TIMEOUT:
        broken(f"the host is given {called.timeout!r} seconds, of {_TIMEOUT}")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)
    running = _ask(host)
    called = host.host_call()
    if called.timeout is not None:
        broken(f"the host is given {called.timeout!r} seconds by a call without a deadline")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)


@chapter.rule("host.later_version", "ignores elements that a later version appends to an answer")
def later_version(bench: Bench) -> None:
    host = bench.ready()
    running = _ask(host)
    host.reply(FrameType.RESULT, host.host_call().call_id, "answer", "new", {})
    if host.result(running) != "answer":
        broken("the command did not get what the host answered")


@chapter.rule("host.undecodable", "gives the code decode_error for an answer that can't be decoded")
def undecodable(bench: Bench) -> None:
    host = bench.ready()
    running = _ask(host)
    called = host.host_call()
    body = b"\x91\xd4\x7f\x00"
    host.data.send(encode_frame(FrameType.RESULT, called.call_id, body))
    check_error(host.error(running), "decode_error")
    host.echo()


@chapter.rule("host.cancelled", "ends the work when the host has ended its call")
def cancelled(bench: Bench) -> None:
    host = bench.ready()
    running = _ask(host)
    host.reply(FrameType.CANCELLED, host.host_call().call_id, False)
    check_error(host.error(running), "host_call_cancelled")
    host.echo()


@chapter.rule("nested.at_once", "runs at once a call whose parent is its own open call")
def at_once(bench: Bench) -> None:
    host = bench.ready()
    outer = _ask(host)
    called = host.host_call()
    waiting = host.call("echo", {"value": "later"})
    inner = host.call("echo", {"value": "inner"}, parent=called.call_id)
    if host.result(inner) != "inner":
        broken("the nested call was not answered by its value")
    stream = host.call(
        "count", {"n": 3, "pause": 0}, parent=called.call_id, credit=Credit(10, 1 << 20)
    )
    host.take_items(stream, 3)
    host.end(stream)
    host.quiet("the outer call has not ended")
    host.reply(FrameType.RESULT, called.call_id, "outer")
    if (host.result(outer), host.result(waiting)) != ("outer", "later"):
        broken("the calls around the nested one were not answered by their values")


@chapter.rule("nested.depth", "nests calls several levels deep, the last one ending first")
def depth(bench: Bench) -> None:
    host = bench.ready()
    levels: list[tuple[int, HostCallSeen]] = []
    for level in range(_DEPTH):
        parent = levels[-1][1].call_id if levels else None
        call_id = _ask(host, {"level": level}, parent=parent)
        levels.append((call_id, host.host_call()))
    for level, (call_id, called) in reversed(list(enumerate(levels))):
        host.reply(FrameType.RESULT, called.call_id, level)
        if host.result(call_id) != level:
            broken(f"the call on level {level} did not get its own answer")


@chapter.rule("nested.orphan", "has a call wait like any other whose parent is not open")
def orphan(bench: Bench) -> None:
    host = bench.ready()
    first = _ask(host)
    over = host.host_call().call_id
    host.reply(FrameType.RESULT, over, None)
    host.result(first)
    running = _ask(host)
    called = host.host_call()
    late = host.call("echo", {"value": "late"}, parent=over)
    host.quiet("its parent has ended, and another call runs")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)
    if host.result(late) != "late":
        broken("the call whose parent has ended was not answered")


# --- streams of the host -------------------------------------------------------------------------


def _ask_items(host: Host, limit: int | None) -> tuple[int, HostCallSeen]:
    running = host.call("host_items", {"name": "numbers", "args": {}, "limit": limit})
    called = host.host_call()
    if called.credit is None:
        broken("a call for a stream has no credit")
    return running, called


def _send_items(host: Host, called: HostCallSeen, count: int) -> None:
    """Send items one by one as far as credit goes, and take the worker's grants."""
    assert called.credit is not None
    items, size = called.credit
    for number in range(count):
        body = encode([[number]])
        while items <= 0 or size <= 0:
            frame = host.next("CREDIT of the worker for a stream that it has consumed")
            if frame.type != FrameType.CREDIT or frame.call_id != called.call_id:
                broken(f"waited for CREDIT: {shown(frame)} came")
            granted = read_credit(frame)
            items, size = items + granted.items, size + granted.bytes
        host.data.send(encode_frame(FrameType.ITEM, called.call_id, body))
        items, size = items - 1, size - len(body)


@chapter.rule(
    "host.stream", "takes the items of a stream of the host, and grants more as it consumes them"
)
def stream(bench: Bench) -> None:
    host = bench.ready()
    running, called = _ask_items(host, None)
    _send_items(host, called, _STREAMED)
    host.reply(FrameType.END, called.call_id)
    frame = host.next("RESULT")
    while frame.type == FrameType.CREDIT:
        frame = host.next("RESULT")
    if frame.type != FrameType.RESULT or frame.call_id != running:
        broken(f"waited for RESULT: {shown(frame)} came")
    if host.body(frame, 1)[0] != list(range(_STREAMED)):
        broken("the command did not get the items that the host has sent")


@chapter.rule(
    "host.stream_error", "gives the code an error of the host's stream after the items before"
)
def stream_error(bench: Bench) -> None:
    host = bench.ready()
    running, called = _ask_items(host, None)
    host.reply(FrameType.ITEM, called.call_id, [1, 2])
    host.reply(FrameType.CANCELLED, called.call_id, False)
    check_error(host.error(running), "host_call_cancelled")
    host.echo()


@chapter.rule(
    "host.stream_overrun", "ends a stream with protocol_error that brings more than was granted"
)
def stream_overrun(bench: Bench) -> None:
    for overrun in (True, False):
        host = bench.ready()
        running, called = _ask_items(host, None)
        assert called.credit is not None
        items = list(range(called.credit.items + 1)) if overrun else []
        host.reply(FrameType.ITEM, called.call_id, items)
        frame = host.next("the end of the call")
        if frame.type == FrameType.CANCEL and frame.call_id == called.call_id:
            frame = host.next("the end of the call")
        if frame.type != FrameType.ERROR or frame.call_id != running:
            broken(f"waited for ERROR: {shown(frame)} came")
        check_error(host.body(frame, 1)[0], "protocol_error")
        host.echo()


@chapter.rule("host.stream_left", "tells the host by CANCEL that it has left a stream early")
def stream_left(bench: Bench) -> None:
    host = bench.ready()
    running, called = _ask_items(host, 2)
    host.reply(FrameType.ITEM, called.call_id, [1, 2, 3])
    frames = [host.next("CANCEL and RESULT") for _ in range(2)]
    kinds = {(frame.type, frame.call_id) for frame in frames}
    expected = {(FrameType.CANCEL, called.call_id), (FrameType.RESULT, running)}
    if kinds != expected:
        broken(f"{' and '.join(map(shown, frames))} came, not CANCEL and RESULT")
    host.reply(FrameType.ITEM, called.call_id, [4])
    host.echo()
