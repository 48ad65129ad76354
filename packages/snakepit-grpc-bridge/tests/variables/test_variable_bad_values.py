"""Bad values of variables, and what is said of each."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from variable_values import (
    HUGE,
    NAN,
    NOON,
    BrokenMapping,
    BrokenZone,
    FineStamp,
    Odd,
    OwnZone,
    nested,
)

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables.types import DatasetHandle, Secret, TypeRegistry

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
RELEASED = memoryview(b"abc")
RELEASED.release()
NUMBERS: Any = np.arange(3.0)
OBJECTS: Any = np.array([None])


def bad(type_name: str, value: Any, says: str, **constraints: Any) -> Any:
    """``value`` is not for a variable of that type and constraints; a message ``says`` why."""
    return pytest.param(type_name, value, says, constraints, id=f"{type_name}: {says}")


@pytest.mark.parametrize(
    ("type_name", "value", "says", "constraints"),
    [
        bad("integer", True, "takes a whole number, not True"),
        bad("integer", np.True_, "not a value of type bool"),
        bad("integer", 1.0, "not 1.0 .it is another kind of number"),
        bad("integer", np.float64(1), "another kind of number"),
        bad("integer", Decimal(1), "not a value of type Decimal .it is another kind"),
        bad("integer", Fraction(2), "another kind of number"),
        bad("integer", 1j, "another kind of number"),
        bad("integer", "1", "not '1'$"),
        bad("integer", None, "not None$"),
        bad(
            "integer",
            HUGE,
            "^an integer of 16610 bits is not allowed .*: it must be at most 3$",
            max=3,
        ),
        bad(
            "integer",
            3,
            "^3 is not allowed .*: it must be at least an integer of 16610 bits$",
            min=HUGE,
        ),
        bad("integer", 8, "must be 1 plus or minus a multiple of 3", min=1, step=3),
        bad("float", 2**53 + 1, "not 9007199254740993 .it is an integer that a float would round"),
        bad("float", HUGE, "not an integer of 16610 bits .it is too large for a float"),
        bad("float", Decimal("0.5"), "another kind of number"),
        bad("float", Fraction(1, 2), "another kind of number"),
        bad("float", np.longdouble(1), "another kind of number"),
        bad("float", False, "takes a number, not False"),
        bad(
            "float",
            NAN,
            "nan is not allowed in a variable of type 'float': it must be at least 0.0",
            min=0,
        ),
        bad("float", NAN, "it must be at most 1.0", max=1),
        bad("float", NAN, "it must be 0.0 plus or minus a multiple of 0.1", step=0.1),
        bad("float", float("inf"), "it must be at most 1.0", max=1),
        bad("float", float("inf"), "a multiple of 0.1", step=0.1),
        bad("float", 0.35, "0.35 is not allowed .* a multiple of 0.1", step=0.1),
        bad("boolean", 1, "takes True or False, not 1"),
        bad("boolean", "true", "not 'true'"),
        bad("string", b"a", "takes text, not a value of type bytes"),
        bad("string", "a\ud800", r"not 'a\\ud800' .it has a lone surrogate at position 1"),
        bad(
            "string",
            "a" * 50,
            "^a value of type str is not allowed .*: it must have at most 2 char",
            max_length=2,
        ),
        bad("string", "ab\n", "must match the pattern 'ab'", pattern="ab"),
        bad("string", "c", "must be one of 'a', 'b'", choices=["a", "b"]),
        bad(
            "string", "c", "must be one of '0', .* '9' and 2 more$", choices=[*map(str, range(12))]
        ),
        bad("binary", "a", "takes bytes, not 'a'"),
        bad("binary", np.arange(3), "not a value of type ndarray"),
        bad("binary", memoryview(NUMBERS), "elements that are no bytes"),
        bad("binary", memoryview(OBJECTS), "elements that are no bytes"),
        bad("binary", RELEASED, "a memoryview that was released"),
        bad("datetime", datetime(2024, 1, 1), "it has no zone; give it one"),
        bad("datetime", date(2024, 1, 1), "takes a datetime with a zone, not a value of type date"),
        bad("datetime", 1.5, "not 1.5"),
        bad("datetime", FineStamp(2024, 1, 1, tzinfo=UTC), "has nanoseconds, which would be lost"),
        bad(
            "datetime",
            datetime(2024, 1, 1, tzinfo=BrokenZone()),
            "can't be read as date, time and zone",
        ),
        bad(
            "datetime",
            NOON,
            "at most 2024-01-01 00:00:00.00:00",
            max=datetime(2024, 1, 1, tzinfo=UTC),
        ),
        bad("list", "ab", "takes a list of plain data, not 'ab'"),
        bad("list", {1}, "not a value of type set"),
        bad(
            "list",
            [1, {"a": {"b-c": [object()]}}],
            r"value\[1\].a\['b-c'\]\[0\] is of type object, which is no",
        ),
        bad("list", [Odd.A], r"value\[0\] is of type Odd"),
        bad("list", [lambda: None], "of type function"),
        bad("list", [len, int], "of type builtin_function_or_method"),
        bad("list", [1, Fraction(1)], r"value\[1\] is of type Fraction"),
        bad("list", ["\ud800"], r"value\[0\] has a lone surrogate"),
        bad(
            "list", [Secret("canary")], r"value\[0\] is a secret; keep it in a variable of its own"
        ),
        bad("list", [OBJECTS], r"value\[0\] has elements of dtype object"),
        bad("list", [np.longdouble(1)], "of type longdouble"),
        bad("list", [time(1, tzinfo=OwnZone())], "a zone of its own"),
        bad("list", [PurePosixPath("a")], "of type PurePosixPath"),
        bad("list", [Path("a\ud800")], "a path with a lone surrogate"),
        bad("list", CYCLE, r"value(\[0\])+\[?\.\.\..*\] is nested more than 64 levels"),
        bad("list", nested(65), "nested more than 64 levels deep"),
        bad("list", [1], "must have at least 2 items", min_length=2),
        bad("map", [("a", 1)], "takes a mapping of text to plain data, not a value of type list"),
        bad("map", {"a": {1: 2}}, "value.a has a key of type int; keys must be text"),
        bad("map", {"\ud800": 1}, "it has a key that has a lone surrogate"),
        bad("map", BrokenMapping(a=1), "it does not let its items be read"),
        bad("map", {"a": {"b": BrokenMapping(a=1)}}, "value.a.b does not let its items be read"),
        bad("choice", True, "True is not allowed .*: it must be one of 1, 2", choices=[1, 2]),
        bad("choice", 1.0, "must be one of 1", choices=[1]),
        bad("choice", Odd.A, "takes one of its choices, not a value of type Odd", choices=[1]),
        bad("embedding", [], "it has no numbers"),
        bad("embedding", [1.0, NAN], r"it has nan at \[1\], and all must be finite"),
        bad("embedding", [1.0, "a"], r"\(it has a value of type str at \[1\]\)$"),
        bad("embedding", [True], r"a value of type bool at \[0\]"),
        bad("embedding", [2**53 + 1], r"at \[0\], which is an integer that a float would round"),
        bad("embedding", np.zeros((1, 2)), r"an array of shape \(1, 2\) and dtype float64"),
        bad("embedding", np.zeros(2, bool), "dtype bool"),
        bad("embedding", "ab", "takes a list of numbers, not 'ab'$"),
        bad("embedding", [1.0, 2.0], "must have 3 dimensions, it has 2", dimensions=3),
        bad("model", object(), "takes a ModelHandle, not a value of type object$"),
        bad("model", DatasetHandle("hf://a/b"), "not a value of type DatasetHandle"),
        bad("model", "C:/x", "not 'C:/x' .it has a location that is no URI"),
        bad("model", "http://[x/", "a location that is no URI"),
        bad("model", "s3://me:canary@host/x", "not this value .it has a location with a password"),
        bad("model", {"location": "hf://a/b", "weights": 1}, "takes a ModelHandle"),
        bad(
            "model", {"location": "hf://a/b", "metadata": {"f": len}}, "value.metadata.f is of type"
        ),
        bad("model", "hf://a/b", "must match the pattern 's3://.*'", pattern="s3://.*"),
        bad("dataset", {"metadata": {}}, "takes a DatasetHandle"),
        bad("module", "os._exit", "it is no dotted path of public names"),
        bad("module", "a..b", "no dotted path"),
        bad("module", "", "no dotted path"),
        bad("module", int, "takes a dotted path, .*, not a value of type type"),
        bad("module", "os.path", "must match the pattern", pattern=r"dspy\..*"),
        bad("secret", b"canary", "takes text, or a Secret, not this value$"),
        bad("secret", "canary\ud800", "not this value .it has a lone surrogate at position 6"),
        bad(
            "secret",
            "canary",
            "^this value is not allowed .*: it must have at least 8 characters$",
            min_length=8,
        ),
        bad("any", [object()], r"takes plain data, not .* .value\[0\] is of type object"),
    ],
)
def test_a_bad_value(type_name: str, value: Any, says: str, constraints: dict[str, Any]) -> None:
    declared = TypeRegistry().declare(type_name, constraints)
    with pytest.raises(ValidationFailed, match=says) as caught:
        declared.read(value)
    assert repr(type_name) in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.details["type"] == type_name
    assert caught.value.details.get("constraint") in (None, *constraints)
