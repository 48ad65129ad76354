"""Which values the annotations of a tool take, and what becomes of them on both sides."""

from __future__ import annotations

import collections
import enum
import traceback
import typing
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, Union
from uuid import UUID

import numpy as np
import pydantic
import pytest
import tool_functions as tools
from numpy.typing import NDArray
from tool_checks import Refused, checked, schema_of, sent
from tool_functions import Address, Color, Guest, Order, Pair, Point, Size

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema.compiling import compile_check
from snakepit_grpc_bridge.tools.schema.problems import MOST_PROBLEMS, Problems

ZERO = UUID(int=0)


HERE = object()


OPEN = tools.Open.model_validate({"known": 1, "more": 2})


class Row(NamedTuple):
    """A value, what the function gets of it, and what travels there if that is another."""

    annotation: Any
    given: Any
    here: Any
    there: Any = HERE


EXAMPLES = [
    Row(int, 10**30, 10**30),
    Row(int, Size.LARGE, 2),
    Row(int, np.int64(3), 3),
    Row(float, 1.5, 1.5),
    Row(float, 2, 2.0),
    Row(float, float("-inf"), float("-inf")),
    Row(float, np.float32(0.5), 0.5),
    Row(bool, True, True),
    Row(bool, np.True_, True),
    Row(str, "a", "a"),
    Row(str, Color.RED, "red"),
    Row(None, None, None),
    Row(bytes, b"\xff", b"\xff"),
    Row(bytes, bytearray(b"a"), b"a"),
    Row(bytes, "_w==", b"\xff"),
    Row(bytes, "/w==", b"\xff"),
    Row(datetime, datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
    Row(datetime, "2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
    Row(datetime, "2024-02-29 10:30:00.5", datetime(2024, 2, 29, 10, 30, 0, 500_000)),
    Row(date, "2024-02-29", date(2024, 2, 29)),
    Row(time, "10:30", time(10, 30)),
    Row(timedelta, "P1DT2H0.5S", timedelta(days=1, hours=2, seconds=0.5)),
    Row(timedelta, "-PT5M", timedelta(minutes=-5)),
    Row(timedelta, "P2W", timedelta(weeks=2)),
    Row(Decimal, Decimal("1.10"), Decimal("1.10")),
    Row(Decimal, "1.10", Decimal("1.10")),
    Row(Decimal, 3, Decimal(3)),
    Row(UUID, ZERO, ZERO),
    Row(UUID, str(ZERO), ZERO),
    Row(Path, "a/b", Path("a/b")),
    Row(PurePath, Path("a"), Path("a")),
    Row(pydantic.NewPath, "/such", Path("/such")),
    Row(complex, 2, 2 + 0j),
    Row(complex, "1+2j", 1 + 2j),
    Row(Color, "red", Color.RED, "red"),
    Row(Color, Color.RED, Color.RED, "red"),
    Row(Size, 1, Size.SMALL, 1),
    Row(Literal["a", 1, None], 1, 1),
    Row(Literal["a", 1, None], None, None),
    Row(Guest, {"name": "Ann"}, Guest("Ann"), {"name": "Ann"}),
    Row(Guest, Guest("Ann", 3), Guest("Ann", 3), {"name": "Ann", "age": 3, "friends": []}),
    Row(
        Guest,
        {"name": "Ann", "friends": [{"name": "Bob"}]},
        Guest("Ann", friends=[Guest("Bob")]),
        {"name": "Ann", "friends": [{"name": "Bob"}]},
    ),
    Row(
        Address,
        {"street": "A", "behind": {"street": "B"}},
        {"street": "A", "behind": {"street": "B"}},
    ),
    Row(Pair, [1], Pair(1), (1,)),
    Row(Pair, Pair(1, "x"), Pair(1, "x"), (1, "x")),
    Row(
        Order,
        {"itemId": 1, "when": "2024-02-29"},
        Order(itemId=1, when=date(2024, 2, 29)),
        {"itemId": 1, "when": date(2024, 2, 29)},
    ),
    Row(Order, Order(itemId=1), Order(itemId=1), {"itemId": 1, "when": None}),
    Row(tools.Open, {"known": 1, "more": 2}, OPEN, {"known": 1, "more": 2}),
    Row(
        tools.Open,
        OPEN,
        OPEN,
        {"known": 1, "more": 2},
    ),
    Row(tools.Careless, {"known": 1, "more": 2}, tools.Careless(known=1), {"known": 1, "more": 2}),
    Row(tools.Tags, tools.Tags(["a"]), tools.Tags(["a"]), ["a"]),
    Row(
        tools.Pet,
        {"kind": "cat", "lives": 9},
        tools.Cat(kind="cat", lives=9),
        {"kind": "cat", "lives": 9},
    ),
    Row(list[int], (1, 2), [1, 2]),
    Row(list, [1, "a"], [1, "a"]),
    Row(Sequence[float], [1], [1.0]),
    Row(Iterable[Guest], [{"name": "Ann"}], [Guest("Ann")], [{"name": "Ann"}]),
    Row(typing.Iterable, (1, "a"), [1, "a"]),
    Row(collections.deque[int], [1], collections.deque([1]), [1]),
    Row(set[int], [1, 2], {1, 2}),
    Row(set[int], frozenset({1}), {1}),
    Row(set[Point], [{"x": 1}], {Point(1)}, [{"x": 1}]),
    Row(frozenset[Color], {"red"}, frozenset({Color.RED}), frozenset({"red"})),
    Row(tuple[int, str], [1, "a"], (1, "a")),
    Row(tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    Row(tuple[()], [], ()),
    Row(dict, {1: "a"}, {1: "a"}),
    Row(dict[str, float], {"a": 1}, {"a": 1.0}),
    Row(dict[int, str], {"7": "a", -1: "b"}, {7: "a", -1: "b"}),
    Row(dict[UUID, int], {str(ZERO): 1}, {ZERO: 1}),
    Row(dict[Color, int], {Color.RED: 1}, {Color.RED: 1}, {"red": 1}),
    Row(
        dict[str, Guest],
        {"host": {"name": "Ann"}},
        {"host": Guest("Ann")},
        {"host": {"name": "Ann"}},
    ),
    Row(Mapping[str, int], collections.OrderedDict(a=1), {"a": 1}),
    Row(int | None, None, None),
    Row(Optional[Guest], {"name": "Ann"}, Guest("Ann"), {"name": "Ann"}),  # noqa: UP045
    Row(Union[int, str], "5", "5"),  # noqa: UP007
    Row(float | int, 5, 5),
    Row(datetime | str, "2024-02-29T00:00", "2024-02-29T00:00"),
    Row(int | date, "2024-02-29", date(2024, 2, 29)),
    Row(bool | Path, "yes", Path("yes")),
    Row(float | Decimal, "1.5", Decimal("1.5")),
    Row(list[int] | tuple[int, ...], (1,), (1,)),
    Row(list[int] | dict[str, int], {"a": 1}, {"a": 1}),
    Row(list[date] | list[date | str], ["2024-02-29"], ["2024-02-29"]),
    Row(dict[str, date] | dict[str, date | str], {"a": "2024-02-29"}, {"a": "2024-02-29"}),
    Row(Any, [object], [object]),
    Row(NewType("Meters", float), 1, 1.0),
    Row(Annotated[int, pydantic.Field(ge=1)], 1, 1),
    Row(Annotated[str, "where"], "Rome", "Rome"),
]


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: f"{row.annotation}-{row.given!r:.40}")
def test_values_that_are_taken(row: Row) -> None:
    schema = schema_of(row.annotation)
    travels = checked(sent(schema), row.given)
    assert same(travels, row.here if row.there is HERE else row.there)
    assert same(checked(schema, row.given), row.here)
    # What was sent is taken as what was given.
    assert same(checked(schema, travels), row.here)


def same(value: Any, wanted: Any) -> bool:
    return type(value) is type(wanted) and bool(value == wanted)


def test_nan_is_a_number_without_bounds() -> None:
    assert checked(schema_of(float), float("nan")) != checked(schema_of(float), 0.0)
    bounded = schema_of(Annotated[float, pydantic.Field(ge=0)])
    finite = schema_of(pydantic.FiniteFloat)
    for schema in (bounded, sent(bounded), finite, sent(finite)):
        assert isinstance(checked(schema, float("nan")), Refused)


BAD = [
    (int, "5", "v: must be an integer, not text"),
    (int, True, "v: must be an integer, not a boolean"),
    (int, 5.0, "v: must be an integer, not a float"),
    (int, None, "v: must be an integer, not None"),
    (float, "1", "v: must be a number, not text"),
    (float, False, "v: must be a number, not a boolean"),
    (float, 2**53 + 1, "v: is an integer too large to be exact as a float"),
    (float, 10**400, "v: is an integer too large to be exact as a float"),
    (bool, 1, "v: must be true or false, not an integer"),
    (bool, "yes", "v: must be true or false, not text"),
    (str, b"a", "v: must be text, not bytes"),
    (str, 10**5000, "v: must be text, not an integer"),
    (bytes, "no base64!", "v: must be bytes (or base64 text)"),
    (bytes, 5, "v: must be bytes (or base64 text), not an integer"),
    (datetime, 1700000000, "v: must be a date and time (or text as in ISO 8601), not an integer"),
    (datetime, date(2024, 1, 1), "v: must be a date and time (or text as in ISO 8601), not a date"),
    (datetime, "2024-02-30T00:00", "v: must be a date and time (or text as in ISO 8601)"),
    (
        datetime,
        "2024-02-29T00:00:00.1234567",
        "v: must be a date and time (or text as in ISO 8601)",
    ),
    (date, datetime(2024, 1, 1), "v: must be a date (or text as in ISO 8601), not a datetime"),
    (date, "20240101", "v: must be a date (or text as in ISO 8601)"),
    (time, "25:00", "v: must be a time of day (or text as in ISO 8601)"),
    (timedelta, 5, "v: must be a duration (or text as in ISO 8601, as in 'PT90S'), not an integer"),
    (timedelta, "P1Y", "v: must be a duration (or text as in ISO 8601, as in 'PT90S')"),
    (timedelta, "P9999999999D", "v: must be a duration (or text as in ISO 8601, as in 'PT90S')"),
    (Decimal, 0.1, "v: must be a decimal number (or its text), not a float"),
    (Decimal, "NaN", "v: must be a decimal number (or its text)"),
    (Decimal, Decimal("NaN"), "v: must be a decimal number (or its text), not a Decimal"),
    (Decimal, "1e99999999999999999999", "v: must be a decimal number (or its text)"),
    (UUID, "0" * 32, "v: must be a UUID (or its text)"),
    (Path, b"a", "v: must be a path (or its text), not bytes"),
    (complex, "i", "v: must be a complex number (or its text)"),
    (Color, "bleu", "v: must be one of 'red', 'blue'; did you mean 'blue'?"),
    (Color, 1, "v: must be one of 'red', 'blue', not an integer"),
    (Size, True, "v: must be one of 1, 2, not a boolean"),
    (Literal["a"], "b", "v: must be 'a'"),
    (Guest, ["Ann"], "v: must be a mapping (Guest), not a list"),
    (Guest, Guest, "v: must be a mapping (Guest), not a type"),
    (Guest, {"nme": "Ann"}, ["missing: v.name", "unknown: v.nme; did you mean 'name'?"]),
    (Guest, {"name": "Ann", "visits": 1}, "unknown: v.visits"),
    (
        Guest,
        {"name": 1, "age": "3", "friends": [{"name": "b"}, {"name": "c", "age": 1.5}]},
        [
            "v.name: must be text, not an integer",
            "v.age: must be an integer, not text",
            "v.friends[1].age: must be an integer, not a float",
        ],
    ),
    (Address, {"street": "A", "behind": {}}, "missing: v.behind.street"),
    (Pair, (1, "a", 2), "v: must have at most 2 items"),
    (Order, {"itemId": 0}, "v.itemId: must be at least 1"),
    (tools.Pet, {"kind": "cat", "lives": "9"}, "v.lives: must be an integer, not text"),
    (tools.Pet, {"kind": "cap"}, "v.kind: must be one of 'cat', 'dog'; did you mean 'cat'?"),
    (tools.Pet, {"lives": 1}, "missing: v.kind"),
    (tools.Pet, "cat", "v: must be a mapping (Cat) or a mapping (Dog), not text"),
    (list[int], {1}, "v: must be a list, not a set"),
    (list[int], "12", "v: must be a list, not text"),
    (list[int], [1, None], "v[1]: must be an integer, not None"),
    (Annotated[list[int], pydantic.Field(max_length=1)], [1, 2], "v: must have at most 1 items"),
    (set[int], [1, 1], "v: must not hold a value twice"),
    (tuple[int, str], [1], "v: must have at least 2 items"),
    (dict[str, int], {1: 1}, "v: has a key that must be text, not an integer"),
    (dict[str, int], {"a b": "x"}, "v['a b']: must be an integer, not text"),
    (dict[int, int], {"01": 1}, "v: has a key that must be an integer, not text"),
    (dict[int, int], {"1": 1, 1: 1}, "v: has two keys that are the same"),
    (int | None, "x", "v: must be an integer or None, not text"),
    (int | list[int], ["x"], "v[0]: must be an integer, not text"),
    (Guest | Point, {"x": "1"}, "v.x: must be an integer, not text"),
    (Guest | Point, {"y": 1, "name": 1}, ["unknown: v.y", "v.name: must be text, not an integer"]),
    (Color | date, "x", "v: must be one of 'red', 'blue' or a date (or text as in ISO 8601)"),
    (Annotated[int, pydantic.Field(ge=1)] | None, 0, "v: must be at least 1"),
    (Annotated[int, pydantic.Field(gt=1, lt=5)], 5, "v: must be less than 5"),
    (Annotated[str, pydantic.Field(min_length=2)], "a", "v: must have at least 2 characters"),
]


@pytest.mark.parametrize(("annotation", "value", "problems"), BAD, ids=range(len(BAD)))
def test_values_that_are_refused_on_both_sides(
    annotation: Any, value: Any, problems: str | list[str]
) -> None:
    schema = schema_of(annotation)
    wanted = problems if isinstance(problems, list) else [problems]
    assert checked(sent(schema), value) == checked(schema, value) == Refused(wanted)


def test_what_only_the_class_knows_is_refused_where_it_is() -> None:
    for annotation, value, problem in [
        (Order, {"itemId": 666}, "v.itemId: must be an item that exists"),
        (dict[str, list[Order]], {"a": [{"itemId": 666}]}, "v.a[0].itemId: must be an item"),
        (Order | Guest, {"itemId": 666}, "v.itemId: must be an item that exists"),
        (Annotated[str, pydantic.Field(pattern="^a")], "b", "v: String should match pattern"),
        (Annotated[str, pydantic.Field(pattern="^a")] | int, "b", "v: String should match"),
        (pydantic.HttpUrl, "nowhere", "v: Input should be a valid URL"),
    ]:
        schema = schema_of(annotation)
        assert checked(sent(schema), value) == value
        (found,) = checked(schema, value)
        assert found.startswith(problem)


def test_a_validator_that_fails_is_no_crash() -> None:
    def explode(value: int) -> int:
        raise KeyError(value)

    schema = schema_of(Annotated[int, pydantic.AfterValidator(explode)])
    assert checked(schema, 5) == ["a validator of its types failed with KeyError"]


@pytest.mark.parametrize("secret", ["hunter2", 741852963, 4.25, b"hunter2", ["hunter2"], 10**60])
def test_no_message_shows_a_value(secret: Any) -> None:
    for annotation in (None, Literal["x"], Guest, Order, list[date], bool | UUID, tools.Pet):
        for value in (secret, [secret], {"name": secret, "kind": secret, "itemId": secret}):
            problems = checked(schema_of(annotation), value)
            assert isinstance(problems, Refused)
            assert "hunter2" not in str(problems)
            assert "741852963" not in str(problems)
            assert "4.25" not in str(problems)


def test_no_cause_shows_a_value() -> None:
    schema = schema_of(Annotated[str, pydantic.Field(pattern="^a$")])
    with pytest.raises(ValidationFailed) as caught:
        schema.check("tool", {"v": "hunter" + "2"})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_what_a_validator_raised_is_the_cause() -> None:
    with pytest.raises(ValidationFailed) as caught:
        schema_of(Order).check("tool", {"v": {"itemId": 666}})
    assert repr(caught.value.__cause__) == "ValueError('must be an item that exists')"


def test_text_that_is_called_a_path_stays_text() -> None:
    schema = schema_of(Annotated[str, pydantic.Field(json_schema_extra={"format": "path"})])
    assert checked(schema, "a") == "a"


def test_long_calls_are_told_shortly() -> None:
    schema = schema_of(list[int])
    assert len(checked(schema, ["x"] * 100_000)) == 20
    names = checked(schema_of(Guest), {f"n{i}": i for i in range(100_000)})
    assert len(names) == 20
    (long,) = checked(schema_of(dict[str, int]), {"k" * 10_000: "x"})
    assert len(long) < 150


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, ["x"] * 1000),
        ({"type": "object", "additionalProperties": False}, dict.fromkeys(map(str, range(1000)))),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            dict.fromkeys(map(str, range(1000))),
        ),
    ],
)
def test_a_bad_call_is_not_read_to_its_end(schema: dict[str, Any], value: Any) -> None:
    problems = Problems()
    compile_check(schema).read(value, None, problems)
    assert len(problems.found) == MOST_PROBLEMS


