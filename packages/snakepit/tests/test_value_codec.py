"""Values survive the codec, or fail with the path of what can't."""

from __future__ import annotations

import dataclasses
import enum
import math
import threading
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import (
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    RemoteError,
    WorkerLost,
)
from snakepit.wire import codec
from snakepit.wire.codec import decode, decode_fields, encode, encode_fields
from snakepit.wire.explain import MAX_DEPTH
from snakepit.wire.values import Ext


def identical(one: Any, other: Any) -> bool:
    """Equality that tells 1 from True and 1.0, and knows NaN and folds."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return identical(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        # Equal, and each element has an identical partner.
        return one == other and all(any(identical(a, b) for b in other) for a in one)
    if isinstance(one, (datetime, time)):
        zones = str(one.tzinfo) == str(other.tzinfo)
        return (
            zones
            and one.fold == other.fold
            and one.replace(tzinfo=None) == other.replace(tzinfo=None)
        )
    return repr(one) == repr(other) if isinstance(one, (Decimal, complex)) else bool(one == other)


ZONES = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=-3, minutes=-30, seconds=-1)), ZoneInfo("UTC"),
     ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")]
)  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(),
    st.dates(),
    st.datetimes(timezones=ZONES, allow_imaginary=False),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(Path),
)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
VALUES = st.recursive(
    HASHABLE
    | st.floats()
    | st.sampled_from([Decimal("NaN"), Decimal("-sNaN12"), Decimal("-0E+3")]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_values_round_trip(value: Any) -> None:
    assert identical(decode(encode(value)), value)
    assert identical(decode(memoryview(bytearray(encode(value)))), value)


@given(st.integers(-70, 70), st.integers(-2, 2))
def test_integers_round_trip_around_every_power_of_two(power: int, offset: int) -> None:
    value = (2 ** abs(power)) * (-1 if power < 0 else 1) + offset
    assert identical(decode(encode(value)), value)


# --- subclasses and objects ----------------------------------------------------------------------


class Level(enum.IntEnum):
    LOW = 1
    HUGE = 2**70


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Mode(enum.StrEnum):
    FAST = "fast"


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    item: str
    amount: Decimal
    parts: tuple[Point, ...] = ()


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Number(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Row(dict[str, int]):
    pass


class Moment(datetime):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Level.LOW, 1),
        (Level.HUGE, 2**70),
        (Colour.RED, "red"),
        (Colour.PAIR, (1, 2)),
        (Mode.FAST, "fast"),
        (Bits.A | Bits.B, 3),
        (Point(1, 2), (1, 2)),
        (
            Order("a", Decimal("1.50"), (Point(1, 2),)),
            {"item": "a", "amount": Decimal("1.50"), "parts": ((1, 2),)},
        ),
        (Text("t"), "t"),
        (Number(5), 5),
        (Number(2**90), 2**90),
        (Real(0.5), 0.5),
        (Raw(b"r"), b"r"),
        (bytearray(b"b"), b"b"),
        (memoryview(b"abc")[1:], b"bc"),
        (Row(a=1), {"a": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Moment(2024, 1, 2, fold=1), datetime(2024, 1, 2, fold=1)),
        ({Colour.RED: Point(1, 2)}, {"red": (1, 2)}),
    ],
    ids=repr,
)  # fmt: skip
def test_subclasses_and_objects_arrive_as_their_base(value: Any, expected: Any) -> None:
    assert identical(decode(encode(value)), expected)


def test_pydantic_models_arrive_as_mappings() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("M", when=(date, ...), tags=(set[str], ...))
    outer = pydantic.create_model("Outer", inner=(model, ...))
    value = outer(inner=model(when=date(2024, 2, 29), tags={"a"}))
    assert decode(encode([value])) == [{"inner": {"when": date(2024, 2, 29), "tags": {"a"}}}]
    root = pydantic.RootModel[list[int]]([1, 2])
    assert decode(encode(root)) == [1, 2]


def test_exceptions_arrive_as_data() -> None:
    lost = decode(encode(WorkerLost("gone", details={"pid": 2**80})))
    assert type(lost) is WorkerLost
    assert lost.details == {"pid": 2**80}
    failed, fine = decode(encode([ValueError("bad"), 1]))
    assert isinstance(failed, RemoteError)
    assert isinstance(failed, ValueError)
    assert fine == 1


def test_a_zone_unknown_here_or_with_other_rules_keeps_the_moment() -> None:
    def sent(offset_s: int, zone: str) -> datetime:
        parts = msgpack.packb(["2024-07-01T12:00:00", offset_s * 1_000_000, zone, 0])
        value = decode(msgpack.packb(msgpack.ExtType(Ext.DATETIME.value, parts)))
        assert isinstance(value, datetime)
        return value

    paris = sent(7200, "Europe/Paris")
    assert paris.tzinfo == ZoneInfo("Europe/Paris")
    for offset, zone in ((7200, "Moon/Base"), (3600, "Europe/Paris"), (60, "../../etc/passwd")):
        value = sent(offset, zone)
        assert value.utcoffset() == timedelta(seconds=offset)
        assert value.tzname() == zone


def test_a_msgpack_timestamp_of_another_language_is_a_datetime_in_utc() -> None:
    sent = msgpack.packb(msgpack.Timestamp(1, 500_000_000))
    assert decode(sent) == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)


# --- what does not travel ------------------------------------------------------------------------


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
BAD = [
    (Client(), "args", "test_value_codec.Client, which does not travel"),
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
    ({"g": (n for n in [1])}, "args.g", "generator"),
    ([NO_NUMBERS], "args[0]", "dtype object"),
    ([np.array([("a", None)], [("n", "U1"), ("o", "O")])], "args[0]", "no plain bytes"),
    ([np.ma.masked_array([1], [True])], "args[0]", "MaskedArray"),
    ([np.array(["a"], np.dtypes.StringDType())], "args[0]", "no plain bytes"),
    ([np.zeros(1, [])], "args[0]", "no plain bytes"),
    ([Fine(2024, 1, 1)], "args[0]", "nanoseconds"),
    ([memoryview(b"abcd")[::2]], "args[0]", "not contiguous"),
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
    encode(b"x" * (1 << 20))
    encode(1)
    kept = len(codec._idle_packers)
    encode(b"x" * (1 << 20))
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
    monkeypatch.setattr(codec, "MAX_OBJECTS", 1000)
    for count in (999, 1000):  # and the array that holds them
        data = b"\xdc" + count.to_bytes(2, "big") + element * count
        if count == 999:
            assert len(decode(data)) == count
        else:
            with pytest.raises(DecodeError, match="more than 1000 arrays, maps and extensions"):
                decode(data)


def test_35_ten_million_empty_lists_are_refused_soon() -> None:
    count = 10_000_000
    with pytest.raises(DecodeError, match="arrays, maps and extensions"):
        decode(b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count)
