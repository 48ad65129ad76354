"""Whatever the bytes, decoding ends in a value or a DecodeError, taking no memory for claims."""

from __future__ import annotations

import contextlib
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.errors import DecodeError, WorkerLost
from snakepit.wire.codec import decode, encode
from snakepit.wire.values import Ext, Mark

RICH = encode(
    {
        "numbers": [2**80, -(2**80), 1.5, 1 + 2j, Decimal("1.5")],
        ("a", frozenset({1})): {1, 2},
        "times": [datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), datetime.now(UTC)],
        "rest": [UUID(int=1), Path("/x"), np.arange(4), np.zeros(2, [("a", "i4"), ("b", "U2")])],
        "error": WorkerLost("gone", details={"pid": 1}),
    }
)


def decodes_or_refuses(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert not holds_mark(decode(data))


def holds_mark(value: Any) -> bool:
    if isinstance(value, dict):
        return any(holds_mark(key) or holds_mark(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(holds_mark, value))
    return isinstance(value, Mark)


@settings(max_examples=300)
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    decodes_or_refuses(data)


EDIT = st.tuples(
    st.integers(0, len(RICH)), st.integers(0, 4), st.binary(max_size=4)
)  # where, how many bytes go, what comes


@settings(max_examples=500)
@given(st.lists(EDIT, min_size=1, max_size=4))
def test_damaged_encodings(edits: list[tuple[int, int, bytes]]) -> None:
    data = RICH
    for where, out, new in edits:
        data = data[:where] + new + data[where + out :]
    decodes_or_refuses(data)


@given(st.integers(0, len(RICH) - 1))
def test_cut_encodings_are_refused(end: int) -> None:
    with pytest.raises(DecodeError):
        decode(RICH[:end])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=500)
@given(st.sampled_from(list(Ext)), st.binary(max_size=40) | PLAIN.map(msgpack.packb))
def test_any_payload_of_any_extension(code: Ext, payload: bytes) -> None:
    extension = msgpack.ExtType(code.value, payload)
    decodes_or_refuses(msgpack.packb(extension))
    decodes_or_refuses(msgpack.packb({extension: 1}))


@given(st.sampled_from([Ext.TUPLE, Ext.SET, Ext.FROZENSET, Ext.EXCEPTION]), PLAIN)
def test_any_content_of_any_mark(code: Ext, content: Any) -> None:
    decodes_or_refuses(msgpack.packb({msgpack.ExtType(code.value, b""): content}))


NUMBER = st.integers(-2, 5) | st.sampled_from([2**31, 2**62, 2**63]) | st.none()
NAMES = st.sampled_from(["a", "b", "", None, ["t", "n"], [], 3])
TYPES = st.sampled_from(
    ["<f8", ">i4", "|b1", "<U2", "|S0", "|V8", "<M8[ns]", "<M8[?]", "<f3", "O", "|O8", "f8,f4",
     "object", "<U99999999999", "<c16", "<c999"]
)  # fmt: skip
DTYPES = st.recursive(
    TYPES | PLAIN,
    lambda inner: st.lists(
        st.tuples(NAMES, inner).map(list)
        | st.tuples(NAMES, inner, st.lists(NUMBER, max_size=3)).map(list),
        max_size=3,
    ),
    max_leaves=5,
)


@settings(max_examples=500)
@given(DTYPES, st.lists(NUMBER, max_size=3) | PLAIN, st.sampled_from(["C", "F", "A", None]),
       st.binary(max_size=48), st.integers(-3, 20))  # fmt: skip
def test_any_head_of_an_array(
    dtype: Any, shape: Any, order: Any, elements: bytes, wrong_length: int
) -> None:
    head = msgpack.packb([dtype, shape, order])
    length = max(0, len(head) + (wrong_length if wrong_length < 0 else 0))
    payload = length.to_bytes(4, "little") + head + bytes(-(4 + len(head)) % 16) + elements
    decodes_or_refuses(msgpack.packb(msgpack.ExtType(Ext.ARRAY.value, payload)))


def extension(code: int, payload: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, payload))
    return packed


def array(dtype: Any, shape: Any, order: Any = "C", elements: bytes = b"") -> bytes:
    head = msgpack.packb([dtype, shape, order])
    padding = bytes(-(4 + len(head)) % 16)
    return extension(10, len(head).to_bytes(4, "little") + head + padding + elements)


def deep_dtype(levels: int) -> Any:
    dtype: Any = "<i4"
    for _ in range(levels):
        dtype = [["a", dtype]]
    return dtype


