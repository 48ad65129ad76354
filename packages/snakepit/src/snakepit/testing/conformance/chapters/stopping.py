"""Calls that are stopped, or taken back before they start."""

from __future__ import annotations

from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.rules import Chapter, broken
from snakepit.wire.credit import Credit
from snakepit.wire.frames import FrameType
from snakepit.wire.messages import message_frame

chapter = Chapter()

_FOR_EVER = 3600.0
_MUCH = 1 << 30


def _blocked_worker(host: Host) -> tuple[int, int]:
    """A call that waits for the host: its id and that of its own call."""
    running = host.call("call_host", {"name": "f", "args": {}})
    return running, host.host_call().call_id


def _finish(host: Host, running: int, called: int) -> None:
    host.reply(FrameType.RESULT, called, "done")
    if host.result(running) != "done":
        broken("the call that ran meanwhile was disturbed")


def _not_interrupted(host: Host, call_id: int) -> None:
    if host.cancelled(call_id):
        broken("a call that did not run code was not broken off by force")


def _goes_on(host: Host) -> None:
    if not host.spent:  # one that has broken off code is replaced
        host.echo()


@chapter.rule(
    "cancel.running", "stops a call that waits, and says whether it was broken off by force"
)
def running(bench: Bench) -> None:
    host = bench.ready()
    call_id = host.call("sleep", {"seconds": _FOR_EVER})
    host.quiet("it sleeps")
    host.cancel(call_id)
    host.cancelled(call_id)
    _goes_on(host)


@chapter.rule(
    "cancel.waiting", "answers a waiting call that is cancelled by CANCELLED [false], once"
)
def waiting(bench: Bench) -> None:
    host = bench.ready()
    running, called = _blocked_worker(host)
    late = host.call("echo", {"value": "late"})
    kept = host.call("echo", {"value": "kept"})
    host.quiet("a call before has not ended")
    host.cancel(late)
    # It may say so at once, or when the turn of that call has come.
    frame = host.data.next(0.2)
    told = frame is not None
    if frame is not None and (frame.type, frame.call_id) != (FrameType.CANCELLED, late):
        broken(f"a frame of type {frame.type} for call {frame.call_id} came on CANCEL")
    _finish(host, running, called)
    if not told:
        _not_interrupted(host, late)
    if host.result(kept) != "kept":
        broken("the call behind a cancelled one was not answered")


@chapter.rule(
    "cancel.early", "remembers a CANCEL that comes before its CALL, which then never starts"
)
def early(bench: Bench) -> None:
    host = bench.ready()
    call_id = host.next_id()
    host.cancel(call_id)
    host.ping("the cancellation was read")
    host.call("call_host", {"name": "f", "args": {}}, call_id=call_id)
    _not_interrupted(host, call_id)
    host.echo()


@chapter.rule("cancel.ended", "ignores CANCEL for a call that has ended")
def ended(bench: Bench) -> None:
    host = bench.ready()
    call_id = host.call("echo", {"value": 1})
    host.result(call_id)
    host.cancel(call_id)
    host.quiet("the call has ended")
    host.echo()


@chapter.rule("cancel.blocked_stream", "stops a stream that waits for credit, without force")
def blocked_stream(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 100, "pause": 0}, Credit(2, _MUCH))
    host.take_items(stream, 2)
    host.quiet("there is no credit")
    host.cancel(stream)
    _not_interrupted(host, stream)
    host.echo()


@chapter.rule("cancel.running_stream", "stops a stream at its next item, without force")
def running_stream(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 1_000_000, "pause": 0.02}, Credit(50_000, _MUCH))
    host.items(stream)
    host.cancel(stream)
    frame = host.after_items()
    if frame.type != FrameType.CANCELLED or host.body(frame, 1)[0] is not False:
        broken(f"a frame of type {frame.type} ended the stream, not CANCELLED [false]")
    host.echo()


@chapter.rule("cancel.host_call", "stops a call that waits for the host, which it tells by CANCEL")
def host_call(bench: Bench) -> None:
    host = bench.ready()
    running, called = _blocked_worker(host)
    host.cancel(running)
    host.expect(FrameType.CANCEL, called)
    _not_interrupted(host, running)
    # It was under way: the worker drops it.
    host.reply(FrameType.RESULT, called, "too late")
    host.echo()


@chapter.rule("recall.waiting", "names in RECALLED the calls that had not started", needs="recall")
def recall_waiting(bench: Bench) -> None:
    host = bench.offering("recall")
    running, called = _blocked_worker(host)
    waiting = [host.call("echo", {"value": number}) for number in range(3)]
    host.quiet("a call before has not ended")
    recalled = _recall(host, waiting[:2])
    if sorted(recalled) != waiting[:2]:
        broken(f"of the waiting calls {waiting[:2]} it named {recalled}")
    _finish(host, running, called)
    if host.result(waiting[2]) != 2:
        broken("the call that was not called back was not answered")


@chapter.rule("recall.started", "does not name a call that runs or has ended", needs="recall")
def recall_started(bench: Bench) -> None:
    host = bench.offering("recall")
    over = host.call("echo", {"value": 1})
    host.result(over)
    running, called = _blocked_worker(host)
    if recalled := _recall(host, [over, running]):
        broken(f"it named {recalled}, which had started")
    _finish(host, running, called)


@chapter.rule(
    "recall.early", "remembers a RECALL that comes before its CALL, which it drops", needs="recall"
)
def recall_early(bench: Bench) -> None:
    host = bench.offering("recall")
    call_id = host.next_id()
    if _recall(host, [call_id]) != [call_id]:
        broken("it did not name a call that had not come")
    host.call("echo", {"value": 1}, call_id=call_id)
    host.quiet("the call was called back")
    host.echo()


@chapter.rule("recall.answered", "answers every RECALL, also one without ids", needs="recall")
def recall_answered(bench: Bench) -> None:
    host = bench.offering("recall")
    if recalled := _recall(host, []):
        broken(f"it named {recalled}, of none")


def _recall(host: Host, ids: list[int]) -> list[int]:
    host.control.send(message_frame(FrameType.RECALL, 0, ids))
    (recalled,) = host.body(host.expect(FrameType.RECALLED, 0, host.control), 1)
    if not isinstance(recalled, list) or not all(type(call_id) is int for call_id in recalled):
        broken(f"RECALLED has an array of call ids, not {recalled!r}")
    return recalled
