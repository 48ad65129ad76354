"""Annotations made by hypothesis, each with values of its type."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, NamedTuple, NotRequired, Union
from uuid import UUID

from hypothesis import strategies as st
from tool_functions import Color, Size
from typing_extensions import TypedDict


class Typed(NamedTuple):
    """An annotation, and a strategy for values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
PATHS = st.from_regex(r"/?[a-z]{1,5}(/[a-z]{1,5})?", fullmatch=True).map(Path)

#: Types that JSON has.
JSON_LEAVES = [
    Typed(bool, st.booleans()),
    Typed(int, st.integers()),
    Typed(float, st.floats(allow_nan=False)),
    Typed(str, TEXT),
    Typed(None, st.none()),
    Typed(Literal["a", 1, True, None], st.sampled_from(["a", 1, True, None])),
]
#: Types that are the same on both sides of a call.
LEAVES = [
    *JSON_LEAVES,
    Typed(bytes, st.binary(max_size=5)),
    Typed(datetime, st.datetimes(timezones=st.none() | st.timezones())),
    Typed(date, st.dates()),
    Typed(time, st.times()),
    Typed(timedelta, st.timedeltas()),
    Typed(Decimal, DECIMALS),
    Typed(UUID, st.uuids()),
    Typed(Path, PATHS),
    Typed(complex, st.complex_numbers(allow_nan=False)),
]
ENUMS = [Typed(Color, st.sampled_from(Color)), Typed(Size, st.sampled_from(Size))]

_FIELDS = ("alpha", "beta", "class_", "copy")
_numbers = count()


def typed_values(*, only_json: bool = False) -> st.SearchStrategy[Typed]:
    """Annotations up to a few levels deep; ``only_json``: whose values are JSON as they are."""
    leaves = st.sampled_from(JSON_LEAVES if only_json else [*LEAVES, *ENUMS])
    return st.recursive(leaves, lambda inner: _containers(inner, only_json), max_leaves=6)


def _containers(inner: st.SearchStrategy[Typed], only_json: bool) -> st.SearchStrategy[Typed]:
    plain = [
        inner.map(_list_of),
        inner.map(_dict_of),
        st.lists(inner, min_size=1, max_size=3).map(_typed_dict_of),
        st.lists(st.sampled_from(JSON_LEAVES[:5]), min_size=2, max_size=3).map(_union_of),
        inner.map(_optional),
    ]
    classes = [
        st.lists(inner, max_size=3).map(_tuple_of),
        st.sampled_from(LEAVES).map(_set_of),
        st.lists(inner, min_size=1, max_size=3).map(_dataclass_of),
        st.lists(st.sampled_from(LEAVES), min_size=2, max_size=3).map(_union_of),
    ]
    return st.one_of(plain if only_json else plain + classes)


def _optional(typed: Typed) -> Typed:
    return Typed(Union[typed.annotation, None], typed.values | st.none())  # noqa: UP007


def _list_of(item: Typed) -> Typed:
    return Typed(GenericAlias(list, (item.annotation,)), st.lists(item.values, max_size=4))


def _set_of(item: Typed) -> Typed:
    return Typed(GenericAlias(set, (item.annotation,)), st.sets(item.values, max_size=4))


def _dict_of(item: Typed) -> Typed:
    return Typed(
        GenericAlias(dict, (str, item.annotation)), st.dictionaries(TEXT, item.values, max_size=4)
    )


def _tuple_of(items: list[Typed]) -> Typed:
    annotation: Any = tuple
    values = st.tuples(*(item.values for item in items))
    return Typed(annotation[tuple(item.annotation for item in items)], values)


def _union_of(items: list[Typed]) -> Typed:
    annotation: Any = Union
    values = st.one_of(*(item.values for item in items))
    return Typed(annotation[tuple(item.annotation for item in items)], values)


def _typed_dict_of(items: list[Typed]) -> Typed:
    fields = dict(zip(_FIELDS, items, strict=False))
    make: Any = TypedDict
    last = next(reversed(fields))
    annotation = make(
        f"T{next(_numbers)}",
        {
            name: NotRequired[item.annotation] if name == last else item.annotation
            for name, item in fields.items()
        },
    )
    values = {name: item.values for name, item in fields.items()}
    optional = {last: values.pop(last)}
    return Typed(annotation, st.fixed_dictionaries(values, optional=optional))


def _dataclass_of(items: list[Typed]) -> Typed:
    fields = dict(zip(_FIELDS, items, strict=False))
    cls = dataclasses.make_dataclass(
        f"D{next(_numbers)}", [(name, item.annotation) for name, item in fields.items()]
    )
    values = st.fixed_dictionaries({name: item.values for name, item in fields.items()})
    return Typed(cls, values.map(lambda given: cls(**given)))


#: Any data that travels.
PLAIN = st.recursive(
    st.one_of(*(leaf.values for leaf in LEAVES), st.sampled_from(["red", 1, "2024-02-29", "5"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(_FIELDS) | TEXT, inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=8,
)
