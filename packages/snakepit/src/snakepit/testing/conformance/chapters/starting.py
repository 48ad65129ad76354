"""How a worker begins and ends."""

from __future__ import annotations

from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.rules import Chapter, broken
from snakepit.wire.credit import Credit
from snakepit.wire.frames import FrameType
from snakepit.wire.messages import bare_frame, call_frame

chapter = Chapter()

#: The commands of a program under test, and whether each is a stream.
COMMANDS = {
    "echo": False,
    "fail": False,
    "sleep": False,
    "context": False,
    "unsendable": False,
    "call_host": False,
    "host_items": False,
    "count": True,
    "repeat": True,
    "fail_after": True,
}
_UNKNOWN_VERSION = 999


@chapter.rule("start.hello", "begins with HELLO, unasked: its versions, its process id and a map")
def hello(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    versions = host.hello.versions
    if 1 not in versions or not all(type(version) is int for version in versions):
        broken(f"the versions are integers, 1 among them, not {versions!r}")
    host.quiet("a worker waits for WELCOME")


@chapter.rule("start.ready", "answers WELCOME by READY: its commands, and which of them stream")
def ready(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    found = {
        name: about.get("stream") if isinstance(about, dict) else about
        for name, about in host.commands.items()
    }
    for name, streams in COMMANDS.items():
        if found.get(name) is not streams:
            broken(f"the command {name!r} is told as {found.get(name)!r}, not as {streams}")


@chapter.rule("start.later_version", "ignores what a later version has added to WELCOME")
def later_version(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    host.welcome("an element", {"more": 1}, later=[1, 2, 3])
    host.ready()
    host.echo()


@chapter.rule(
    "start.unknown_version", "ends without READY when WELCOME has a version it did not name"
)
def unknown_version(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    host.welcome(version=_UNKNOWN_VERSION)
    host.ends(f"version {_UNKNOWN_VERSION}")


@chapter.rule("start.failed", "says FAILED when it can't serve, and exits with code 1")
def failed(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    host.welcome(config={"fail": "no such device"})
    (error,) = host.body(host.expect(FrameType.FAILED, 0), 1)
    if not isinstance(error, dict) or "no such device" not in str(error.get("message")):
        broken(f"FAILED has the error with its message, not {error!r}")
    code = host.exits("FAILED")
    if code != 1:
        broken(f"it exits with {code} after FAILED, not with 1")


@chapter.rule("end.shutdown", "exits with code 0 on SHUTDOWN")
def shutdown(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.data.send(bare_frame(FrameType.SHUTDOWN))
    _exits_in_order(host)


@chapter.rule("end.shutdown_waits", "answers on SHUTDOWN what it was sent before, then exits")
def shutdown_waits(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    running = host.call("call_host", {"name": "f", "args": {}})
    called = host.host_call()
    waiting = host.call("echo", {"value": "last"})
    host.data.send(bare_frame(FrameType.SHUTDOWN))
    host.quiet("a call is outstanding")
    host.reply(FrameType.RESULT, called.call_id, "answer")
    for call_id, expected in ((running, "answer"), (waiting, "last")):
        if (found := host.result(call_id)) != expected:
            broken(f"it answered {found!r} after SHUTDOWN, not {expected!r}")
    _exits_in_order(host)


def _exits_in_order(host: Host) -> None:
    code = host.exits("SHUTDOWN")
    if code != 0:
        broken(f"it exits with {code} after SHUTDOWN, not with 0")


@chapter.rule("end.before_welcome", "ends when the host is gone before WELCOME")
def before_welcome(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    host.data.close()
    host.control.close()
    host.exits("the end of its channels")


@chapter.rule("end.data_closed", "ends when its data channel ends")
def data_closed(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.data.close()
    host.exits("the end of its data channel")


@chapter.rule("end.half_closed", "ends when the host says on data that it will send no more")
def half_closed(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.data.end_writing()
    host.exits("the half close of its data channel")


@chapter.rule("end.control_closed", "ends when its control channel ends")
def control_closed(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    host.control.close()
    host.exits("the end of its control channel")


@chapter.rule("end.half_frame", "ends when its data channel ends in the middle of a frame")
def half_frame(bench: Bench) -> None:
    for cut in (7, 20):
        host = bench.fresh()
        host.start()
        frame = call_frame(host.next_id(), ("echo", {"value": 1}, None, None, None, None))
        host.data.send(frame[:cut])
        host.data.close()
        host.exits(f"{cut} bytes of a frame")


@chapter.rule("end.busy", "ends when its channels end while calls run, streams and host calls too")
def busy(bench: Bench) -> None:
    for begin in (_sleeping, _blocked, _asking):
        host = bench.fresh()
        host.start()
        begin(host)
        host.data.close()
        host.control.close()
        host.exits("the end of its channels during a call")


def _sleeping(host: Host) -> None:
    host.call("sleep", {"seconds": 3600})
    host.quiet("it sleeps")


def _blocked(host: Host) -> None:
    stream = host.stream("count", {"n": 100, "pause": 0}, Credit(1, 1 << 20))
    host.items(stream)


def _asking(host: Host) -> None:
    host.call("call_host", {"name": "f", "args": {}})
    host.host_call()
