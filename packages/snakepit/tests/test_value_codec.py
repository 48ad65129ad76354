"""Values survive the codec, or fail with the path of what can't."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import (
    RemoteError,
    WorkerLost,
)
from snakepit.wire.codec import decode, encode
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
        pytest.param(memoryview(b"abc")[1:], b"bc", id="memoryview"),
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
