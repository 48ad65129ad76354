"""The bodies of frames: what is written is read, and what is malformed is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import DecodeError, EncodeError, ProtocolError
from snakepit.wire.credit import MAX_CREDIT_BYTES, MAX_CREDIT_ITEMS, Credit
from snakepit.wire.frames import FLAG_NESTED, FLAG_STREAM, Frame, FrameDecoder, FrameType
from snakepit.wire.messages import (
    CallRequest,
    bare_frame,
    call_frame,
    credit_frame,
    message_frame,
    read_body,
    read_call,
    read_credit,
    read_mapping,
    read_value,
    value_frame,
)

IDS = st.integers(1, (1 << 64) - 1)
REQUESTS = st.builds(
    CallRequest,
    command=st.text(min_size=1),
    args=st.dictionaries(st.text(), st.integers() | st.text() | st.tuples(st.booleans())),
    timeout=st.none() | st.floats(allow_nan=False),
    session=st.none() | st.text(),
    parent=st.none() | IDS,
    credit=st.none()
    | st.builds(Credit, st.integers(1, MAX_CREDIT_ITEMS), st.integers(1, MAX_CREDIT_BYTES)),
    trace=st.none() | st.dictionaries(st.text(), st.text(), min_size=1),
)
PLAIN: list[Any] = ["add", {"x": 1}, None, None, None, None]


def received(data: bytes) -> Frame:
    (frame,) = FrameDecoder().feed(data)
    return frame


def call_with(body: Any, flags: int = 0) -> Frame:
    return Frame(FrameType.CALL, flags, 1, msgpack.packb(body))


def changed(index: int, value: Any) -> list[Any]:
    return [*PLAIN[:index], value, *PLAIN[index + 1 :]]


# --- calls ---------------------------------------------------------------------------------------


@given(IDS, REQUESTS)
def test_a_call_is_read_as_it_was_written(call_id: int, request: CallRequest) -> None:
    frame = received(call_frame(call_id, request[:-1], trace=request.trace))
    assert (frame.type, frame.call_id) == (FrameType.CALL, call_id)
    assert read_call(frame) == request
    assert bool(frame.flags & FLAG_STREAM) == (request.credit is not None)
    assert bool(frame.flags & FLAG_NESTED) == (request.parent is not None)


def test_elements_that_a_later_version_appended_are_ignored() -> None:
    assert read_call(call_with([*PLAIN, None, {"new": True}, 7])) == CallRequest(*PLAIN)
    assert read_body(call_with([1, 2, 3]), 2) == [1, 2]


def test_a_call_without_a_trace_has_no_element_for_it() -> None:
    frame = received(call_frame(1, CallRequest(*PLAIN)[:-1]))
    assert msgpack.unpackb(frame.body) == PLAIN


@pytest.mark.parametrize("trace", [7, "text", True, ["traceparent"], b"x"])
def test_a_trace_that_is_none_is_left_out(trace: Any) -> None:
    assert read_call(call_with([*PLAIN, trace])) == CallRequest(*PLAIN)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(call_with({"command": "add"}), id="a map"),
        pytest.param(call_with("add"), id="a text"),
        pytest.param(call_with(PLAIN[:-1]), id="one element short"),
        pytest.param(call_with([]), id="empty"),
        pytest.param(call_with(changed(0, b"add")), id="command of bytes"),
        pytest.param(call_with(changed(0, None)), id="no command"),
        pytest.param(call_with(changed(1, [1])), id="args that are no map"),
        pytest.param(call_with(changed(1, None)), id="no args"),
        pytest.param(call_with(changed(2, "soon")), id="timeout of text"),
        pytest.param(call_with(changed(2, True)), id="timeout of bool"),
        pytest.param(call_with(changed(3, 5)), id="session that is a number"),
        pytest.param(call_with(changed(4, "1"), FLAG_NESTED), id="parent of text"),
        pytest.param(call_with(changed(4, 1)), id="parent without the flag"),
        pytest.param(call_with(PLAIN, FLAG_NESTED), id="flag without a parent"),
        pytest.param(call_with(changed(5, [1, 1])), id="credit without the flag"),
        pytest.param(call_with(PLAIN, FLAG_STREAM), id="flag without credit"),
        pytest.param(call_with(changed(5, 1), FLAG_STREAM), id="credit that is a number"),
        pytest.param(call_with(changed(5, [1]), FLAG_STREAM), id="credit without bytes"),
        *(
            pytest.param(call_with(changed(5, credit), FLAG_STREAM), id=f"credit of {credit}")
            for credit in ([0, 1], [1, 0], [-1, 1], [1, 1 << 63], [True, 1], [1, True], [1.5, 1])
        ),
    ],
)
def test_a_malformed_call_is_a_protocol_error(frame: Frame) -> None:
    with pytest.raises(ProtocolError):
        read_call(frame)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(msgpack.packb(PLAIN)[:-1], id="cut"),
        pytest.param(msgpack.packb(PLAIN) + b"\xc0", id="bytes after the value"),
        pytest.param(
            msgpack.packb(changed(1, {"x": msgpack.ExtType(99, b"?")})), id="unknown extension"
        ),
        pytest.param(
            msgpack.packb(changed(1, {"x": msgpack.ExtType(3, b"not a date")})), id="bad date"
        ),
    ],
)
def test_a_value_that_can_not_be_decoded_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        read_call(Frame(FrameType.CALL, 0, 1, body))


def test_an_argument_that_can_not_travel_is_named_by_its_path() -> None:
    request = ("add", {"x": [1, object()]}, None, None, None, None)
    with pytest.raises(EncodeError) as caught:
        call_frame(1, request)
    assert caught.value.path == "args.x[1]"


# --- the others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "text", [1, 2], {"a": (1,)}, {1, 2}])
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    frame = received(value_frame(FrameType.RESULT, 7, value))
    assert (frame.type, frame.flags, frame.call_id) == (FrameType.RESULT, 0, 7)
    assert read_value(frame) == value


def test_a_result_that_can_not_travel_is_named_by_its_path() -> None:
    with pytest.raises(EncodeError) as caught:
        value_frame(FrameType.RESULT, 1, {"client": object()})
    assert caught.value.path == "result.client"


def test_a_message_of_several_elements_is_read_as_it_was_written() -> None:
    frame = received(message_frame(FrameType.HELLO, 0, [1], 4711, {"language": "python"}))
    assert read_body(frame, 3) == [[1], 4711, {"language": "python"}]


def test_a_bare_frame_has_an_empty_array_for_a_body() -> None:
    frame = received(bare_frame(FrameType.END, 9))
    assert frame == Frame(FrameType.END, 0, 9, msgpack.packb([]))
    with pytest.raises(ProtocolError, match="type 21"):
        read_value(frame)


def test_a_mapping_is_one() -> None:
    assert read_mapping(received(value_frame(FrameType.READY, 0, {"add": {}}))) == {"add": {}}
    with pytest.raises(DecodeError, match="type 3 holds no map"):
        read_mapping(received(value_frame(FrameType.READY, 0, ["add"])))


@pytest.mark.parametrize("items", [1, MAX_CREDIT_ITEMS])
@pytest.mark.parametrize("size", [1, MAX_CREDIT_BYTES])
def test_credit_is_read_as_it_was_granted(items: int, size: int) -> None:
    frame = received(credit_frame(5, Credit(items, size)))
    assert (frame.type, frame.call_id) == (FrameType.CREDIT, 5)
    assert read_credit(frame) == Credit(items, size)


@pytest.mark.parametrize(
    "body",
    [
        [16], [0, 1], [1, 0], [-1, 1], [MAX_CREDIT_ITEMS + 1, 1], [1, MAX_CREDIT_BYTES + 1],
        [1 << 63, 1], [True, 1], [1, None], ["1", 1], [1.0, 1],
    ],
)  # fmt: skip
def test_silly_credit_is_a_protocol_error(body: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read_credit(Frame(FrameType.CREDIT, 0, 5, msgpack.packb(body)))
