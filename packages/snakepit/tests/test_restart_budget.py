"""When a dead worker is replaced, and when no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.supervision.restarts import RestartBudget


def test_the_first_replacement_is_immediate_and_the_delay_doubles_up_to_a_limit() -> None:
    budget = RestartBudget(limit=100)
    delays = [budget.record_failure(now=0.0) for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_budget_is_spent_by_the_last_failure_it_allows() -> None:
    budget = RestartBudget(limit=3)
    states = []
    for _ in range(4):
        states.append(budget.is_spent)
        budget.record_failure(now=0.0)
    assert states == [False, False, False, True]
    assert budget.is_spent


def test_a_completed_call_restores_it() -> None:
    budget = RestartBudget(limit=3)
    budget.record_failure(now=0.0)
    budget.record_failure(now=0.0)
    budget.record_success()
    assert budget.failures == 0
    assert budget.record_failure(now=0.0) == 0.0
    assert not budget.is_spent


def test_workers_that_die_together_count_once() -> None:
    budget = RestartBudget(limit=3)
    assert [budget.record_death(now=5.0, started_at=1.0) for _ in range(10)] == [0.0] * 10
    assert budget.failures == 1
    assert budget.record_death(now=6.0, started_at=5.5) == 0.1
    assert budget.record_death(now=7.0, started_at=5.5) == 0.0
    assert budget.record_death(now=8.0, started_at=7.5) == 0.2
    assert budget.is_spent


def test_failures_in_a_row_are_a_loop_until_the_last_is_long_ago() -> None:
    budget = RestartBudget(limit=8)
    looping = []
    for now in (10.0, 20.0, 30.0):
        budget.record_failure(now)
        looping.append(budget.is_looping(now))
    assert looping == [False, False, True]
    assert budget.is_looping(59.0)
    assert not budget.is_looping(61.0)
    budget.record_success()
    assert not budget.is_looping(31.0)


@given(st.integers(1, 50), st.lists(st.booleans(), max_size=200))
def test_it_is_spent_exactly_when_that_many_failures_came_in_a_row(
    limit: int, events: list[bool]
) -> None:
    budget = RestartBudget(limit=limit)
    row = 0
    for failed in events:
        if failed:
            row += 1
            assert 0.0 <= budget.record_failure(now=0.0) <= 5.0
        else:
            row = 0
            budget.record_success()
        assert budget.is_spent == (row >= limit)
