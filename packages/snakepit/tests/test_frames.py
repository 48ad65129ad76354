"""Frames: the golden vectors, every way to cut a byte stream, and headers that lie."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import PayloadTooLarge, ProtocolError, SnakepitError
from snakepit.testing.golden import GOLDEN_VECTORS
from snakepit.wire.codec import decode, encode
from snakepit.wire.frames import (
    FLAG_NESTED,
    FLAG_SEGMENTS,
    FLAG_STREAM,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    Frame,
    FrameDecoder,
    FrameType,
    encode_frame,
)

GOLDEN = json.loads((GOLDEN_VECTORS / "frames.json").read_text())
BUFFER = len(FrameDecoder().space)

FRAMES = st.builds(
    Frame,
    st.sampled_from([int(kind) for kind in FrameType]),
    st.integers(0, FLAG_STREAM | FLAG_NESTED | FLAG_SEGMENTS),
    st.integers(0, (1 << 64) - 1),
    st.binary(max_size=40),
)


def bytes_of(frame: Frame) -> bytes:
    return encode_frame(frame.type, frame.call_id, frame.body, frame.flags)


def described(vector: dict[str, Any]) -> Frame:
    flags = sum(GOLDEN["flags"][name] for name in vector["flags"])
    body = encode(vector["body"])
    return Frame(GOLDEN["types"][vector["type"]], flags, int(vector["call_id"]), body)


def header(length: int = 0, kind: int = FrameType.CALL, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("<IBBHQ", length, kind, flags, reserved, 1)


def fed(decoder: FrameDecoder, chunks: Iterable[bytes]) -> list[Frame]:
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


# --- golden vectors ------------------------------------------------------------------------------


def test_the_golden_file_has_every_type_flag_and_the_limit() -> None:
    assert GOLDEN["types"] == {kind.name: kind.value for kind in FrameType}
    named = {"STREAM": FLAG_STREAM, "NESTED": FLAG_NESTED, "SEGMENTS": FLAG_SEGMENTS}
    assert GOLDEN["flags"] == named
    assert GOLDEN["max_body_bytes"] == MAX_BODY_BYTES
    assert {vector["type"] for vector in GOLDEN["frames"]} == set(GOLDEN["types"])
    flags = {tuple(vector["flags"]) for vector in GOLDEN["frames"]}
    assert flags == {(), ("STREAM",), ("NESTED",), ("STREAM", "NESTED"), ("SEGMENTS",)}


@pytest.mark.parametrize("vector", GOLDEN["frames"], ids=lambda vector: vector["name"])
def test_golden_frames(vector: dict[str, Any]) -> None:
    data, frame = bytes.fromhex(vector["hex"]), described(vector)
    assert bytes_of(frame) == data
    assert decode(frame.body) == vector["body"]
    assert FrameDecoder().feed(data) == [frame]


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda vector: vector["name"])
def test_golden_refusals_need_no_more_than_the_header(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    assert len(data) == HEADER_BYTES
    decoder = FrameDecoder()
    assert decoder.feed(data[:-1]) == []
    with pytest.raises(SnakepitError) as caught:
        decoder.feed(data[-1:])
    assert caught.value.code == vector["error"]


# --- cutting the stream --------------------------------------------------------------------------


@pytest.mark.parametrize("vector", GOLDEN["frames"], ids=lambda vector: vector["name"])
def test_a_frame_that_comes_byte_by_byte_is_complete_with_its_last(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    decoder = FrameDecoder()
    for count, byte in enumerate(data[:-1], start=1):
        assert decoder.feed(bytes([byte])) == []
        assert decoder.pending_bytes == count
    assert decoder.feed(data[-1:]) == [described(vector)]
    assert decoder.pending_bytes == 0


def test_bytes_after_a_frame_are_kept_for_the_next() -> None:
    first, second = Frame(17, 0, 1, b"first"), Frame(17, 0, 3, b"second")
    decoder = FrameDecoder()
    assert decoder.feed(bytes_of(first) + bytes_of(second)[:5]) == [first]
    assert decoder.pending_bytes == 5
    assert decoder.feed(bytes_of(second)[5:]) == [second]
    assert decoder.pending_bytes == 0


@given(st.data())
def test_any_split_of_any_frames_gives_the_same_frames(data: st.DataObject) -> None:
    frames = data.draw(st.lists(FRAMES, max_size=6))
    stream = b"".join(map(bytes_of, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    decoder = FrameDecoder()
    assert fed(decoder, chunks) == frames
    assert decoder.pending_bytes == 0


@given(st.lists(FRAMES, min_size=1, max_size=4), st.data())
def test_pending_bytes_are_those_after_the_last_whole_frame(
    frames: list[Frame], data: st.DataObject
) -> None:
    whole = b"".join(map(bytes_of, frames[:-1]))
    last = bytes_of(frames[-1])
    part = data.draw(st.integers(0, len(last) - 1))
    decoder = FrameDecoder()
    assert decoder.feed(whole + last[:part]) == frames[:-1]
    assert decoder.pending_bytes == part


def test_a_body_is_a_copy_that_later_reads_do_not_change() -> None:
    decoder = FrameDecoder()
    (first,) = decoder.feed(bytes_of(Frame(17, 0, 1, b"aaaa")))
    decoder.feed(bytes_of(Frame(17, 0, 3, b"bbbb")))
    assert first.body == b"aaaa"


# --- the buffer ----------------------------------------------------------------------------------


def test_the_buffer_grows_for_a_large_frame_and_shrinks_after_it() -> None:
    large = Frame(FrameType.RESULT, 0, 1, bytes(range(256)) * 2048)
    data = bytes_of(large)
    decoder = FrameDecoder()
    assert decoder.feed(data[:-1]) == []
    assert len(decoder.space) >= 1
    assert decoder.pending_bytes + len(decoder.space) > len(data)
    assert decoder.feed(data[-1:]) == [large]
    assert len(decoder.space) == BUFFER


def test_a_frame_that_just_fills_the_buffer_leaves_room_to_read() -> None:
    frame = Frame(FrameType.RESULT, 0, 1, b"x" * (BUFFER - HEADER_BYTES))
    data = bytes_of(frame)
    assert len(data) == BUFFER
    decoder = FrameDecoder()
    assert decoder.feed(data) == [frame]
    decoder.feed(data[:-1])
    assert len(decoder.space) == 1
    one_more = bytes_of(Frame(FrameType.RESULT, 0, 1, b"x" * (BUFFER - HEADER_BYTES + 1)))
    larger = FrameDecoder()
    assert larger.feed(one_more[:BUFFER]) == []
    assert len(larger.space) > 0
    assert [len(found.body) for found in larger.feed(one_more[BUFFER:])] == [
        BUFFER - HEADER_BYTES + 1
    ]


def test_an_announced_length_takes_no_memory_before_its_bytes_are_there() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        decoder.feed(header(length=MAX_BODY_BYTES) + b"some")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.pending_bytes == HEADER_BYTES + 4
    assert peak < BUFFER


# --- refusals ------------------------------------------------------------------------------------


def test_a_receiver_may_have_a_smaller_limit() -> None:
    decoder = FrameDecoder(max_body_bytes=8)
    assert [frame.body for frame in decoder.feed(bytes_of(Frame(17, 0, 1, b"12345678")))] == [
        b"12345678"
    ]
    with pytest.raises(PayloadTooLarge) as caught:
        decoder.feed(header(length=9))
    assert caught.value.details == {"size": 9, "limit": 8}


def test_a_body_over_the_limit_is_refused_by_its_sender() -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return MAX_BODY_BYTES + 1

    with pytest.raises(PayloadTooLarge, match="in pieces"):
        encode_frame(FrameType.RESULT, 1, Endless())


HEADERS = [
    *((kind, 0, 0) for kind in range(256)),
    *((int(FrameType.CALL), flags, 0) for flags in range(256)),
    *((int(FrameType.CALL), 0, 1 << bit) for bit in range(16)),
]


def test_unknown_types_flags_and_reserved_bits_are_refused_and_no_others() -> None:
    accepted = set()
    for kind, flags, reserved in HEADERS:
        with contextlib.suppress(ProtocolError):
            assert FrameDecoder().feed(header(0, kind, flags, reserved)) == [
                Frame(kind, flags, 1, b"")
            ]
            accepted.add((kind, flags))
    known = {(int(kind), 0) for kind in FrameType}
    assert accepted == known | {(int(FrameType.CALL), flags) for flags in range(1, 8)}


def test_a_refusal_names_what_was_sent() -> None:
    with pytest.raises(ProtocolError, match="type 200 with flags 0x3 and reserved 0x100"):
        FrameDecoder().feed(header(0, 200, 3, 0x100))
