from __future__ import annotations

from typing import Any

import pytest

import dspex
from dspex.errors import ConfigurationError, SignatureInvalid


def test_a_class_keeps_what_it_declares() -> None:
    class QA(
        dspex.Module,
        path="dspy.ChainOfThought",
        signature="question -> answer",
        methods={"reset": "clear"},
        enhanced_mode=True,
    ):
        """Answers questions.

        At length.
        """

    info = QA.info()
    assert (info.path, info.signature) == ("dspy.ChainOfThought", "question -> answer")
    assert info.description == "Answers questions."
    assert dict(info.methods) == {"reset": "clear"}
    assert info.enhanced_mode
    assert info.module == "QA"


def test_what_is_not_declared_has_a_default() -> None:
    class Plain(dspex.Module, path="dspy.Predict"):
        pass

    info = Plain.info()
    assert (info.signature, info.description) == (
        "input -> output",
        "DSPy wrapper for dspy.Predict",
    )
    assert (dict(info.methods), info.enhanced_mode) == ({}, False)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"path": "Predict"}, "dotted path"),
        ({"path": "dspy."}, "dotted path"),
        ({"path": "dspy.__builtins__"}, "dotted path"),
        ({"path": None}, "dotted path"),
        ({"methods": {"reset": "not a name"}}, "'not a name'"),
        ({"methods": {"reset": "_hidden"}}, "'_hidden'"),
        ({"methods": {"class": "clear"}}, "'class'"),
        ({"methods": {"reset": "execute"}}, "another 'execute'"),
        ({"methods": {"reset": "chain_of_thought"}}, "another 'chain_of_thought'"),
        ({"methods": {"reset": "clear", "wipe": "clear"}}, "another 'clear'"),
        ({"signature": None, "enhanced_mode": True}, "needs a signature"),
    ],
)
def test_a_wrong_declaration_fails_at_the_class_statement(
    declared: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        type("QA", (dspex.Module,), {}, **({"path": "dspy.Predict"} | declared))


def test_a_wrong_signature_fails_at_the_class_statement() -> None:
    with pytest.raises(SignatureInvalid, match="no output field"):
        type("QA", (dspex.Module,), {}, path="dspy.Predict", signature="question ->")


def test_a_program_class_is_created_in_a_worker_only() -> None:
    class QA(dspex.Module, path="dspy.Predict"):
        pass

    with pytest.raises(TypeError, match=r"use QA\.create\(\)"):
        QA()