def test_a_value_that_contains_itself_ends() -> None:
    guest: dict[str, Any] = {"name": "Ann"}
    guest["friends"] = [guest]
    for schema in (schema_of(Guest), sent(schema_of(Guest))):
        assert checked(schema, guest) == ["it is nested too deeply"]


def test_a_type_that_holds_itself_is_read_once() -> None:
    """With each of its types it would take 3 ** 12 steps."""
    value: dict[str, Any] = {"op": "number", "value": 1}
    for _ in range(12):
        value = {"op": "sum", "left": value, "right": {"op": "number", "value": 2}}
    schema = schema_of(tools.Expression)
    reads = collections.Counter[str]()

    class Counted(dict[str, Any]):
        def items(self) -> Any:
            reads["items"] += 1
            return super().items()

    def counted(node: dict[str, Any]) -> Counted:
        return Counted({k: counted(v) if isinstance(v, dict) else v for k, v in node.items()})

    assert isinstance(checked(sent(schema), counted(value)), dict)
    assert reads["items"] < 4 * 25
    assert isinstance(checked(schema, value), tools.Sum)


class Planet(enum.Enum):
    EARTH = (5.97e24, 6.37e6)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (Planet, "Planet has members that are neither text nor numbers"),
        (Literal[Color.RED], "is neither text nor a number"),
        (np.float64, "no data can become"),
        (typing.TypeVar, "no data can become"),
    ],
)
def test_types_that_are_refused(annotation: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        schema_of(annotation)


ARRAYS = [
    (np.ndarray, np.zeros((2, 0)), np.zeros((2, 0))),
    (np.ndarray, [[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
    (np.ndarray, [], np.array([])),
    (np.ndarray, [True], np.array([True])),
    (NDArray[np.float32], [0.1, 2], np.array([0.1, 2], np.float32)),
    (NDArray[np.floating], np.array([1], np.float32), np.array([1], np.float32)),
    (NDArray[np.floating], [1], np.array([1], np.float64)),
    (NDArray[np.uint8], [0, 255], np.array([0, 255], np.uint8)),
    (NDArray[np.complex128], [1, 2.5], np.array([1, 2.5], np.complex128)),
    (NDArray[np.generic], np.array(["a"]), np.array(["a"])),
    (NDArray[np.int64] | None, np.array([1], np.int64), np.array([1], np.int64)),
]


@pytest.mark.parametrize(("annotation", "given", "wanted"), ARRAYS)
def test_arrays(annotation: Any, given: Any, wanted: Any) -> None:
    schema = schema_of(annotation)
    for side in (schema, sent(schema)):
        array = checked(side, given)
        assert array.dtype == wanted.dtype
        assert np.array_equal(array, wanted)
        if isinstance(given, np.ndarray):
            assert array is given


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (np.ndarray, [[1], [2, 3]]),
        (np.ndarray, ["a"]),
        (np.ndarray, [1, True]),
        (np.ndarray, [2**64]),
        (np.ndarray, [2**60, 0.5]),
        (np.ndarray, 5),
        (np.ndarray, "text"),
        (NDArray[np.float64], np.array([1])),
        (NDArray[np.uint8], [256]),
        (NDArray[np.uint8], [-1]),
        (NDArray[np.int64], [1.0]),
        (NDArray[np.int64], [True]),
        (NDArray[np.bool_], [1]),
        (NDArray[np.float32], [1e300]),
        (NDArray[np.float32], [2**24 + 1]),
        (NDArray[np.float64], [1j]),
        (NDArray[np.str_], [1]),
        (list[NDArray[np.float64]], [np.array([1])]),
    ],
)
def test_numbers_that_an_array_would_change_are_refused(annotation: Any, given: Any) -> None:
    schema = schema_of(annotation)
    assert isinstance(checked(schema, given), Refused)
    assert isinstance(checked(sent(schema), given), Refused)


def test_a_list_that_is_its_own_item_is_no_array() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert isinstance(checked(schema_of(np.ndarray), endless), Refused)
