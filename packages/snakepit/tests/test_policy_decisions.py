"""What policies decide, against models: delays, budgets, which errors allow another attempt."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit import CircuitBreaker, HedgePolicy, RetryPolicy
from snakepit.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigurationError,
    Outcome,
    PoolSaturated,
    RemoteError,
    SnakepitError,
    WorkerLost,
)
from snakepit.policies import PolicyCall, with_policies
from snakepit.policies.backoff import full_jitter
from snakepit.policies.budget import RESERVE, AttemptBudget
from snakepit.policies.durations import ENOUGH, REMEMBERED, RecentDurations
from snakepit.policies.retry import may_repeat

chances = st.floats(0, 1)
delays = st.floats(0.001, 1000)


# --- backoff -------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), delays, delays, chances)
def test_a_delay_is_a_part_of_a_ceiling_that_doubles(
    retry: int, first: float, longest: float, chance: float
) -> None:
    ceiling = min(longest, first * 2.0 ** min(retry - 1, 100))
    delay = full_jitter(retry, first=first, longest=longest, chance=chance)
    assert 0 <= delay <= longest
    assert delay == pytest.approx(chance * ceiling)


# --- budget --------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.0, 0.125, 0.5, 1.0, 3.0]))
def test_extra_attempts_are_a_part_of_the_calls_and_a_few_more(
    is_call: list[bool], per_call: float
) -> None:
    budget = AttemptBudget(per_call)
    calls = spent = 0
    for each in is_call:
        if each:
            budget.earn()
            calls += 1
        else:
            spent += budget.spend()
        assert spent <= RESERVE + per_call * calls


def test_a_budget_that_is_used_up_is_earned_again() -> None:
    budget = AttemptBudget(0.5)
    assert [budget.spend() for _ in range(RESERVE + 1)] == [True] * RESERVE + [False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == RESERVE


# --- durations -----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), max_size=3 * REMEMBERED), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_that_of_the_last_calls(durations: list[float], part: float) -> None:
    recent = RecentDurations()
    for duration in durations:
        recent.record(duration)
    last = sorted(durations[-REMEMBERED:])
    found = recent.quantile(part)
    if len(last) < ENOUGH:
        assert found is None
    else:
        assert found is not None
        within = sum(duration <= found for duration in last)
        assert found in last
        assert within >= part * len(last)
        assert sum(duration < found for duration in last) < part * len(last)


# --- which errors allow another attempt ----------------------------------------------------------


def error_of(outcome: Outcome, retryable: bool, **details: Any) -> SnakepitError:
    return SnakepitError("no", outcome=outcome, retryable=retryable, details=details)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("idempotent", [True, False])
def test_what_may_have_run_is_repeated_only_if_that_does_no_harm(
    outcome: Outcome, retryable: bool, idempotent: bool
) -> None:
    allowed = may_repeat(
        error_of(outcome, retryable), PolicyCall(command="x", idempotent=idempotent)
    )
    assert allowed == (retryable and (outcome is Outcome.NONE or idempotent))


@pytest.mark.parametrize(
    ("error", "idempotent", "allowed"),
    [
        (PoolSaturated("full"), False, True),
        (CircuitOpen.of("x", retry_after_s=0.0), False, True),
        (WorkerLost("gone"), True, False),
        (WorkerLost("gone", retryable=True), True, True),
        (WorkerLost("gone", retryable=True), False, False),
        (CallTimeout("late", outcome=Outcome.NONE, retryable=True), False, True),
        (RemoteError.of("ValueError", "no"), True, False),
    ],
)
def test_errors_of_the_pool(error: SnakepitError, idempotent: bool, allowed: bool) -> None:
    assert may_repeat(error, PolicyCall(command="x", idempotent=idempotent)) is allowed


@given(
    st.integers(1, 10),
    st.integers(1, 10),
    st.one_of(st.none(), st.floats(-5, 5)),
    st.one_of(st.none(), st.floats(0, 50)),
    chances,
)
def test_no_attempt_is_begun_for_which_there_is_no_time(
    attempts: int, attempt: int, left: float | None, retry_after: float | None, chance: float
) -> None:
    policy = RetryPolicy(attempts=attempts, first_delay=0.1, longest_delay=2.0)
    call = PolicyCall(command="x", deadline=None if left is None else 100.0 + left)
    details = {} if retry_after is None else {"retry_after_s": retry_after}
    error = error_of(Outcome.NONE, True, **details)
    delay = policy.delay_after(error, call, attempt, 100.0, chance)
    if delay is None:
        late = left is not None and left <= 2.0 + (retry_after or 0.0)
        assert attempt >= attempts or late
    else:
        assert attempt < attempts
        assert delay >= (retry_after or 0.0)
        assert left is None or delay < 100.0 + left - 100.0


def test_a_call_is_limited_by_the_earlier_of_two_deadlines() -> None:
    call = PolicyCall(command="x", deadline=10.0)
    assert call.within(3.0, now=5.0).deadline == 8.0
    assert call.within(7.0, now=5.0).deadline == 10.0
    assert call.within(None, now=5.0) is call
    assert PolicyCall(command="x").within(3.0, now=5.0).deadline == 8.0


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (RetryPolicy, {"attempts": 0}, "attempts is 0"),
        (RetryPolicy, {"first_delay": 0}, "first_delay is 0"),
        (RetryPolicy, {"longest_delay": math.inf}, "longest_delay is inf"),
        (RetryPolicy, {"attempt_timeout": -1}, "attempt_timeout is -1"),
        (RetryPolicy, {"budget": -0.1}, "budget is -0.1"),
        (RetryPolicy, {"budget": math.nan}, "budget is nan"),
        (CircuitBreaker, {"failures": 0}, "failures is 0"),
        (CircuitBreaker, {"error_rate": 0}, "error_rate is 0"),
        (CircuitBreaker, {"error_rate": 1.5}, "error_rate is 1.5"),
        (CircuitBreaker, {"least_calls": 0}, "least_calls is 0"),
        (CircuitBreaker, {"window": 0}, "window is 0"),
        (CircuitBreaker, {"open_time": timedelta(0)}, "open_time is"),
        (CircuitBreaker, {"probes": 0}, "probes is 0"),
        (HedgePolicy, {"after": 0}, "after is 0"),
        (HedgePolicy, {"budget": 1.1}, "budget is 1.1"),
    ],
)
def test_impossible_options_of_policies_are_refused(
    policy: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        policy(**options)


def test_what_is_no_policy_is_refused() -> None:
    target: Any = object()
    for wrong in (RetryPolicy, 3, None):
        with pytest.raises(ConfigurationError, match="is no policy"):
            with_policies(target, wrong)  # type: ignore[arg-type]
