"""Which values each type of variables takes, one by one, and what is said of the others."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from variable_values import (
    HUGE,
    NAN,
    NOON,
    Color,
    Level,
    Odd,
    OwnZone,
    Pair,
    Stamp,
    name_of,
    nested,
    same,
)

from snakepit.errors import DecodeError
from snakepit_grpc_bridge.errors import UnsupportedType, ValidationFailed, shown
from snakepit_grpc_bridge.variables import types as public
from snakepit_grpc_bridge.variables.names import check_variable_name
from snakepit_grpc_bridge.variables.types import (
    DatasetHandle,
    ModelHandle,
    Secret,
    TypeRegistry,
    plain,
)

TYPES = TypeRegistry()
INSTANCE = "stored.Predict_0123456789abcdef"


class Endless(UserDict[str, int]):
    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __getitem__(self, key: str) -> int:
        return int(key)


def read(type_name: str, value: Any, **constraints: Any) -> Any:
    return TYPES.declare(type_name, constraints).read(value)


@pytest.mark.parametrize(
    ("type_name", "value", "stored", "constraints"),
    [
        ("integer", HUGE, HUGE, {}),
        ("integer", Level.LOW, 1, {"max": 1}),
        ("integer", np.int64(-(2**63)), -(2**63), {}),
        ("integer", 7, 7, {"min": 1, "step": 3}),
        ("float", 2**53, 2.0**53, {}),
        ("float", float("inf"), float("inf"), {"min": 0}),
        ("float", 0.1 + 0.2, 0.1 + 0.2, {"step": 0.1}),
        ("float", 1e300, 1e300, {"min": -1e308, "step": 0.1}),
        ("float", 0.3, 0.3, {"min": float("-inf"), "step": 0.1}),
        ("float", np.float16(0.5), 0.5, {}),
        ("boolean", np.False_, False, {}),
        ("string", "a\0b", "a\0b", {}),
        ("string", Color.RED, "red", {"choices": ["red"]}),
        ("string", "k-17", "k-17", {"pattern": r"k-\d+"}),
        ("string", "ää", "ää", {"max_length": 2}),
        ("binary", memoryview(b"abcd")[::2], b"ac", {"max_length": 2}),
        ("choice", Level.LOW, 1, {"choices": [1, "a"]}),
        ("choice", np.float64(0.5), 0.5, {"choices": (0.5,)}),
        ("choice", True, True, {"choices": [Level.LOW, True]}),
        ("choice", None, None, {"choices": ["a"], "nullable": True}),
        ("list", Pair(1, (2,)), [1, (2,)], {"min_length": 2}),
        ("list", nested(64), nested(64), {}),
        ("map", OrderedDict(b=1, a=[np.int8(2)]), {"b": 1, "a": [2]}, {}),
        ("map", {Color.RED: memoryview(b"x")}, {"red": b"x"}, {"max_length": 1}),
        ("any", {"x", "y"}, {"x", "y"}, {}),
        (
            "any",
            time(12, tzinfo=ZoneInfo("Asia/Tokyo")),
            time(12, tzinfo=ZoneInfo("Asia/Tokyo")),
            {},
        ),
        ("any", Path("a\udcff"), Path("a\udcff"), {}),
        ("datetime", Stamp(2024, 2, 29, 12, tzinfo=UTC), NOON, {"min": NOON, "max": NOON}),
        (
            "datetime",
            datetime(2024, 1, 1, tzinfo=OwnZone(), fold=1),
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5)), fold=1),
            {},
        ),
        ("embedding", np.arange(3, dtype="f4"), (0.0, 1.0, 2.0), {"dimensions": 3}),
        ("model", "s3://bucket/key", ModelHandle("s3://bucket/key"), {"pattern": "s3://bucket/.*"}),
        (
            "dataset",
            {"location": INSTANCE, "metadata": {"rows": 1}},
            DatasetHandle(INSTANCE, {"rows": 1}),
            {},
        ),
        ("module", "dspy.Predict", "dspy.Predict", {"pattern": r"dspy\..*"}),
        ("secret", Secret("key"), Secret("key"), {"min_length": 3}),
    ],
    ids=name_of,
)
def test_taken(type_name: str, value: Any, stored: Any, constraints: dict[str, Any]) -> None:
    declared = TYPES.declare(type_name, constraints)
    assert same(declared.read(value), stored)
    assert public.validate_value(value, type_name, constraints) == declared.read(value)


@pytest.mark.parametrize(
    ("type_name", "constraints", "says"),
    [
        ("integer", {"maxi": 3}, "type 'integer' has no constraint 'maxi'; did you mean 'max'"),
        ("integer", {3: 3}, "has no constraint 3"),
        ("integer", {"max": "3"}, "'max' of type 'integer' must be a whole number, it was '3'"),
        ("integer", {"max": 2.5}, "it was 2.5"),
        ("integer", {"max": True}, "it was True"),
        ("integer", {"min": 3, "max": 2}, "no value of type 'integer' can keep both"),
        ("integer", {"step": 0}, "'step' .* must be a whole number above 0"),
        ("float", {"min": NAN}, "must be a number, it was nan"),
        ("float", {"step": -0.5}, "must be a number above 0"),
        ("float", {"step": float("inf")}, "must be a number above 0"),
        ("string", {"min_length": -1}, "must be a whole number of at least 0"),
        ("string", {"min_length": 3, "max_length": 2}, "can keep both"),
        ("string", {"pattern": "(?=a)b"}, "must be a regular expression"),
        ("string", {"pattern": "a)|(?:b"}, "must be a regular expression"),
        ("string", {"pattern": "a" * 1001}, "of at most 1000 characters"),
        ("string", {"pattern": "a{1000}{1000}{1000}"}, "must be a regular expression"),
        ("string", {"choices": []}, "a list of such values that is not empty"),
        ("string", {"choices": "ab"}, "it was 'ab'"),
        ("string", {"choices": [1]}, "a list of such values"),
        ("choice", {}, "type 'choice' needs the constraint 'choices'"),
        ("choice", {"choices": [NAN]}, "a list of such values"),
        ("choice", {"choices": [None]}, "a list of such values"),
        ("boolean", {"nullable": 1}, "must be True or False, it was 1"),
        ("datetime", {"min": datetime(2024, 1, 1)}, "must be a datetime with a zone"),
        ("tensor", {"shape": 3}, "a list of sizes"),
        ("tensor", {"shape": [2, -1]}, "a list of sizes"),
        ("tensor", {"dtype": "object"}, "must be the name of a numpy dtype"),
        ("tensor", {"dtype": "float33"}, "must be the name of a numpy dtype"),
        ("tensor", {"dtype": "i4,f8"}, "must be the name of a numpy dtype"),
        ("tensor", {"dtype": float}, "must be the name of a numpy dtype"),
        ("embedding", {"dimensions": 1.5}, "a whole number of at least 0"),
        ("map", [("min_length", 1)], "constraints are a mapping of name to limit"),
    ],
)
def test_constraints_that_make_no_sense(type_name: str, constraints: Any, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says):
        TYPES.declare(type_name, constraints)
    with pytest.raises(ValidationFailed, match=says):
        public.validate_constraints(type_name, constraints)


def test_constraints_are_kept_as_data_that_nobody_changes() -> None:
    choices = ["a", "b"]
    declared = TYPES.declare("choice", {"choices": choices})
    choices.append("c")
    assert declared.constraints == {"choices": ("a", "b")}
    with pytest.raises(TypeError):
        declared.constraints["choices"] = ()  # type: ignore[index]
    assert TYPES.declare("float", {"min": 1}).constraints == {"min": 1.0}
    shape = TYPES.declare("tensor", {"shape": [None, 2], "dtype": np.float32}).constraints
    assert shape == {"shape": (None, 2), "dtype": "float32"}


def test_a_pattern_takes_no_time_that_depends_on_how_it_is_written() -> None:
    # Python's own engine would not come back from this one.
    with pytest.raises(ValidationFailed, match="must match the pattern"):
        read("string", "a" * 50_000 + "!", pattern="(a+)+")


def test_data_that_repeats_itself_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MOST_VALUES", 1000)
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(ValidationFailed, match="has or repeats more than 1000 values"):
        read("list", value)
    with pytest.raises(ValidationFailed, match="it has or repeats more than 1000 values"):
        read("map", {str(number): number for number in range(1001)})
    with pytest.raises(ValidationFailed, match="it has or repeats more than 1000 values"):
        read("map", Endless())


# --- names of types and of variables -------------------------------------------------------------


def test_types_that_are_not_there() -> None:
    with pytest.raises(UnsupportedType, match="no variable type 'integr'; did you mean 'integer'"):
        TYPES.declare("integr")
    with pytest.raises(UnsupportedType, match="no variable type a value of type list"):
        TYPES.declare([])  # type: ignore[arg-type]
    for value in (object(), Odd.A, int, lambda: None):
        with pytest.raises(UnsupportedType, match="no variable type fits a"):
            TYPES.infer(value)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "boolean"),
        (np.True_, "boolean"),
        (1, "integer"),
        (Level.LOW, "integer"),
        (np.int8(1), "integer"),
        (0.5, "float"),
        (np.float32(1), "float"),
        ("a", "string"),
        (Color.RED, "string"),
        (b"", "binary"),
        (bytearray(), "binary"),
        (memoryview(b""), "binary"),
        ([], "list"),
        ((), "list"),
        ({}, "map"),
        (UserDict(), "map"),
        (NOON, "datetime"),
        (np.zeros(1), "tensor"),
        (ModelHandle(INSTANCE), "model"),
        (DatasetHandle(INSTANCE), "dataset"),
        (Secret("a"), "secret"),
        (None, "any"),
        (NOON.date(), "any"),
        (Decimal(1), "any"),
        (set(), "any"),
        (1j, "any"),
        (Path(), "any"),
    ],
)
def test_inferred(value: Any, name: str) -> None:
    assert TYPES.infer(value) == public.infer_type(value) == name


def test_names_of_variables() -> None:
    for name in ("a", "_x", "ml_top.p:1-b", "A" * 128):
        assert check_variable_name(name) == name
    for wrong in (
        "",
        "1a",
        "a b",
        "a\n",
        "ä",
        "a/b",
        "a" * 129,
        "\ud800",
        None,
        3,
        b"a",
        Color.RED,
    ):
        with pytest.raises(ValidationFailed, match="is no variable name"):
            check_variable_name(wrong)


# --- what messages show, and what runs -----------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (2**127, str(2**127)),
        (2**128, "an integer of 129 bits"),
        (HUGE, "an integer of 16610 bits"),
        ("a" * 40, repr("a" * 40)),
        ("a" * 41, "a value of type str"),
        ("\x1b\ud800", r"'\x1b\ud800'"),
        (Level.LOW, "a value of type Level"),
        ([1], "a value of type list"),
    ],
    ids=name_of,
)
def test_values_in_messages(value: Any, text: str) -> None:
    assert shown(value) == text


RUN: list[str] = []


def hostile(base: type = object) -> type:
    """A class whose every method says that it ran, and raises."""

    def trap(name: str) -> Any:
        def method(*args: Any, **kwargs: Any) -> Any:
            RUN.append(name)
            raise RuntimeError(name)

        return method

    words = (
        "repr str format eq ne lt hash len iter contains bool int float index complex bytes array"
    )
    members: dict[str, Any] = {f"__{word}__": trap(word) for word in words.split()}
    members |= {name: trap(name) for name in ("tolist", "item", "keys", "items", "numpy", "copy")}
    members |= {"__getattribute__": trap("getattribute"), "__class__": property(trap("class"))}
    return type("Hostile", (base,), members)


@pytest.mark.parametrize("type_name", sorted(TYPES.supported()))
def test_nothing_of_a_hostile_object_runs(type_name: str) -> None:
    RUN.clear()
    limits = {"choices": ["a"]} if type_name == "choice" else {}
    for value in (hostile()(), [hostile()()], {"a": [hostile()()]}):
        with pytest.raises(ValidationFailed):
            read(type_name, value, **limits)
    with pytest.raises(UnsupportedType):
        TYPES.infer(hostile()())
    assert RUN == []


def test_subclasses_become_what_they_are_subclasses_of_and_do_not_run() -> None:
    RUN.clear()
    items = [hostile(str)("a"), hostile(int)(3), hostile(float)(0.5), hostile(bytes)(b"b")]
    items += [hostile(list)([1]), hostile(tuple)((2,)), hostile(bytearray)(b"c")]
    assert same(read("list", items), ["a", 3, 0.5, b"b", [1], (2,), b"c"])
    assert same(read("integer", items[1]), 3)
    assert same(read("float", items[2]), 0.5)
    assert same(read("string", items[0]), "a")
    assert same(read("binary", items[3]), b"b")
    assert same(read("list", hostile(list)([1])), [1])
    assert same(read("embedding", hostile(tuple)([1.0])), (1.0,))
    assert RUN == []


def test_keys_that_are_the_same_text_are_not_merged() -> None:
    class Distinct(str):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    with pytest.raises(ValidationFailed, match="keys that differ by more than their text"):
        read("map", {Distinct("a"): 1, "a": 2})


def test_a_list_that_grows_elsewhere_does_not_grow_here() -> None:
    value: dict[str, Any] = {"a": [1]}
    stored = read("map", value)
    value["a"].append(2)
    value["b"] = 3
    assert stored == {"a": [1]}


def test_what_is_stored_but_is_no_such_value_is_an_error_of_decoding() -> None:
    for plain_form in ({}, None.__class__, {"dtype": "float32", "data": b"abc"}, {"data": 1}, "x"):
        with pytest.raises(DecodeError, match="is no such value; write the variable anew"):
            TYPES.declare("embedding").from_plain(plain_form)
    with pytest.raises(DecodeError):
        TYPES.declare("model").from_plain({"location": "nowhere"})
    assert TYPES.declare("embedding", {"nullable": True}).from_plain(None) is None


def test_embeddings_are_packed_in_32_bits_where_that_loses_nothing() -> None:
    declared = TYPES.declare("embedding")
    for numbers, dtype, size in (((0.5, -0.0), "float32", 8), ((0.1,), "float64", 8),
                                 ((1e300,), "float64", 8)):  # fmt: skip
        packed = declared.to_plain(declared.read(numbers))
        assert (packed["dtype"], len(packed["data"])) == (dtype, size)


# --- handles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "metadata", "says"),
    [
        ("nowhere", {}, "this makes no ModelHandle: it has a location that is no URI"),
        (3, {}, "a location that is no URI"),
        ("stored.Predict_0123", {}, "a location that is no URI"),
        ("s3://a b", {}, "a location that is no URI"),
        ("\ud800://a", {}, "has a lone surrogate"),
        ("s3://me:canary@host/x", {}, "has a location with a password in it"),
        (INSTANCE, [], "it has metadata that is no mapping of text to plain data"),
        (INSTANCE, {"a": [object()]}, r"\(value.a\[0\] is of type object"),
    ],
)
def test_handles_that_can_not_be_made(location: Any, metadata: Any, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says) as caught:
        ModelHandle(location, metadata)
    assert "canary" not in str(caught.value)


def test_a_handle_has_metadata_of_its_own() -> None:
    given = {"tags": ["a"]}
    handle = ModelHandle(INSTANCE, given)
    declared = TYPES.declare("model")
    stored = declared.read(handle)
    given["tags"].append("b")
    handle.metadata["tags"].append("c")
    public.copy_value(stored).metadata["tags"].append("d")
    copy = declared.copy(stored)
    assert copy is not None
    copy.metadata["tags"].append("e")
    assert stored == ModelHandle(INSTANCE, {"tags": ["a"]})


# --- what is loaded ------------------------------------------------------------------------------


def test_types_load_nothing_heavy_before_a_value_needs_it() -> None:
    program = """
        import sys
        from snakepit_grpc_bridge.variables.types import TypeRegistry
        from snakepit_grpc_bridge.errors import UnsupportedType
        types = TypeRegistry()
        for value in (1, 0.5, "a", b"", [1, {"a": {2}}], {}, None):
            types.declare(types.infer(value)).read(value)
        types.declare("embedding").read([1.0])
        types.declare("string", {"choices": ["a"]}).read("a")
        try:
            types.infer(object())
        except UnsupportedType:
            pass
        heavy = {"numpy", "pydantic", "pydantic_core", "cryptography", "zoneinfo", "dspy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
