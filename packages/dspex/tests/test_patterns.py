from __future__ import annotations

import ast
import keyword
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex import patterns
from dspex.errors import InputMismatch, InvalidCategory, OutputFieldMissing, ValidationFailed
from dspex.patterns import Request, Steps
from dspex.prediction import Prediction
from snakepit_grpc_bridge.dspy.signature import parse_signature

T = TypeVar("T")


def drive(steps: Steps[T], *answers: dict[str, Any]) -> tuple[T, list[Request]]:
    """Answer a pattern's requests with `answers` in turn; return its result and the requests."""
    requests = [next(steps)]
    for position, answer in enumerate(answers, start=1):
        try:
            requests.append(steps.send(Prediction(answer)))
        except StopIteration as done:
            assert position == len(answers), "the pattern ended before all answers were used"
            return done.value, requests
    raise AssertionError(f"the pattern asks for more: {requests[-1]}")


def outputs(request: Request) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in request.signature["outputs"]}


def test_ask_asks_for_an_answer() -> None:
    answer, (request,) = drive(patterns.ask("Where?"), {"answer": " Paris "})
    assert (answer, answer.reasoning) == ("Paris", None)
    assert outputs(request) == {"answer": "str"}
    assert request.inputs == {"question": "Where?"}
    assert not request.reasoning


def test_ask_with_reasoning_keeps_the_thoughts() -> None:
    answer, (request,) = drive(
        patterns.ask("Where?", reasoning=True), {"reasoning": "Look.", "answer": "Paris"}
    )
    assert request.reasoning
    assert (answer, answer.reasoning) == ("Paris", "Look.")


@pytest.mark.parametrize("output", [{}, {"answer": ""}, {"answer": " \n"}])
def test_an_absent_or_empty_answer_is_missing(output: dict[str, Any]) -> None:
    with pytest.raises(OutputFieldMissing, match="answer"):
        drive(patterns.ask("Where?"), output)


def test_answer_with_context_passes_both() -> None:
    answer, (request,) = drive(patterns.answer_with_context("Who?", "Ada did."), {"answer": "Ada"})
    assert answer == "Ada"
    assert request.inputs == {"context": "Ada did.", "question": "Who?"}


def test_classify_returns_a_category() -> None:
    category, (request,) = drive(patterns.classify("Lovely!", ["good", "bad"]), {"category": "bad"})
    assert category == "bad"
    assert outputs(request) == {"category": {"literal": ["good", "bad"]}}


def test_classify_asks_a_second_time_and_says_what_it_wants() -> None:
    category, requests = drive(
        patterns.classify("Lovely!", ["good", "bad"]), {"category": "Good!"}, {"category": "good"}
    )
    assert category == "good"
    assert len(requests) == 2
    assert "exactly" in requests[1].signature["instructions"]


def test_classify_fails_after_two_wrong_answers() -> None:
    with pytest.raises(InvalidCategory, match="none of the categories") as caught:
        drive(
            patterns.classify("Lovely!", ["good", "bad"]),
            {"category": "fine"},
            {"category": "great"},
        )
    assert caught.value.details == {"given": "great", "categories": ["good", "bad"]}


NAMES = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=6, unique=True)


@given(NAMES)
def test_any_category_stands_exactly_in_the_signature(names: list[str]) -> None:
    spec = parse_signature(next(patterns.classify("text", names)).signature)
    literal = (spec.outputs[0].type or "").removeprefix("Literal")
    assert ast.literal_eval(literal) == names


def test_classify_tries_again_when_the_answer_could_not_be_read() -> None:
    steps = patterns.classify("Lovely!", ["good", "bad"])
    next(steps)
    steps.throw(OutputFieldMissing("no category"))
    with pytest.raises(StopIteration) as done:
        steps.send(Prediction({"category": "good"}))
    assert done.value.value == "good"


def test_classify_keeps_the_cause_when_no_answer_could_be_read() -> None:
    steps = patterns.classify("Lovely!", ["good", "bad"])
    next(steps)
    steps.throw(OutputFieldMissing("first"))
    with pytest.raises(InvalidCategory) as caught:
        steps.throw(OutputFieldMissing("second"))
    assert str(caught.value.__cause__) == "second"


