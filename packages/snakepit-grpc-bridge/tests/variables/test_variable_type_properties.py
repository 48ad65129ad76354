"""What holds for the values of every type of variables."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variable_values import CASES, INTEGERS, KEY, PLAIN, Case, same, share

from snakepit.wire.codec import decode, encode
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables.types import Declaration, TypeRegistry

TYPES = TypeRegistry()
quickly = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
every_type = pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)


def test_every_type_has_a_case() -> None:
    assert {case.type for case in CASES} == set(TYPES.supported())


@every_type
@given(data=st.data())
@quickly
def test_a_value_is_stored_as_an_equal_one_that_is_private(case: Case, data: st.DataObject) -> None:
    declared = TYPES.declare(case.type, case.constraints)
    value, expected = data.draw(case.values)
    stored = declared.read(value)
    assert same(stored, expected)
    assert not share(stored, value)
    assert same(declared.read(stored), stored)


@every_type
@given(data=st.data())
@quickly
def test_readers_can_change_nothing_that_is_stored(case: Case, data: st.DataObject) -> None:
    declared = TYPES.declare(case.type, case.constraints)
    stored = declared.read(data.draw(case.values).value)
    copy = declared.copy(stored)
    assert same(copy, stored)
    assert not share(copy, stored)
    assert not share(copy, declared.copy(stored))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.type != "secret"], ids=lambda case: case.type
)
@given(data=st.data())
@quickly
def test_a_stored_value_travels_and_comes_back_the_same(case: Case, data: st.DataObject) -> None:
    declared = TYPES.declare(case.type, case.constraints)
    stored = declared.read(data.draw(case.values).value)
    assert same(declared.from_plain(decode(encode(declared.to_plain(stored)))), stored)


@every_type
@given(junk=PLAIN.map(lambda given: given.value) | st.sampled_from([object(), int, len, KEY]))
@quickly
def test_anything_else_is_refused_in_one_way(case: Case, junk: Any) -> None:
    error = refusal(TYPES.declare(case.type, case.constraints), junk)
    if error is not None:
        assert repr(case.type) in str(error)
        assert error.details["type"] == case.type
        assert case.type != "secret" or KEY not in str(error)


def refusal(declared: Declaration[Any], value: Any) -> ValidationFailed | None:
    try:
        declared.read(value)
    except ValidationFailed as error:
        return error
    return None


@every_type
@given(data=st.data())
@quickly
def test_a_value_has_a_type_that_takes_it(case: Case, data: st.DataObject) -> None:
    value = data.draw(case.values).value
    name = TYPES.infer(value)
    if name != "datetime" or value.tzinfo is not None:  # which plain data may be without
        TYPES.declare(name).read(value)


# --- constraints hold after a write --------------------------------------------------------------


def kept(type_name: str, constraints: dict[str, Any], value: Any) -> Any:
    """What is stored, or None if it was refused."""
    try:
        return TYPES.declare(type_name, constraints).read(value)
    except ValidationFailed:
        return None


@given(INTEGERS, st.integers(), st.integers(0))
@quickly
def test_integers_stay_within_their_bounds(given_: Any, least: int, size: int) -> None:
    most = least + size
    stored = kept("integer", {"min": least, "max": most}, given_.value)
    assert (stored is not None) == (least <= given_.stored <= most)


@given(st.floats(), st.floats(allow_nan=False), st.floats(allow_nan=False))
@quickly
def test_floats_stay_within_their_bounds(value: float, one: float, other: float) -> None:
    least, most = min(one, other), max(one, other)
    stored = kept("float", {"min": least, "max": most}, value)
    assert (stored is not None) == (least <= value <= most)


@given(st.integers(-1000, 1000), st.integers(1, 50), st.integers(-1000, 1000))
@quickly
def test_integers_stay_on_their_steps(least: int, step: int, offset: int) -> None:
    stored = kept("integer", {"min": least, "step": step}, least + offset)
    assert (stored is not None) == (offset >= 0 and offset % step == 0)


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from([0.1, 0.01, 0.3, 1 / 3, 2.5, 1e-9, 1e9]),
    st.sampled_from([0.0, 0.1, -7.3, 1e6]),
    st.floats(0.01, 0.99),
)
@quickly
def test_floats_stay_on_their_steps(count: int, step: float, least: float, between: float) -> None:
    value = least + abs(count) * step
    limits = {"min": least, "step": step}
    assert kept("float", limits, value) == value
    off = value + between * step
    # Where floats are coarser than that, there is nothing between the steps.
    if math.ulp(max(off, abs(least))) * 100 < step:
        assert kept("float", limits, off) is None


def test_sums_are_on_their_steps() -> None:
    total = 0.0
    for _ in range(1000):
        total += 0.1
        assert kept("float", {"step": 0.1}, total) == total


@given(st.text("ab", max_size=5), st.integers(0, 5), st.integers(0, 5))
@quickly
def test_text_keeps_its_length_and_pattern(text: str, one: int, other: int) -> None:
    least, most = sorted((one, other))
    stored = kept("string", {"min_length": least, "max_length": most, "pattern": "a*b?"}, text)
    fits = text.rstrip("b").strip("a") == "" and text.count("b") <= 1 and "ba" not in text
    assert (stored is not None) == (least <= len(text) <= most and fits)
