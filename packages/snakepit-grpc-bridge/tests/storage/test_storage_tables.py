"""Declarations of tables, and spans of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import pytest
from storage_tables import COUNTERS, ITEMS, Counter, Item

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.storage import Schema, Table


@dataclass(frozen=True)
class Row:
    name: str
    other: str | None
    number: int
    value: Any
    maybe: Optional[int] = None  # noqa: UP045 - what users of older style write


@dataclass
class Changing:
    name: str


@dataclass(frozen=True)
class Odd:
    name: str
    values: list[str]


@dataclass(frozen=True)
class Capital:
    Name: str


GOOD: dict[str, Any] = {"name": "rows", "row": Row, "key": ("name",), "values": ("value",)}


def declare(**changed: Any) -> Table[Any]:
    given = {**GOOD, **changed}
    return Table(given.pop("name"), given.pop("row"), **given)


def test_a_good_declaration() -> None:
    table = declare(indexes={"other": ("other", "number"), "maybe": ("maybe",)})
    row = Row("a", None, 1, ["any", {"thing"}], 7)
    assert table.checked(row) == ("a", None, 1, ["any", {"thing"}], 7)
    assert table.key_of(row) == ("a",)
    assert table.orders["other"].columns == ("other", "number", "name")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Rows"}, "'Rows'"),
        ({"name": "rows; DROP TABLE x"}, "no usable name"),
        ({"name": ""}, "no usable name"),
        ({"name": "r" * 41}, "no usable name"),
        ({"name": "schema_version"}, "taken"),
        ({"row": dict}, "frozen dataclass"),
        ({"row": Changing, "values": ()}, "frozen dataclass"),
        ({"row": Capital, "key": ("Name",), "values": ()}, "'Name'"),
        ({"row": Odd, "values": ()}, "name it in `values`"),
        ({"values": ()}, "name it in `values`"),
        ({"values": ("valeu",)}, "did you mean 'value'"),
        ({"key": ()}, "at least"),
        ({"key": ("name", "name")}, "each once"),
        ({"key": ("nam",)}, "did you mean 'name'"),
        ({"key": ("other",)}, "str or int"),
        ({"key": ("value",)}, "str or int"),
        ({"indexes": {"by value": ("number",)}}, "'by value'"),
        ({"indexes": {"value": ("value",)}}, "no order"),
        ({"indexes": {"empty": ()}}, "at least"),
        ({"indexes": {"other": ("othr",)}}, "did you mean 'other'"),
    ],
)
def test_a_bad_declaration_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        declare(**changed)
    assert said in str(raised.value)


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="rows"):
        Schema(tables=(declare(), declare()))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("g", 1, 2), {}, ConfigurationError),
        (("g", 1), {"start": 1}, ConfigurationError),
        ((), {"by": "wieght"}, ConfigurationError),
        ((1,), {}, ValidationFailed),
        (("g",), {"stop": "x"}, ValidationFailed),
        (("g\0",), {}, ValidationFailed),
        ((None,), {"by": "weight"}, ValidationFailed),
        ((), {"by": "weight", "stop": 1}, ValidationFailed),
        ((), {"by": "weight", "start": float("nan")}, ValidationFailed),
    ],
)
def test_a_bad_span_is_refused_where_it_is_made(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ITEMS.span(*arguments, **options)


def test_a_span_shows_no_values() -> None:
    span = ITEMS.span(True, by="flag", start=0.5, stop=7.25)
    assert repr(span) == "<Span items by flag, flag = ..., weight >= ..., weight < ...>"
    assert repr(ITEMS.span("private")) == "<Span items, group = ...>"


def test_errors_show_no_values() -> None:
    secret = "hunter2"
    bad: list[Any] = [
        Item("g", 1, text=secret + "\0"),
        Item(secret, 1, count=secret),  # type: ignore[arg-type]
        Item(secret * 400, 1),
    ]
    for row in bad:
        with pytest.raises(ValidationFailed) as raised:
            ITEMS.checked(row)
        assert secret not in str(raised.value) + str(raised.value.details)


def test_a_fingerprint_changes_with_what_a_database_has_to_know() -> None:
    same = Schema(tables=(COUNTERS, ITEMS)).fingerprint()
    assert Schema(tables=(ITEMS, COUNTERS)).fingerprint() == same
    key = Table("counters", Counter, key=("count",))
    index = Table("counters", Counter, key=("name",), indexes={"count": ("count",)})
    for changed in (key, index):
        assert Schema(tables=(changed, ITEMS)).fingerprint() != same