MARK_TUPLE, MARK_SET = b"\xc7\x00\x20", b"\xc7\x00\x21"
MALFORMED = {
    "nothing": b"",
    "a reserved byte": b"\xc1",
    "two values": b"\x01\x01",
    "invalid text": b"\xa1\xff",
    "a list as a key": b"\x81\x90\x01",
    "a dict as a key": b"\x81\x80\x01",
    "an equal key": b"\x82\x01\x01\x01\x02",
    "keys equal across types": b"\x82\x01\x01\xc3\x02",
    "an equal element of a set": b"\x81" + MARK_SET + b"\x92\x01\x01",
    "a set of a list": b"\x81" + MARK_SET + b"\x91\x90",
    "a tuple of a map": b"\x81" + MARK_TUPLE + b"\x80",
    "a mark alone": MARK_TUPLE,
    "a mark in a list": b"\x91" + MARK_TUPLE,
    "a mark as a value": b"\x81\x01" + MARK_TUPLE,
    "a mark beside a key": b"\x82" + MARK_TUPLE + b"\x90\x01\x02",
    "a mark as its own content": b"\x81" + MARK_TUPLE + MARK_TUPLE,
    "a mark with a payload": b"\x81\xd4\x20\x00\x90",
    "an unknown extension": b"\xd4\x7f\x00",
    "a negative extension": b"\xd4\x80\x00",
    "an exception of no map": b"\x81\xc7\x00\x23\x90",
    "an exception of an empty map": b"\x81\xc7\x00\x23\x80",
    "an empty integer": extension(1, b""),
    "a datetime with the offset in the text": extension(
        2, msgpack.packb(["2024-01-01T00:00:00+01:00", None, None, 0])
    ),
    "a datetime of a day that is not": extension(2, msgpack.packb(["2023-02-29", None, None, 0])),
    "a datetime with an endless offset": extension(
        2, msgpack.packb(["2024-01-01", 2**62, None, 0])
    ),
    "a datetime with a third fold": extension(2, msgpack.packb(["2024-01-01", None, None, 2])),
    "a datetime with a fold of true": extension(2, msgpack.packb(["2024-01-01", None, None, True])),
    "a datetime of three parts": extension(2, msgpack.packb(["2024-01-01", None, None])),
    "a datetime of a map": extension(2, msgpack.packb({})),
    "a date": extension(3, b"tomorrow"),
    "a time": extension(4, b"\x90"),
    "a timedelta of text": extension(5, msgpack.packb(["1", 2, 3])),
    "a timedelta out of range": extension(5, msgpack.packb([2**40, 0, 0])),
    "a decimal": extension(6, b"1.2.3"),
    "a short UUID": extension(7, b"\x00" * 15),
    "a short complex": extension(9, b"\x00" * 15),
    "an array without a head": extension(10, b"\x00\x00"),
    "an array of objects": array("|O", [1], elements=b"\x00" * 8),
    "an array of objects in fields": array([["a", "|O"]], [1], elements=b"\x00" * 8),
    "an array of a class": array("__main__.Thing", [1]),
    "an array larger than its elements": array("<f8", [2**40], elements=b"\x00" * 8),
    "an array smaller than its elements": array("<f8", [1], elements=b"\x00" * 16),
    "an array of a negative shape": array("<f8", [-1, -1], elements=b"\x00" * 8),
    "an array of true shape": array("<f8", [True], elements=b"\x00" * 8),
    "an array of nothing at all": array("|S0", [2**40]),
    "an array of 65 dimensions": array("<f8", [1] * 65, elements=b"\x00" * 8),
    "an array in another order": array("<f8", [1], "A", b"\x00" * 8),
    "an array of an empty dtype": array([], [1]),
    "an array of a deep dtype": array(deep_dtype(400), [1], elements=b"\x00" * 4),
    "a timestamp of one byte": b"\xd4\xff\x00",
    "a timestamp out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
}  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED.values(), ids=list(MALFORMED))
def test_malformed_values_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",  # array
        b"\xdf\xff\xff\xff\xff",  # map
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xdb\xff\xff\xff\xff",  # text
        b"\xc9\xff\xff\xff\xff\x01",  # extension
        array("<f8", [2**33, 2**20]),
        b"\x91" * 1000 + b"\xdd\x7f\xff\xff\xff",
    ],
    ids=["array", "map", "bytes", "text", "extension", "numpy", "nested"],
)
def test_a_claimed_length_takes_no_memory(claim: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(claim)  # imports numpy, if it must
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(claim)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.parametrize(
    "data",
    [memoryview(RICH)[::2], np.zeros((2, 2)).data, memoryview(b""), "text", None],
    ids=["gaps", "numbers", "empty", "text", "None"],
)
def test_what_is_no_contiguous_buffer_of_bytes_is_refused(data: Any) -> None:
    with pytest.raises(DecodeError):
        decode(data)
