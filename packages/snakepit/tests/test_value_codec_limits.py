"""What the codec refuses, its limits, and the paths in its errors."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import numpy as np
import pytest

from snakepit.errors import (
    DecodeError,
    EncodeError,
    PayloadTooLarge,
)
from snakepit.wire import codec
from snakepit.wire.codec import decode, decode_fields, encode, encode_fields
from snakepit.wire.explain import MAX_DEPTH
from snakepit.wire.values import Ext


class Client:
    pass


@dataclasses.dataclass
class Holder:
    client: Any


class Fine(datetime):
    nanosecond = 5


def nested(levels: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def cyclic_holder() -> Holder:
    value = Holder(None)
    value.client = (value,)
    return value


NO_NUMBERS = np.array([object()])


class Unreadable(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield 1
        raise RuntimeError("no entries today")


BAD = [
    (Client(), "args", "test_value_codec_limits.Client, which does not travel"),
    ({"items": [1, 2, 3, {"client": Client()}]}, "args.items[3].client", "Client"),
    ({"a b": Client(), 3: 1}, "args['a b']", "Client"),
    ({3: {None: Client()}}, "args[3][None]", "Client"),
    ((1, (2, Client())), "args[1][1]", "Client"),
    ({"s": {Client()}}, "args.s.<element>", "Client"),
    ({Client(): 1}, "args.<key Client>", "Client"),
    (Holder([Client()]), "args.client[0]", "Client"),
    ({"x": "\ud800"}, "args.x", "lone surrogate at position 0"),
    ({"\ud800": 1}, "args.<key", "lone surrogate"),
    ([len], "args[0]", "builtin"),
    ([Client], "args[0]", "type"),
    ([iter([])], "args[0]", "iterator"),
    ({"g": (n for n in [1])}, "args.g", "one by one, with call_host_stream"),
    ([NO_NUMBERS], "args[0]", "dtype object"),
    ([np.array([("a", None)], [("n", "U1"), ("o", "O")])], "args[0]", "no plain bytes"),
    ([np.ma.masked_array([1], [True])], "args[0]", "MaskedArray"),
    ([np.array(["a"], np.dtypes.StringDType())], "args[0]", "no plain bytes"),
    ([np.zeros(1, [])], "args[0]", "no plain bytes"),
    ([Fine(2024, 1, 1)], "args[0]", "nanoseconds"),
    ([memoryview(b"abcd")[::2]], "args[0]", "not contiguous"),
    ([memoryview(bytes(1 << 20))[::2]], "args[0]", "not contiguous"),
    ({"a": [1, Unreadable()]}, "args.a[1]", "no entries today"),
    (cyclic_list(), "args[1].again", "contains itself"),
    (cyclic_holder(), "args.client[0]", "contains itself"),
    (nested(MAX_DEPTH + 1), "args[0][0][0]", "more than 1024 levels"),
    (nested(MAX_DEPTH // 2 + 1, lambda inner: (inner,)), "args[0][0][0]", "more than 1024 levels"),
    (nested(5000, lambda inner: {"k": inner}), "args.k.k.k", "more than 1024 levels"),
]


@pytest.mark.parametrize(("value", "path", "reason"), BAD, ids=[case[1] + case[2] for case in BAD])
def test_a_value_that_can_not_travel_is_named_by_its_path(
    value: Any, path: str, reason: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(value, root="args")
    assert caught.value.path is not None
    assert caught.value.path.startswith(path)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.outcome == "none"
    if not path.startswith("args[0][0]") and ".k.k" not in path:
        assert path in (caught.value.path, "args.<key")


def test_the_cause_of_a_failing_model_is_kept() -> None:
    class Model:
        model_fields: dict[str, Any] = {}

        def model_dump(self) -> Any:
            raise RuntimeError("no dump today")

    with pytest.raises(
        EncodeError, match=r"value\.m can't be encoded: RuntimeError: no dump"
    ) as caught:
        encode({"m": Model()})
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_fields_are_an_array_and_errors_begin_with_the_field_name() -> None:
    assert decode(encode_fields(["work", {"x": (1,)}, None], ["command", "args", "session"])) == [
        "work",
        {"x": (1,)},
        None,
    ]
    with pytest.raises(EncodeError, match=r"^args\.x\[0\] is of the type") as caught:
        encode_fields(["work", {"x": [Client()]}, None], ["command", "args", "session"])
    assert caught.value.path == "args.x[0]"


def test_too_large_says_size_and_limit() -> None:
    assert encode(b"x" * 98, limit=100)
    with pytest.raises(PayloadTooLarge) as caught:
        encode(b"x" * 99, limit=100)
    assert (caught.value.size, caught.value.limit) == (101, 100)
    with pytest.raises(PayloadTooLarge):
        encode_fields([b"x" * 99], ["args"], limit=100)


def test_a_failure_leaves_nothing_behind_in_the_next_encoding() -> None:
    for _ in range(3):
        with pytest.raises(EncodeError):
            encode([1, 2, Client()])
        assert encode([1]) == b"\x91\x01"


def test_an_encoding_inside_an_encoding_is_apart() -> None:
    class Model:
        model_fields: dict[str, Any] = {}

        def model_dump(self) -> Any:
            return {"inner": encode([1, 2, 3])}

    assert decode(encode([0, Model(), 4])) == [0, {"inner": b"\x93\x01\x02\x03"}, 4]


def test_threads_do_not_share_a_packer() -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        value = {"n": number, "t": tuple(range(number)), "s": str(number) * 50}
        wrong.extend(again for _ in range(500) if (again := decode(encode(value))) != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_large_buffer_is_not_kept() -> None:
    encode_fields([1], ["value"])
    kept = len(codec._idle_packers)
    encode_fields([b"x" * (1 << 20)], ["value"])
    assert len(codec._idle_packers) == kept - 1


# --- depth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "levels"),
    [
        (lambda inner: [inner], MAX_DEPTH),
        (lambda inner: {"k": inner}, MAX_DEPTH),
        (lambda inner: (inner,), MAX_DEPTH // 2),
        (lambda inner: frozenset([inner]), MAX_DEPTH // 2),
        (Holder, MAX_DEPTH),
    ],
)
def test_the_depth_limit_is_the_same_in_both_directions_and_safe_on_a_small_stack(
    wrap: Any, levels: int
) -> None:
    results: list[Any] = []

    def work() -> None:
        results.append(decode(encode(nested(levels, wrap))))
        try:
            encode(nested(levels + 1, wrap))
        except EncodeError as refused:
            results.append(refused)

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(results) == 2


def test_decode_refuses_one_level_more_than_encode_makes() -> None:
    assert decode(b"\x91" * MAX_DEPTH + b"\x01")
    with pytest.raises(DecodeError):
        decode(b"\x91" * (MAX_DEPTH + 1) + b"\x01")


def test_examples_of_plain_values() -> None:
    uuid = UUID(int=5)
    value = {"id": uuid, "at": [date(2024, 2, 29), time(1, 2)], "path": Path("/tmp/\udcff")}
    assert decode(encode(value)) == value


# --- where decoding fails ------------------------------------------------------------------------

BAD = msgpack.ExtType(Ext.DATE.value, b"tomorrow")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (BAD, "result"),
        ([1, {"client": [0, BAD]}], "result[1].client[1]"),
        ({"a": {"two words": BAD}}, "result.a['two words']"),
        ({7: BAD}, "result[7]"),
        ({BAD: 1}, "result.<key ExtType>"),
        ({msgpack.ExtType(Ext.TUPLE.value, b""): [1, BAD]}, "result[1]"),
        ([{msgpack.ExtType(Ext.SET.value, b""): [1, 1]}], "result[0]"),
        ([{msgpack.ExtType(Ext.SET.value, b""): [[]]}], "result[0]"),
        ([msgpack.ExtType(99, b"")], "result[0]"),
    ],
)
def test_a_decode_error_names_the_path(value: Any, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_fields(msgpack.packb([value]), ["result"])
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xc1", b"\x92\x01", b"\x91\x01\x01"])
def test_bytes_that_are_no_value_at_all_have_no_path_below_the_top(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_fields(data, ["result"])
    assert caught.value.path in (None, "result")


def test_equal_keys_are_refused_and_named() -> None:
    data = b"\x91\x81\xa4args\x82\xa1x\x01\xa1x\x02"
    with pytest.raises(DecodeError, match=r"result\.args: a map has two equal keys"):
        decode_fields(data, ["result"])


def test_looking_for_the_path_is_bounded() -> None:
    deep: Any = BAD
    for _ in range(500):
        deep = [deep]
    with pytest.raises(DecodeError) as caught:
        decode_fields(msgpack.packb([deep]), ["result"])
    assert caught.value.path == "result" + 31 * "[0]"
    with pytest.raises(DecodeError) as caught:
        decode_fields(msgpack.packb([[bytes(1 << 20), BAD]]), ["result"])
    assert caught.value.path is None


# --- limits --------------------------------------------------------------------------------------


def test_a_value_that_is_too_large_names_its_largest_part() -> None:
    items = [{"name": "x" * 10}, {"name": "y" * 500, "client": b"z" * 400}]
    with pytest.raises(PayloadTooLarge) as caught:
        encode_fields([{"items": items}], ["args"], limit=900)
    assert caught.value.path == "args.items[1].name"
    assert "most of it at args.items[1].name" in str(caught.value)
    assert caught.value.limit == 900


def test_an_array_over_the_limit_is_named() -> None:
    huge = np.broadcast_to(np.zeros(1), (1 << 40,))
    with pytest.raises(PayloadTooLarge) as caught:
        encode_fields([{"items": [1, huge]}], ["args"])
    assert caught.value.path == "args.items[1]"


@pytest.mark.parametrize(
    "element", [b"\x90", b"\x80", b"\xd4\x08x"], ids=["arrays", "maps", "paths"]
)
def test_35_the_objects_of_a_message_are_counted(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 10_000
    monkeypatch.setattr(codec, "MAX_OBJECTS", limit)
    for count in (limit - 1, limit):  # and the array that holds them
        data = b"\xdc" + count.to_bytes(2, "big") + element * count
        if count < limit:
            assert len(decode(data)) == count
        else:
            with pytest.raises(DecodeError, match="more than 10000 arrays, maps and extensions"):
                decode(data)


def test_35_ten_million_empty_lists_are_refused_soon() -> None:
    count = 10_000_000
    with pytest.raises(DecodeError, match="arrays, maps and extensions"):
        decode(b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count)
