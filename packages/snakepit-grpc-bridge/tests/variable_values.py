"""Values of all types of variables, and what is the same about two of them."""

from __future__ import annotations

import array
import enum
import math
import struct
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from array_strategies import DTYPES, STRUCTURED, laid_out
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from snakepit_grpc_bridge.variables.types import DatasetHandle, ModelHandle, Secret

KEY = "a canary that nobody may see"
NAN = float("nan")
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
#: Of 5 001 digits, more than Python writes out.
HUGE = 10**5000


def nested(levels: int) -> Any:
    """A list of that many levels."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


class Level(enum.IntEnum):
    LOW = 1


class Color(enum.StrEnum):
    RED = "red"


class Pair(NamedTuple):
    left: Any
    right: Any


class Odd(enum.Enum):
    A = 1


class Stamp(datetime):
    """As those of pandas, finer than microseconds."""

    nanosecond = 0


class FineStamp(Stamp):
    nanosecond = 7


class OwnZone(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=5)

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str:
        return "own"


class BrokenZone(OwnZone):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise RuntimeError("no clock")


class BrokenMapping(UserDict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("not today")


class Given(NamedTuple):
    """A value, and what is stored of it."""

    value: Any
    stored: Any


def same(left: Any, right: Any) -> bool:
    """Equal in type and value at every depth; NaN is NaN, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    for kind, key in _KEYS:
        if isinstance(left, kind):
            return same(key(left), key(right))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _float_key(number: float) -> bytes:
    return b"nan" if math.isnan(number) else struct.pack("d", number)


#: By what values of these classes are compared; by themselves, all that counts is not.
_KEYS: list[tuple[Any, Callable[[Any], Any]]] = [
    (float, _float_key),
    (complex, lambda x: (x.real, x.imag)),
    (dict, lambda x: (list(x), list(x.values()))),
    (np.ndarray, lambda x: (str(x.dtype), x.shape, x.flags.f_contiguous, x.tobytes())),
    ((ModelHandle, DatasetHandle), lambda x: (x.location, x.metadata)),
    (datetime, lambda x: (x.replace(tzinfo=None).isoformat(), x.utcoffset(), x.fold)),
    (Decimal, str),
]


def changeable(value: Any) -> Iterator[Any]:
    """Everything in a value that can be changed in place; of arrays their memory."""
    if isinstance(value, (list, dict, set, bytearray)):
        yield value
    if isinstance(value, np.ndarray) and value.flags.writeable:
        yield value
    if isinstance(value, (ModelHandle, DatasetHandle)):
        yield from changeable(value.metadata)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from changeable(item)


def share(left: Any, right: Any) -> bool:
    """Whether a change of one can be seen in the other."""
    return bool({*map(id, changeable(left))} & {*map(id, changeable(right))})


# --- strategies ----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(seconds=61)),
     ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")]
)  # fmt: skip
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)
ARRAYS = st.builds(
    laid_out,
    (DTYPES | STRUCTURED).flatmap(
        lambda dtype: st_np.arrays(dtype, st_np.array_shapes(min_dims=0, min_side=0, max_side=3))
    ),
    st.sampled_from(["C", "F", "reversed", "every other", "transposed"]),
)


def frozen(value: Any) -> Any:
    """What is to be stored of an array: in F order where it is so, else in C order."""
    flags = value.flags
    return np.array(value, order="F" if flags.f_contiguous and not flags.c_contiguous else "C")


def as_is(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Given]:
    return values.map(lambda value: Given(value, value))


INTEGERS = st.one_of(
    as_is(st.integers()),
    as_is(st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400])),
    st.just(Given(Level.LOW, 1)),
    st.sampled_from([Given(np.int8(-3), -3), Given(np.uint64(2**64 - 1), 2**64 - 1)]),
)
REAL_FLOATS = st.one_of(
    as_is(st.floats()),
    as_is(st.sampled_from([math.nan, -0.0, math.inf, -math.inf, 5e-324])),
    st.floats(width=32).map(lambda number: Given(np.float32(number), number)),
    st.floats().map(lambda number: Given(np.float64(number), number)),
)
FLOATS = st.one_of(
    REAL_FLOATS,
    st.integers(-(2**53), 2**53).map(lambda number: Given(number, float(number))),
    st.sampled_from([Given(Level.LOW, 1.0), Given(np.uint8(3), 3.0), Given(2**60, 2.0**60)]),
)
STRINGS = st.one_of(
    as_is(TEXT),
    as_is(st.sampled_from(["\0", "a\u200d", "é", "e\u0301", "\u202e", "x" * 1_000_000])),
    st.just(Given(Color.RED, "red")),
    st.just(Given(np.str_("ä"), "ä")),
)
BYTES = st.one_of(
    as_is(st.binary(max_size=8)),
    st.binary(max_size=8).map(lambda data: Given(bytearray(data), data)),
    st.binary(max_size=8).map(lambda data: Given(memoryview(data)[::-2], data[::-2])),
)
BOOLEANS = st.sampled_from(
    [Given(True, True), Given(False, False), Given(np.True_, True), Given(np.False_, False)]
)
ATOMS = st.one_of(
    as_is(
        st.one_of(
            st.none(), st.complex_numbers(), st.dates(), st.times(timezones=ZONES | st.none()),
            st.datetimes(), st.timedeltas(), st.decimals(), st.uuids(), MOMENTS,
        )
    ),
    as_is(st.sampled_from([Path("a/b"), UUID(int=1), Decimal("sNaN"), Decimal("1e400")])),
    INTEGERS, REAL_FLOATS, BOOLEANS, BYTES,
    as_is(TEXT),
    ARRAYS.map(lambda value: Given(value, frozen(value))),
)  # fmt: skip
_HASHABLE = st.one_of(st.none(), st.integers(), TEXT, st.binary(max_size=4), st.dates())


