"""Signatures are understood, and refused, without DSPy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_grpc_bridge.dspy.signature import parse_signature
from snakepit_grpc_bridge.errors import InputMismatch, SignatureInvalid


def test_text_and_plain_data_give_the_same_signature() -> None:
    text = parse_signature("question, context: list[str] -> mood: Literal['good', 'bad']", "Judge.")
    plain = parse_signature(
        {
            "instructions": "Judge.",
            "inputs": ["question", {"name": "context", "type": "list[str]"}],
            "outputs": [{"name": "mood", "type": {"literal": ["good", "bad"]}}],
        }
    )
    assert text == plain
    assert text.text == "question, context: list[str] -> mood: Literal['good', 'bad']"
    assert parse_signature(text.to_plain()) == text


@pytest.mark.parametrize(
    "field_type",
    [
        "str", "int", "list[str]", "dict[str, list[str]]", "str | None", "Optional[int]",
        "tuple[int, ...]", "Union[int, str]", "Literal['a, b', 'c -> d', 'it\\'s', 3, -1]",
        "dspy.Image", "list", "Any",
    ],
)  # fmt: skip
def test_types(field_type: str) -> None:
    spec = parse_signature(f"a: {field_type}, b -> c: {field_type}, d")
    assert [field.name for field in (*spec.inputs, *spec.outputs)] == ["a", "b", "c", "d"]
    assert spec.inputs[0].type == spec.outputs[0].type == field_type


@pytest.mark.parametrize(
    ("signature", "problem"),
    [
        ("", "it is empty"),
        ("question", "no '->'"),
        ("question ->", "no output field after '->'"),
        ("-> answer", "no input field before '->'"),
        ("a -> b -> c", "2 times '->'"),
        ("a,, b -> c", "a comma too many"),
        ("a, -> c", "a comma too many"),
        ("a: -> c", "no type after its ':'"),
        ("a: b: c -> d", "more than one ':'"),
        ("1a -> b", "'1a' is no field name"),
        ("the question -> b", "'the question' is no field name"),
        ("class -> b", "'class' is no field name"),
        ("a -> a", "'a' is there twice"),
        ("_a -> b", "reserved by DSPy"),
        ("signature -> b", "reserved by DSPy"),
        ("config -> b", "DSPy takes it as an option"),
        ("a: strr -> b", "did you mean 'str'"),
        ("a: os.system -> b", "is 'os.system', which is not known"),
        ("a: list[str -> b", "no '->'"),
        ("a: list[int, str] -> b", "list takes 1"),
        ("a: list[] -> b", "does not parse"),
        ("a -> b: Literal[good]", "quote text"),
        ("a -> b: __import__('os')", "not known"),
        ("a: " + "list[" * 3000 + "int" + "]" * 3000 + " -> b", "does not parse"),
        ("a" * 30_000 + " -> b", "the limit is"),
        ({"inputs": ["a"]}, "'outputs' must be a list"),
        ({"inputs": ["a"], "outputs": ["b"], "input": []}, "did you mean 'inputs'"),
        ({"inputs": [{"name": "a", "typ": "str"}], "outputs": ["b"]}, "a field is a mapping"),
        ({"inputs": ["a"], "outputs": [{"name": "b", "type": {"literal": []}}]}, "not known"),
        ({"inputs": ["a"], "outputs": ["b"], "instructions": 3}, "instructions are a int"),
        (7, "neither text nor a mapping"),
    ],
)
def test_wrong_signatures_say_what_is_wrong(signature: object, problem: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        parse_signature(signature)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert "a signature looks like" in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.text(alphabet="ab,:->[] '\"|\\Literalstn", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_signature_or_invalid(text: str) -> None:
    try:
        spec = parse_signature(text)
    except SignatureInvalid:
        return
    assert parse_signature(spec.text).text == spec.text
    assert spec.inputs
    assert spec.outputs


def test_inputs_are_compared_with_the_fields() -> None:
    spec = parse_signature("question, context: str | None -> answer")
    assert spec.check_inputs({"question": "q"}) == {"question": "q"}
    with pytest.raises(InputMismatch) as caught:
        spec.check_inputs({"context": "c", "questoin": "q"})
    assert caught.value.missing == ["question"]
    assert caught.value.unexpected == ["questoin"]
    with pytest.raises(InputMismatch):
        spec.check_inputs("question")