def test_summaries_keep_their_length() -> None:
    summary, requests = drive(
        patterns.summarize("Long. " * 50, max_length=4),
        {"summary": "One two three four five."},
        {"summary": "One two. Three four five six."},
    )
    assert summary == "One two."
    assert len(requests) == 2
    assert "4 words" in requests[0].signature["instructions"]


def test_a_short_summary_needs_one_request() -> None:
    summary, requests = drive(patterns.summarize("Long.", max_length=2), {"summary": "Two words"})
    assert (summary, len(requests)) == ("Two words", 1)


def test_generate_passes_the_style() -> None:
    text, (request,) = drive(
        patterns.generate("A rose", style="dry", length=3), {"generated_text": "It is red."}
    )
    assert text == "It is red."
    assert request.inputs == {"prompt": "A rose", "style": "dry"}


@given(st.text(alphabet="ab .!?\"')\n", max_size=80), st.integers(1, 10))
def test_shortened_text_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    short = patterns.shorten(text, limit)
    assert len(short.split()) <= limit
    assert " ".join(text.split()).startswith(short.removesuffix("…"))


def test_entities_are_cleaned_and_found_in_the_text() -> None:
    text = "Tim Cook of Apple met Angela\nMerkel in Berlin. Tim Cook left."
    found, (request,) = drive(
        patterns.extract_entities(text),
        {
            "people": ["Tim Cook", " Angela Merkel. ", "tim cook", "Steve Jobs", ""],
            "organizations": ["Apple", "App"],
            "locations": ["'Berlin'", "Germany"],
        },
    )
    assert found == {
        "people": ["Tim Cook", "Angela Merkel"],
        "organizations": ["Apple"],
        "locations": ["Berlin"],
    }
    assert outputs(request) == dict.fromkeys(["people", "organizations", "locations"], "list[str]")


@given(NAMES)
def test_each_entity_type_has_a_usable_field_of_its_own(names: list[str]) -> None:
    request = next(patterns.extract_entities("text", types=names))
    fields = [field.name for field in parse_signature(request.signature).outputs]
    assert len(fields) == len(set(fields)) == len(names)
    for field in fields:
        assert field.isidentifier()
        assert field.isascii()
        assert not keyword.iskeyword(field)
        assert not field.startswith(("_", "model_"))
        assert field not in {"text", "json", "copy", "reasoning"}


def test_entity_types_keep_their_names_in_the_result() -> None:
    found, (request,) = drive(
        patterns.extract_entities("Bach wrote it.", types=["Job titles", "text"]),
        {"job_titles": [], "text_2": ["Bach"]},
    )
    assert found == {"Job titles": [], "text": ["Bach"]}
    assert outputs(request) == {"job_titles": "list[str]", "text_2": "list[str]"}


BAD: list[tuple[Callable[[], Steps[Any]], type[Exception], str]] = [
    (lambda: patterns.ask(""), InputMismatch, "question is empty"),
    (lambda: patterns.ask(3), InputMismatch, "question must be a str, not int"),  # type: ignore[arg-type]
    (lambda: patterns.answer_with_context("q", " "), InputMismatch, "context is empty"),
    (lambda: patterns.classify("t", []), InputMismatch, "categories is empty"),
    (lambda: patterns.classify("t", ["a", "b", "a"]), InputMismatch, "more than once: a"),
    (lambda: patterns.classify("t", "good"), InputMismatch, "must be a list of str"),
    (lambda: patterns.classify("t", ["a", 1]), InputMismatch, "must be a str, not int"),  # type: ignore[list-item]
    (lambda: patterns.classify("", ["a", "b"]), InputMismatch, "text is empty"),
    (lambda: patterns.summarize("t", max_length=0), ValidationFailed, "max_length .* at least 1"),
    (lambda: patterns.summarize("t", max_length=-3), ValidationFailed, "-3"),
    (lambda: patterns.summarize("t", max_length=True), ValidationFailed, "True"),
    (lambda: patterns.generate("p", length=0), ValidationFailed, "length"),
    (lambda: patterns.generate("p", style=""), InputMismatch, "style is empty"),
    (lambda: patterns.extract_entities("t", types=[]), InputMismatch, "types is empty"),
    (lambda: patterns.extract_entities("t", types=["a", "a"]), InputMismatch, "more than once"),
]


@pytest.mark.parametrize(("steps", "error", "message"), BAD)
def test_bad_input_is_refused_before_anything_is_sent(
    steps: Callable[[], Steps[Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        next(steps())
