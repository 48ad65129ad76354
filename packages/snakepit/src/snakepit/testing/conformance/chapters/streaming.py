"""Streams of the worker, and the credit that they have."""

from __future__ import annotations

from snakepit.errors.base import Outcome
from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.chapters.calling import check_error
from snakepit.testing.conformance.rules import Chapter, broken
from snakepit.wire.credit import Credit

chapter = Chapter()

_MUCH = 1 << 30
_ITEM_BYTES = 4000
_LARGE_ITEM_BYTES = 100_000
_PAUSE = 3600.0


@chapter.rule("stream.items", "sends the items in order, then END")
def items(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 500, "pause": 0})
    if host.take_items(stream, 500) != list(range(500)):
        broken("the items are not those that were yielded, in their order")
    host.end(stream)


@chapter.rule("stream.empty", "ends a stream without items by END alone")
def empty(bench: Bench) -> None:
    host = bench.ready()
    host.end(host.stream("count", {"n": 0, "pause": 0}))


@chapter.rule("stream.prompt", "sends an item without waiting for the next one")
def prompt(bench: Bench) -> None:
    host = bench.fresh()
    host.start()
    stream = host.stream("count", {"n": 2, "pause": _PAUSE})
    if host.items(stream) != [0]:
        broken("the first item is not the one that was yielded first")


@chapter.rule(
    "stream.credit_items", "sends no more items than were granted, and goes on with more credit"
)
def credit_items(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 12, "pause": 0}, Credit(3, _MUCH))
    taken = host.take_items(stream, 3)
    host.quiet("3 items were granted")
    host.grant(stream, Credit(4, _MUCH))
    taken += host.take_items(stream, 4)
    host.quiet("4 more items were granted")
    host.grant(stream, Credit(2, _MUCH))
    host.grant(stream, Credit(3, _MUCH))
    taken += host.take_items(stream, 5)
    if taken != list(range(12)):
        broken(f"the items are {taken}")
    host.end(stream)


@chapter.rule("stream.credit_bytes", "sends nothing more once the granted bytes are used up")
def credit_bytes(bench: Bench) -> None:
    host = bench.ready()
    args = {"value": "x" * _ITEM_BYTES, "n": 6}
    stream = host.stream("repeat", args, Credit(100, 2 * _ITEM_BYTES))
    host.take_items(stream, 2)
    host.quiet(f"{2 * _ITEM_BYTES} bytes were granted")
    host.grant(stream, Credit(100, _ITEM_BYTES))
    host.take_items(stream, 1)
    host.quiet("bytes for one more item were granted")
    host.grant(stream, Credit(100, _MUCH))
    host.take_items(stream, 3)
    host.end(stream)


@chapter.rule(
    "stream.large_item", "sends an item that is larger than all its credit, and nothing after it"
)
def large_item(bench: Bench) -> None:
    host = bench.ready()
    args = {"value": "x" * _LARGE_ITEM_BYTES, "n": 2}
    stream = host.stream("repeat", args, Credit(100, 1))
    host.take_items(stream, 1)
    host.quiet("the credit is below 0")
    host.grant(stream, Credit(1, _LARGE_ITEM_BYTES // 2))
    host.quiet("the credit is still below 0")
    host.grant(stream, Credit(1, _LARGE_ITEM_BYTES))
    host.take_items(stream, 1)
    host.end(stream)


@chapter.rule("stream.end", "ends a stream without credit for its end")
def end(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 2, "pause": 0}, Credit(2, _MUCH))
    host.take_items(stream, 2)
    host.end(stream)
    stream = host.stream("fail_after", {"n": 2, "message": "x"}, Credit(2, _MUCH))
    host.take_items(stream, 2)
    check_error(host.error(stream), "remote_error", Outcome.DONE)


@chapter.rule("stream.error", "sends the items before an error, then the error")
def error(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("fail_after", {"n": 5, "message": "after five"})
    if host.take_items(stream, 5) != list(range(5)):
        broken("the items before the error are others")
    found = host.error(stream)
    check_error(found, "remote_error", Outcome.DONE)
    if "after five" not in found["message"]:
        broken(f"the message is {found['message']!r}")


@chapter.rule("stream.late_credit", "ignores CREDIT for a stream that has ended")
def late_credit(bench: Bench) -> None:
    host = bench.ready()
    stream = host.stream("count", {"n": 1, "pause": 0})
    host.take_items(stream, 1)
    host.end(stream)
    host.grant(stream, Credit(1, 1))
    host.echo()
