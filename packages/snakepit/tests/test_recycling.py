"""When a healthy worker is replaced. Pure."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import ConfigurationError
from snakepit.supervision.recycling import RecyclePolicy


@given(st.floats(0, 1))
def test_each_worker_has_an_age_limit_of_its_own_near_the_policys(chance: float) -> None:
    policy = RecyclePolicy(max_age=timedelta(minutes=10))
    assert 540 <= policy.age_limit(chance) <= 600
    assert policy.age_limit(0.0) == 600
    assert policy.age_limit(1.0) == pytest.approx(540)


def test_without_a_limit_there_is_no_reason() -> None:
    policy = RecyclePolicy()
    assert policy.age_limit(0.5) == math.inf
    assert policy.reason_by_age(1e9, math.inf) is None
    assert policy.reason_by_memory(1 << 50) is None


def test_the_reason_names_what_was_reached() -> None:
    policy = RecyclePolicy(max_memory=1000)
    assert policy.reason_by_age(9.9, 10.0) is None
    assert "10.0 s old" in str(policy.reason_by_age(10.0, 10.0))
    assert policy.reason_by_memory(1000) is None
    assert "1001 bytes" in str(policy.reason_by_memory(1001))


@pytest.mark.parametrize(
    "options", [{"max_calls": 0}, {"max_age": -1.0}, {"max_memory": 0}, {"max_calls": True}]
)
def test_impossible_policies_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RecyclePolicy(**options)  # type: ignore[arg-type]
