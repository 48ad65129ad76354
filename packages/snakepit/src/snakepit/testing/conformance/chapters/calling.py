"""Calls and their errors, and the signs of life."""

from __future__ import annotations

from typing import Any

from snakepit.errors.base import CAUSE_LIMIT_ACCEPTED, Outcome
from snakepit.errors.error_text import MESSAGE_LIMIT, TRACEBACK_LIMIT
from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.rules import Chapter, NotOffered, broken
from snakepit.wire.frames import FrameType

chapter = Chapter()

_KEYS: dict[str, tuple[type, ...]] = {
    "code": (str,),
    "type": (str,),
    "message": (str,),
    "outcome": (str,),
    "retryable": (bool,),
    "details": (dict,),
    "traceback": (str, type(None)),
    "cause": (dict, type(None)),
}
# A note of what was left out may take its place.
_NOTE = 100


def check_error(error: dict[str, Any], code: str, outcome: Outcome | None = None) -> None:
    """An error map has all its keys, this code and, if given, this outcome.

    Raises:
        Broken: it has not.
    """
    for key, types in _KEYS.items():
        if key not in error or type(error[key]) not in types:
            broken(f"an error's {key} is {error.get(key, 'missing')!r}")
    if error["outcome"] not in set(Outcome):
        broken(f"there is no outcome {error['outcome']!r}")
    if error["code"] != code:
        broken(f"the error has the code {error['code']!r}, not {code!r}: {error['message']}")
    if outcome is not None and error["outcome"] != outcome:
        broken(f"the error has the outcome {error['outcome']!r}, not {outcome.value!r}")


@chapter.rule("call.result", "answers a call by one RESULT, and the next one as well")
def result(bench: Bench) -> None:
    host = bench.ready()
    for value in (None, True, 7, "text", [1, {"a": [2]}], b"\x00\xff"):
        host.echo(value)


@chapter.rule("call.order", "with concurrency 1, answers calls in the order of their ids")
def order(bench: Bench) -> None:
    host = bench.ready()
    running = host.call("call_host", {"name": "f", "args": {}})
    called = host.host_call()
    waiting = [host.call("echo", {"value": number}) for number in range(5)]
    host.quiet("the call before has not ended")
    host.reply(FrameType.RESULT, called.call_id, None)
    host.result(running)
    for number, call_id in enumerate(waiting):
        if host.result(call_id) != number:
            broken(f"call {call_id} was not answered by its own value")


@chapter.rule("call.together", "with concurrency N, runs N calls side by side", needs="concurrency")
def together(bench: Bench) -> None:
    host = bench.fresh()
    host.greet()
    host.welcome(concurrency=3)
    frame = host.next("READY")
    if frame.type == FrameType.FAILED:
        raise NotOffered("it does not serve several calls at a time, and says so by FAILED")
    if frame.type != FrameType.READY:
        broken(f"waited for READY: a frame of type {frame.type} came")
    waiting = [host.call("call_host", {"name": "f", "args": {"number": n}}) for n in range(2)]
    asked = [host.host_call() for _ in waiting]
    host.echo()
    for called in reversed(asked):
        host.reply(FrameType.RESULT, called.call_id, called.args["number"])
        call_id = waiting[called.args["number"]]
        if called.parent != call_id or host.result(call_id) != called.args["number"]:
            broken("two calls that ran side by side were mixed up")


@chapter.rule("call.session", "tells the code the session of its call")
def session(bench: Bench) -> None:
    host = bench.ready()
    for name in ("session_1", None):
        found = host.result(host.call("context", session=name)).get("session")
        if found != name:
            broken(f"the command sees the session {found!r}, not {name!r}")


@chapter.rule(
    "call.remaining", "tells the code the seconds that remain, also none, or that there is no end"
)
def remaining(bench: Bench) -> None:
    host = bench.ready()
    for timeout in (30, 2.5):
        found = host.result(host.call("context", timeout=timeout)).get("remaining")
        if type(found) not in (int, float) or not 0 < found <= timeout:
            broken(f"the command sees {found!r} seconds, of {timeout}")
    late = host.result(host.call("context", timeout=-0.5)).get("remaining")
    if type(late) not in (int, float) or late > 0:
        broken(f"the command sees {late!r} seconds when time has run out")
    if (found := host.result(host.call("context")).get("remaining")) is not None:
        broken(f"the command sees {found!r} seconds of a call without a deadline")


@chapter.rule(
    "call.unknown_command", "answers an unknown command with unknown_command, outcome none"
)
def unknown_command(bench: Bench) -> None:
    host = bench.ready()
    for name in ("no_such_command", "__init__", "constructor", "toString", ""):
        check_error(host.error(host.call(name)), "unknown_command", Outcome.NONE)
    host.echo()


@chapter.rule("call.stream_mismatch", "refuses a stream of a command that is none, and the reverse")
def stream_mismatch(bench: Bench) -> None:
    host = bench.ready()
    for call_id in (
        host.stream("echo", {"value": 1}),
        host.call("count", {"n": 1, "pause": 0}),
    ):
        check_error(host.error(call_id), "streaming_not_supported", Outcome.NONE)
    host.echo()


