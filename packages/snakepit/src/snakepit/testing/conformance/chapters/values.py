"""Values: what a worker is given it can give back, whatever its language makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.chapters.framing import echo_body
from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.rules import Chapter, Check, broken
from snakepit.testing.conformance.sameness import is_same
from snakepit.testing.golden import GOLDEN_VECTORS
from snakepit.wire.explain import MAX_DEPTH
from snakepit.wire.frames import FrameType

chapter = Chapter()

#: How the names of golden vectors begin that a rule is about; the longest beginning counts.
KINDS: Final = {
    "value.plain": ("nil", "true", "false", "text", "bytes", "list", "map"),
    "value.integer": ("int",),
    "value.float": ("float",),
    "value.big_int": ("big int",),
    "value.tuple": ("tuple",),
    "value.set": ("set", "frozenset"),
    "value.datetime": ("datetime", "timestamp"),
    "value.date": ("date",),
    "value.time": ("time",),
    "value.timedelta": ("timedelta",),
    "value.decimal": ("decimal",),
    "value.uuid": ("uuid",),
    "value.path": ("path",),
    "value.complex": ("complex",),
    "value.array": ("array",),
    "value.array_scalar": ("array scalar",),
    "value.exception": ("exception",),
}
# The body's own array, and the map of the arguments.
_AROUND_AN_ARGUMENT = 2
_RESULT_HEAD = b"\x91"


def vectors_of(rule_id: str) -> list[dict[str, Any]]:
    """The golden vectors that a rule is about."""
    return [vector for vector in _golden("vectors") if rule_of(vector["name"]) == rule_id]


def rule_of(name: str) -> str:
    """The rule that a golden vector belongs to."""
    starts = ((start, rule_id) for rule_id, starts in KINDS.items() for start in starts)
    fitting = [(len(start), rule_id) for start, rule_id in starts if name.startswith(start)]
    return max(fitting)[1]


def _golden(section: str) -> Iterator[dict[str, Any]]:
    yield from json.loads((GOLDEN_VECTORS / "values.json").read_text())[section]


def _hands_back(rule_id: str) -> Check:
    def check(bench: Bench) -> None:
        host = bench.ready()
        for vector in vectors_of(rule_id):
            _echoes(host, bytes.fromhex(vector["hex"]), vector["name"])

    return check


def _echoes(host: Host, value: bytes, name: str) -> None:
    call_id = host.raw_call(echo_body(value))
    frame = host.expect(FrameType.RESULT, call_id)
    if not frame.body.startswith(_RESULT_HEAD):
        broken(f"the body of RESULT for {name!r} is no array of one element")
    found = frame.body[len(_RESULT_HEAD) :]
    try:
        same = is_same(value, found)
    except ValueError as error:
        broken(f"{name!r} came back as no valid value: {error}")
    if not same:
        broken(f"{name!r} was sent as {value.hex()[:200]} and came back as {found.hex()[:200]}")


for _rule_id in KINDS:
    _kind = _rule_id.removeprefix("value.").replace("_", " ")
    chapter.rule(_rule_id, f"hands back what it was given: {_kind}")(_hands_back(_rule_id))


@chapter.rule("value.refused", "refuses with decode_error what is no valid value")
def refused(bench: Bench) -> None:
    host = bench.ready()
    for vector in _golden("refused"):
        call_id = host.raw_call(echo_body(bytes.fromhex(vector["hex"])))
        frame = host.next("ERROR")
        if frame.type != FrameType.ERROR or frame.call_id != call_id:
            broken(f"it accepts {vector['name']!r}")
        code = host.body(frame, 1)[0].get("code")
        # Bytes after the value, or too few, break the body's own shape.
        if code not in ("decode_error", "protocol_error"):
            broken(f"{vector['name']!r} is answered with {code!r}")
    host.echo()


@chapter.rule("value.depth", "takes values nested as deeply as allowed, and refuses one level more")
def depth(bench: Bench) -> None:
    host = bench.ready()
    deepest = MAX_DEPTH - _AROUND_AN_ARGUMENT
    value = host.result(host.raw_call(echo_body(b"\x91" * deepest + b"\x01")))
    for level in range(deepest):
        if not isinstance(value, list) or len(value) != 1:
            broken(f"an array nested {deepest} levels deep came back with {level} levels")
        (value,) = value
    error = host.error(host.raw_call(echo_body(b"\x91" * (deepest + 1) + b"\x01")))
    if error.get("code") != "decode_error":
        broken(f"one level more is answered with {error.get('code')!r}")
    host.echo()


@chapter.rule("value.count", "refuses a count of items that the body has no bytes for")
def count(bench: Bench) -> None:
    host = bench.ready()
    for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"):
        error = host.error(host.raw_call(echo_body(head)))
        if error.get("code") != "decode_error":
            broken(f"it is answered with {error.get('code')!r}")
    host.echo()
