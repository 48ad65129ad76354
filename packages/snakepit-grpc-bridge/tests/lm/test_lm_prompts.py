"""The pure parts of the adapter for small models: fields, names, layouts, grammars, requests."""

from __future__ import annotations

import enum
from typing import Any, Literal, Optional

import pytest

from snakepit_grpc_bridge.lm import grammars
from snakepit_grpc_bridge.lm.errors import LmCallFailed
from snakepit_grpc_bridge.lm.fields import FieldKind, describe
from snakepit_grpc_bridge.lm.names import names_in
from snakepit_grpc_bridge.lm.native_format import Collected, read_request
from snakepit_grpc_bridge.lm.prompts import choose_layout, entity_labels


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@pytest.mark.parametrize(
    ("annotation", "kind", "optional"),
    [
        (str, FieldKind.TEXT, False),
        (int, FieldKind.INTEGER, False),
        (float, FieldKind.NUMBER, False),
        (bool, FieldKind.CHOICE, False),
        (Mood, FieldKind.CHOICE, False),
        (Literal[1, "two"], FieldKind.CHOICE, False),
        (list[str], FieldKind.TEXTS, False),
        (list[int], FieldKind.JSON, False),
        (dict[str, list[str]], FieldKind.JSON, False),
        (int | None, FieldKind.INTEGER, True),
        (Optional[str], FieldKind.TEXT, True),  # noqa: UP045 - the older spelling is common
        (int | str | None, FieldKind.JSON, True),
    ],
)
def test_kinds_of_fields(annotation: Any, kind: FieldKind, optional: bool) -> None:
    described = describe("field", annotation)
    assert (described.kind, described.optional) == (kind, optional)


def test_choices_keep_their_values() -> None:
    assert describe("x", Literal[1, "two"]).choices == (("1", 1), ("two", "two"))
    assert describe("x", Mood).choices == (("good", Mood.GOOD), ("bad", Mood.BAD))
    assert describe("x", bool).choices == (("yes", True), ("no", False))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Yesterday, Dr. Jane Goodall's team left for the U.K.", ["Jane Goodall", "U.K."]),
        ("J. R. Tolkien and Ursula von der Leyen.", ["J. R. Tolkien", "Ursula von der Leyen"]),
        ("The Bank of England and Smith of Ford", ["Bank of England", "Smith", "Ford"]),
        ("Marks & Spencer met Theresa May in May.", ["Marks & Spencer", "Theresa May"]),
        ("The CEO said: It rains. We left.", []),
        ("Ann met Ann.", ["Ann"]),
        ("", []),
        ("of the von", []),
        ("Hält Jürgen Groß in Köln?", ["Hält Jürgen Groß", "Köln"]),
    ],
)
def test_names(text: str, names: list[str]) -> None:
    assert names_in(text) == names


def test_entity_labels() -> None:
    outputs = [describe(name, list[str]) for name in ("cities", "countries", "people", "steps")]
    assert entity_labels(outputs) == {
        "cities": "location",
        "countries": "country",
        "people": "person",
    }


def test_a_question_gets_examples_and_leaves_the_instructions_out() -> None:
    layout = choose_layout(
        {"question": "Why?"}, [describe("answer", str)], instructions="Answer shortly."
    )
    prompt = layout.prompt("answer")
    assert prompt.endswith("\n\nQuestion: Why?\nAnswer:")
    assert "Answer shortly" not in prompt
    assert prompt.count("Question:") > 3


def test_an_unknown_task_gets_its_instructions() -> None:
    layout = choose_layout(
        {"english": "one\n\n\ntwo"}, [describe("french", str)], instructions="Translate."
    )
    assert layout.prompt("french") == "Translate.\n\nEnglish: one\ntwo\nFrench:"


def test_own_examples_replace_the_built_in_ones() -> None:
    given = [({"question": "Q1"}, {"answer": "A1"})]
    layout = choose_layout({"question": "Q2"}, [describe("answer", str)], given=given)
    assert layout.prompt("answer") == "Question: Q1\nAnswer: A1\n\nQuestion: Q2\nAnswer:"


def test_later_fields_see_earlier_ones_and_content_can_be_left_out() -> None:
    layout = choose_layout({"a": "1"}, [describe("b", str), describe("c", str)])
    layout.fill("b", "2")
    assert layout.prompt("c") == "A: 1\nB: 2\nC:"
    assert layout.prompt("c", content="") == "A:\nB: 2\nC:"


def test_no_inputs() -> None:
    layout = choose_layout({}, [describe("poem", str)], instructions="Write a poem.")
    assert layout.prompt("poem") == "Write a poem.\n\nPoem:"


def test_grammar_text_is_quoted() -> None:
    assert grammars.gbnf('a"b\\c\n') == '"a\\"b\\\\c\\n"'


def test_schemas_are_bounded_where_they_are_not() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "array", "maxItems": 2, "items": {"enum": ["x"], "type": "string"}},
        },
    }
    assert grammars.bounded(schema)["properties"] == {
        "a": {"type": "array", "maxItems": 12, "items": {"type": "string", "maxLength": 120}},
        "b": {"type": "array", "maxItems": 2, "items": {"enum": ["x"], "type": "string"}},
    }


# --- requests ------------------------------------------------------------------------------------


def request(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    return {"model": "m", "messages": [message], **more}


def test_a_chat_request() -> None:
    config = {"max_tokens": 5, "stop": ["x"], "seed": 0, "response_format": {"type": "json_object"}}
    read = read_request(request(system="Be kind.", config=config))
    assert read.chat
    assert read.body == {
        "max_tokens": 5,
        "temperature": 0.0,
        "stop": ["x"],
        "seed": 0,
        "json_schema": {"type": "object"},
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_a_plain_request() -> None:
    extensions = {"native": {"plain": True, "score": {"choices": ["a"], "baselines": ["b"]}}}
    read = read_request(request(config={"extensions": extensions}))
    assert (read.chat, read.body["prompt"]) == (False, "Hi")
    assert (read.choices, read.baselines) == (("a",), ("b",))


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"name": "f"}]},
        {"messages": [{"role": "user", "parts": [{"type": "image"}]}]},
        {"config": {"extensions": {"native": {"score": {"choices": ["a"]}}}}},
    ],
)
def test_requests_that_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(LmCallFailed) as caught:
        read_request(request(**more))
    assert caught.value.kind in {"unsupported", "invalid_request"}


def test_chunks_add_up() -> None:
    collected = Collected("m", chat=False)
    collected.add({"choices": [{"text": "a", "finish_reason": None}]})
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    collected.add({"choices": [{"text": "b", "finish_reason": "length"}], "usage": usage})
    assert (collected.text, collected.finish_reason) == ("ab", "length")
    assert collected.usage["input_tokens"] == 3


def test_errors_of_llama_cpp_are_typed() -> None:
    error = {"type": "exceed_context_size_error", "message": "too long"}
    with pytest.raises(LmCallFailed, match="too long") as caught:
        Collected("m", chat=False).add({"error": error})
    assert caught.value.kind == "context_length"
