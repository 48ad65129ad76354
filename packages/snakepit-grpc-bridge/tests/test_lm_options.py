from __future__ import annotations

import math
from typing import Any

import pytest

from snakepit_grpc_bridge.dspy.options import lm_options
from snakepit_grpc_bridge.errors import ValidationFailed


def options(config: dict[str, Any], *, more: bool = False) -> dict[str, Any]:
    return lm_options({}, {}, config, more=more)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"temperature": 0, "top_p": 1.0, "max_tokens": 1},
        {"top_k": 40, "seed": -7, "stop": "END"},
        {"stop": ["a", "b"], "frequency_penalty": -2, "presence_penalty": 0.5},
        {"temperature": None, "max_tokens": None},
    ],
)
def test_the_usual_options_pass_as_they_are(config: dict[str, Any]) -> None:
    assert options(config) == config
    assert options(config, more=True) == config


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", "hot", "a number from 0 to 2, it was 'hot'"),
        ("temperature", 2.5, "a number from 0 to 2"),
        ("temperature", math.nan, "a number from 0 to 2"),
        ("temperature", True, "a number from 0 to 2"),
        ("max_tokens", -3, "a whole number of at least 1, it was -3"),
        ("max_tokens", 0, "at least 1"),
        ("max_tokens", 10.0, "a whole number"),
        ("top_p", -0.1, "a number from 0 to 1"),
        ("seed", "x", "a whole number, it was"),
        ("stop", [], "text or a list of text"),
        ("stop", ["a", 1], "text or a list of text, it was a value of type list"),
        ("api_key", "k", "settings of the client"),
        ("cache", True, "settings of the client"),
    ],
)
def test_a_wrong_option_is_named_for_every_model(
    name: str, value: object, message: str, more: bool
) -> None:
    with pytest.raises(ValidationFailed, match=f"{name!r} .*from the config.*{message}") as caught:
        options({name: value}, more=more)
    assert caught.value.details["option"] == name


def test_only_a_provider_may_know_further_options() -> None:
    with pytest.raises(ValidationFailed, match=r"'temprature' .* did you mean 'temperature'"):
        options({"temprature": 0.1})
    assert options({"reasoning_effort": "low"}, more=True) == {"reasoning_effort": "low"}


def test_variables_are_checked_alike() -> None:
    own = {"ml_bogus": 1, "mood": "not an option"}
    assert lm_options(own, {}, None, more=True) == {"bogus": 1}
    with pytest.raises(
        ValidationFailed, match=r"'bogus' .*from the variables.*write or delete that"
    ):
        lm_options(own, {}, None, more=False)
