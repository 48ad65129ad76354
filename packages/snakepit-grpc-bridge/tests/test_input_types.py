from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest

from snakepit_grpc_bridge.dspy.signature import parse_signature
from snakepit_grpc_bridge.errors import InputMismatch


@dataclass
class Point:
    x: int


class Mood(Enum):
    GOOD = "good"


def accepts(type_text: str, value: Any) -> bool:
    return parse_signature(f"field: {type_text} -> answer").inputs[0].accepts(value)


@pytest.mark.parametrize(
    ("type_text", "right", "wrong"),
    [
        ("str", ["", "x"], [1, None, b"x", ["x"]]),
        ("int", [0, -5, 10**30, np.int64(3)], [True, 1.0, "1", None]),
        ("float", [0.5, 1, np.float32(1)], [False, "0.5", None, 1j]),
        ("complex", [1j, 1.0, 1], [True, "1"]),
        ("bool", [True, False], [0, 1, "true"]),
        ("bytes", [b"x"], ["x"]),
        ("None", [None], [0]),
        ("Any", [None, 1, "x", [{}]], []),
        ("list", [[], (1, "a")], ["x", {1}, {"a": 1}]),
        ("list[int]", [[], [1, 2], (1,)], [[1, "2"], [True], 1, "12"]),
        ("set[str]", [{"a"}, frozenset()], [["a"], {1}]),
        ("dict", [{}, {1: "a"}, Point(1)], [[("a", 1)], Point]),
        ("dict[str, list[float]]", [{"a": [1, 2.0]}], [{"a": 1}, {1: [1.0]}, []]),
        ("tuple[int, str]", [(1, "a"), [1, "a"]], [(1,), (1, "a", 2), ("a", 1)]),
        ("tuple[int, ...]", [(), (1, 2, 3)], [(1, "a")]),
        ("Literal['good', 2]", ["good", 2, Mood.GOOD], ["bad", "2", True, None]),
        ("Literal[True]", [True], [1, "True"]),
        ("Optional[int]", [None, 1], ["1"]),
        ("int | None", [None, 1], ["1"]),
        ("Union[int, list[str]]", [1, ["a"]], ["a", [1]]),
        ("dspy.Image", ["http://x", {"url": "x"}], []),
    ],
)
def test_types(type_text: str, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not accepts(type_text, value)] == []
    assert [value for value in wrong if accepts(type_text, value)] == []


def test_an_input_of_another_type_is_named() -> None:
    spec = parse_signature("question, hints: list[str], limit: int | None -> answer")
    # Without a type anything goes, as in DSPy.
    assert spec.check_inputs({"question": {"any": 1}, "hints": []})["question"] == {"any": 1}
    with pytest.raises(InputMismatch, match=r"'limit' must be of type int \| None, it was True"):
        spec.check_inputs({"question": "?", "hints": [], "limit": True})
    with pytest.raises(InputMismatch) as caught:
        spec.check_inputs({"question": "?", "hints": {"a": 1}})
    assert caught.value.details["field"] == "hints"
    assert caught.value.details["expected"] == "list[str]"
    assert caught.value.details["given"] == "a value of type dict"
    assert caught.value.missing == caught.value.unexpected == []


def test_only_a_type_that_allows_none_makes_a_field_optional() -> None:
    spec = parse_signature("a: int | None, b: Any, c: dspy.Image -> answer")
    with pytest.raises(InputMismatch) as caught:
        spec.check_inputs({})
    assert caught.value.missing == ["b", "c"]