@chapter.rule("error.raised", "answers what a command raises with remote_error, outcome done")
def raised(bench: Bench) -> None:
    host = bench.ready()
    error = host.error(host.call("fail", {"message": "Fehler: ü"}))
    check_error(error, "remote_error", Outcome.DONE)
    if "Fehler: ü" not in error["message"]:
        broken(f"the message is {error['message']!r}")
    for key in ("remote_type", "builtin"):
        if key not in error["details"]:
            broken(f"the details of a remote_error have {key}, these have not: {error['details']}")
    host.echo()


@chapter.rule("error.bounded", "cuts the message and the traceback of an error")
def bounded(bench: Bench) -> None:
    host = bench.ready()
    error = host.error(host.call("fail", {"message": "x" * (4 * MESSAGE_LIMIT)}))
    check_error(error, "remote_error")
    for key, limit in (("message", MESSAGE_LIMIT), ("traceback", TRACEBACK_LIMIT)):
        if len(error[key] or "") > limit + _NOTE:
            broken(f"the {key} has {len(error[key])} characters, more than {limit}")
    if len(error["message"]) < MESSAGE_LIMIT // 2:
        broken(f"only {len(error['message'])} characters of the message are left")


@chapter.rule(
    "error.unsendable", "answers a result that can't travel with encode_error, outcome done"
)
def unsendable(bench: Bench) -> None:
    host = bench.ready()
    check_error(host.error(host.call("unsendable")), "encode_error", Outcome.DONE)
    host.echo()


def _chain(length: int) -> dict[str, Any]:
    wire: dict[str, Any] | None = None
    for number in range(length):
        wire = error_map("remote_error", f"error {number}", cause=wire)
    assert wire is not None
    return wire


def error_map(
    code: str, message: str, *, outcome: str = "none", cause: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An error as the host sends it."""
    return {
        "code": code, "type": "Error", "message": message, "outcome": outcome, "retryable": True,
        "details": {"number": 7}, "traceback": None, "cause": cause,
    }  # fmt: skip


def _fail_in_host(host: Host, error: Any) -> dict[str, Any]:
    call_id = host.call("call_host", {"name": "f", "args": {}})
    host.reply(FrameType.ERROR, host.host_call().call_id, error)
    return host.error(call_id)


@chapter.rule(
    "error.passed_on", "passes an error of a host function on by its code, with outcome done"
)
def passed_on(bench: Bench) -> None:
    host = bench.ready()
    error = _fail_in_host(host, error_map("pool_saturated", "too much"))
    check_error(error, "pool_saturated", Outcome.DONE)
    if error["retryable"]:
        broken("an error of an inner call does not make the outer one retryable")
    if "too much" not in error["message"]:
        broken(f"the message is {error['message']!r}")
    # A worker that does not know a code may keep it, or treat the error as a remote_error.
    unknown = _fail_in_host(host, error_map("a_code_of_a_later_version", "too much"))
    if unknown.get("code") != "a_code_of_a_later_version":
        check_error(unknown, "remote_error", Outcome.DONE)
    host.echo()


@chapter.rule(
    "error.causes", "accepts 32 causes of an error, sends 8, and refuses an error with more"
)
def causes(bench: Bench) -> None:
    host = bench.ready()
    error: dict[str, Any] | None = _fail_in_host(host, _chain(CAUSE_LIMIT_ACCEPTED + 1))
    check_error(error or {}, "remote_error")
    count = -1
    while error is not None:
        error, count = error.get("cause"), count + 1
    if not 1 <= count <= 8:
        broken(f"the error came back with {count} causes")
    check_error(_fail_in_host(host, _chain(CAUSE_LIMIT_ACCEPTED + 2)), "protocol_error")
    host.echo()


@chapter.rule(
    "error.malformed", "reads as protocol_error an error of the host that lacks something"
)
def malformed_error(bench: Bench) -> None:
    host = bench.ready()
    good = error_map("remote_error", "x")
    for bad in ({}, good | {"outcome": "perhaps"}, good | {"details": None}):
        check_error(_fail_in_host(host, bad), "protocol_error")
    host.echo()


@chapter.rule("ping.token", "answers PING with PONG and the same token, whatever it is")
def token(bench: Bench) -> None:
    host = bench.ready()
    for sent in (13, "text", None, {"a": [1, 2.5]}, b"\x00"):
        if (found := host.ping(sent)) != sent:
            broken(f"the token {sent!r} came back as {found!r}")


@chapter.rule("ping.busy", "answers PING while a call waits: for time to pass, the host, or credit")
def ping_busy(bench: Bench) -> None:
    host = bench.ready()
    sleeping = host.call("sleep", {"seconds": 0.05})
    host.ping("asleep")
    host.result(sleeping)
    asking = host.call("call_host", {"name": "f", "args": {}})
    called = host.host_call()
    host.ping("asking")
    host.reply(FrameType.RESULT, called.call_id, 1)
    host.result(asking)
