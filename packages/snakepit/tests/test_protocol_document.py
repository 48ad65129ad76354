"""PROTOCOL.md says what the code does: its tables are compared with the code's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snakepit.calls import nesting
from snakepit.calls.call import TRANSITIONS
from snakepit.errors import EncodeError, Outcome, base, error_text, error_to_wire
from snakepit.link.remote_events import BURST, RATE
from snakepit.telemetry import bus
from snakepit.testing.conformance import RULES
from snakepit.wire import arrays, codec, events, explain, features, frames, segments
from snakepit.wire.messages import CallRequest, call_frame, value_frame
from snakepit.wire.values import Ext
from snakepit.worker.telemetry import MOST_WAITING

DOCUMENT = (Path(__file__).parents[1] / "PROTOCOL.md").read_text()
GIB = 1 << 30
CALLER = "Life of a call, as its caller sees it"


def section(title: str) -> str:
    """The text below a heading, up to the next of any level."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", DOCUMENT, re.M | re.S)
    return str(found)


def table(title: str) -> list[list[str]]:
    """The rows of the one table in a section, without its head."""
    rows = re.findall(r"^\|(.*)\|$", section(title), re.M)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in rows[2:]]


def limits() -> dict[str, int]:
    return {name: int(limit.removesuffix("GiB")) for name, limit, _ in table("Limits")}


def test_the_callers_states_are_those_of_the_code() -> None:
    documented = [(state, event, follows) for state, event, follows, _ in table(CALLER)]
    in_code = [(key[0].value, key[1].value, to.value) for key, to in TRANSITIONS.items()]
    assert documented == in_code


def test_the_frame_types_are_those_of_the_code() -> None:
    documented = {row[1]: int(row[0]) for row in table("Frame types")}
    assert documented == {kind.name: kind.value for kind in frames.FrameType}


def test_the_elements_of_a_call_are_those_of_the_code() -> None:
    (body,) = [row[4] for row in table("Frame types") if row[1] == "CALL"]
    assert body == f"[{', '.join(CallRequest._fields)}]"


def test_the_header_is_laid_out_as_in_the_code() -> None:
    rows = [(int(offset), int(size)) for offset, size, _, _ in table("Frame")]
    ends = [offset + size for offset, size in rows]
    assert [offset for offset, _ in rows] == [0, *ends[:-1]]
    assert ends[-1] == frames.HEADER_BYTES
    data = frames.encode_frame(frames.FrameType.PONG, 0x0807060504030201, b"abc", 3)
    fields = [data[offset : offset + size] for offset, size in rows]
    assert fields == [b"\3\0\0\0", b"\x22", b"\3", b"\0\0", bytes(range(1, 9))]


def test_the_extension_types_are_those_of_the_code() -> None:
    documented = {name.replace(" ", "_"): int(code) for code, name, _ in table("Values")}
    assert documented.pop("timestamp") == -1
    assert documented == {kind.name.lower(): kind.value for kind in Ext}


def test_an_error_has_the_documented_keys_and_bounds() -> None:
    rows = table("Errors on the wire")
    assert {row[0] for row in rows} == set(error_to_wire(ValueError("bad")))
    texts = {key: text.replace(" ", "") for key, text in rows}
    assert str(error_text.MESSAGE_LIMIT) in texts["message"]
    assert str(error_text.TRACEBACK_LIMIT) in texts["traceback"]
    assert f"{base.CAUSE_LIMIT}causes" in texts["cause"]
    assert f"{base.CAUSE_LIMIT_ACCEPTED}accepted" in texts["cause"]


def test_the_limits_are_those_of_the_code() -> None:
    assert frames.MAX_BODY_BYTES == codec.MAX_PAYLOAD_BYTES == GIB
    assert segments.MAX_SEGMENT_BYTES == GIB
    assert limits() == {
        "body length, with what it has in segments": 1,
        "nesting depth of a body": explain.MAX_DEPTH,
        "arrays, maps and extensions in a body": codec.MAX_OBJECTS,
        "nesting depth of calls": nesting._MAX_CALL_DEPTH,
        "nesting depth of a structured dtype": arrays.MAX_DTYPE_DEPTH,
        "dimensions of an array": arrays.MAX_DIMENSIONS,
        "segments that a side owns": segments.MAX_SEGMENTS,
        "bytes of the segments that a side owns": 1,
        "causes of an error": base.CAUSE_LIMIT_ACCEPTED,
    }


def test_what_is_said_of_segments_is_what_the_code_does() -> None:
    text = " ".join(section("Segments").split())
    assert f"{segments.SEGMENT_THRESHOLD >> 10} KiB and more are worth a segment" in text
    assert f"a multiple of {segments.ALIGNMENT}" in text
    assert f"after {segments.IDLE_SECONDS:g} s" in text
    assert f"the feature `{features.SEGMENTS_FEATURE}`" in text


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_how_deep_results_and_arguments_may_be_nested() -> None:
    result, argument = (
        int(re.findall(pattern, section("Limits"))[0])
        for pattern in (r"a result may be nested (\d+)", r"an argument (\d+)")
    )

    def send_result(levels: int) -> bytes:
        return value_frame(frames.FrameType.RESULT, 1, nested(levels))

    def send_argument(levels: int) -> bytes:
        return call_frame(1, ("work", {"x": nested(levels)}, None, None, None, None))

    for send, deepest in ((send_result, result), (send_argument, argument)):
        (frame,) = frames.FrameDecoder().feed(send(deepest))
        codec.decode(frame.body)
        with pytest.raises(EncodeError):
            send(deepest + 1)


def test_the_versions_are_those_of_the_code() -> None:
    assert tuple(int(version) for version, _ in table("Versions")) == frames.PROTOCOL_VERSIONS


def test_what_is_said_of_events_is_what_the_code_does() -> None:
    text = " ".join(section("Events").split())
    assert f"the feature `{features.EVENTS_FEATURE}`" in text
    assert f"up to {bus.NAME_LIMIT} characters" in text
    assert f"begin with `{bus.OWN_PREFIX}`" in text
    assert f"up to {events.MOST_ENTRIES} entries, a key up to {events.KEY_LIMIT} characters" in text
    assert f"a text up to {events.TEXT_LIMIT}, an event up to {events.EVENT_BYTES} bytes" in text
    assert f"up to {events.BODY_BYTES:_} bytes".replace("_", " ") in text
    assert f"a bounded buffer ({MOST_WAITING} here)" in text
    assert f"beyond {BURST:g} events at once or {RATE:g} a second" in text


def test_the_rules_are_those_of_the_conformance_suite() -> None:
    in_suite = [[rule.rule_id, rule.text, rule.needs or ""] for rule in RULES.values()]
    assert table("Conformance") == in_suite


def test_what_may_be_left_out_is_what_rules_need() -> None:
    documented = {row[0] for row in table("What a worker may leave out")}
    assert documented == {rule.needs for rule in RULES.values()} - {None}
    assert set(features.own_features()) <= documented


def test_the_errors_of_a_worker_exist() -> None:
    for codes, outcome, _ in table("Errors that a worker sends"):
        assert outcome in set(Outcome)
        for code in re.findall(r"\w+", codes):
            assert code in base._REGISTRY