def _containers(inner: st.SearchStrategy[Given]) -> st.SearchStrategy[Given]:
    lists = st.lists(inner, max_size=3)
    return st.one_of(
        lists.map(lambda items: Given([x.value for x in items], [x.stored for x in items])),
        lists.map(
            lambda items: Given(tuple(x.value for x in items), tuple(x.stored for x in items))
        ),
        st.tuples(inner, inner).map(
            lambda two: Given(Pair(*(x.value for x in two)), tuple(x.stored for x in two))
        ),
        as_is(st.sets(_HASHABLE, max_size=3)),
        as_is(st.frozensets(_HASHABLE, max_size=3)),
        _maps(inner),
    )


def _maps(inner: st.SearchStrategy[Given]) -> st.SearchStrategy[Given]:
    def of(kind: Any, content: dict[str, Given]) -> Given:
        given = kind({key: item.value for key, item in content.items()})
        return Given(given, {key: item.stored for key, item in content.items()})

    kinds = st.sampled_from([dict, OrderedDict, UserDict, MappingProxyType])
    return st.builds(of, kinds, st.dictionaries(TEXT, inner, max_size=3))


PLAIN = st.recursive(ATOMS, _containers, max_leaves=6)
LISTS = st.lists(PLAIN, max_size=4).flatmap(
    lambda items: st.sampled_from([list, tuple]).map(
        lambda kind: Given(kind(x.value for x in items), [x.stored for x in items])
    )
)
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
EMBEDDINGS = st.one_of(
    st.builds(
        lambda kind, numbers: Given(kind(numbers), tuple(numbers)),
        st.sampled_from([list, tuple, np.array, lambda numbers: array.array("d", numbers)]),
        st.lists(_FINITE, min_size=1, max_size=5),
    ),
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5
    ).map(lambda numbers: Given(np.array(numbers, "f4"), tuple(numbers))),
    st.lists(st.integers(-9, 9), min_size=1, max_size=5).map(
        lambda numbers: Given(numbers, tuple(map(float, numbers)))
    ),
)
_LOCATIONS = st.sampled_from(
    ["s3://bucket/key", "hf://example/small", "file:///a/b", "stored.Predict_0123456789abcdef"]
)


def _handles(cls: Any) -> st.SearchStrategy[Given]:
    whole = st.builds(
        cls, _LOCATIONS, st.dictionaries(TEXT, PLAIN.map(lambda x: x.value), max_size=2)
    )
    return st.one_of(
        as_is(whole),
        _LOCATIONS.map(lambda location: Given(location, cls(location))),
        whole.map(
            lambda handle: Given({"location": handle.location, "metadata": handle.metadata}, handle)
        ),
    )


def name_of(value: Any) -> str | None:
    """What a parameter is called in the name of a test: numbers may be too long for that."""
    return value if isinstance(value, str) else "-"


class Case(NamedTuple):
    """A type with constraints that all of the values keep."""

    type: str
    values: st.SearchStrategy[Given]
    constraints: dict[str, Any] = {}


CASES = [
    Case("boolean", BOOLEANS),
    Case("integer", INTEGERS),
    Case("float", FLOATS),
    Case("string", STRINGS),
    Case("binary", BYTES),
    Case("datetime", as_is(MOMENTS)),
    Case("list", LISTS),
    Case("map", _maps(PLAIN)),
    Case("choice", as_is(st.sampled_from(["a", 1, 1.5, False])), {"choices": ["a", 1, 1.5, False]}),
    Case("tensor", ARRAYS.map(lambda value: Given(value, frozen(value)))),
    Case("embedding", EMBEDDINGS),
    Case("model", _handles(ModelHandle)),
    Case("dataset", _handles(DatasetHandle)),
    Case("module", as_is(st.sampled_from(["json", "dspy.Predict", "ä.ö"]))),
    Case("secret", TEXT.map(lambda text: Given(text, Secret(text)))),
    Case("any", PLAIN),
    Case("float", st.just(Given(None, None)), {"nullable": True, "min": 0}),
    Case("map", st.just(Given(None, None)), {"nullable": True}),
]
