"""Which calls are due, and when to look again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.calls.call import Call, CallEvent
from snakepit.calls.deadlines import Deadlines, timeout_error
from snakepit.errors import CallTimeout, Outcome, QueueTimeout
from snakepit.loops.wakeups import WakeUps


def new_call(
    deadline: float | None = None,
    queue_deadline: float | None = None,
    run_limit: float | None = None,
) -> Call:
    return Call(
        "work", {}, wakeups=WakeUps(), submitted_at=0.0,
        deadline=deadline, queue_deadline=queue_deadline, run_limit=run_limit,
    )  # fmt: skip


def test_the_timer_is_set_only_for_an_earlier_deadline() -> None:
    deadlines = Deadlines()
    assert deadlines.add(new_call(), 5.0)
    assert not deadlines.add(new_call(), 7.0)
    assert not deadlines.add(new_call(), 5.0)
    assert deadlines.add(new_call(), 3.0)
    assert len(deadlines.calls) == 4


def test_a_call_is_due_at_its_deadline_and_only_once() -> None:
    deadlines = Deadlines()
    call = new_call(5.0)
    deadlines.add(call, 5.0)
    assert deadlines.due(4.999) == ([], 5.0)
    assert deadlines.due(5.0) == ([call], None)
    assert deadlines.due(6.0) == ([], None)
    assert len(deadlines.calls) == 0


def test_the_next_look_is_at_the_earliest_of_those_left() -> None:
    deadlines = Deadlines()
    calls = {at: new_call(at) for at in (3.0, 1.0, 2.0)}
    for at, call in calls.items():
        deadlines.add(call, at)
    assert deadlines.due(1.5) == ([calls[1.0]], 2.0)
    assert deadlines.due(9.0) == ([calls[3.0], calls[2.0]], None)


def test_a_discarded_call_is_never_due() -> None:
    deadlines = Deadlines()
    call = new_call()
    deadlines.add(call, 1.0)
    del deadlines.calls[call]
    assert deadlines.due(2.0) == ([], None)


def test_a_timer_that_is_set_serves_a_later_deadline_too() -> None:
    """The early call has ended, but its timer still fires, and is then set anew."""
    deadlines = Deadlines()
    early, late = new_call(1.0), new_call(2.0)
    deadlines.add(early, 1.0)
    del deadlines.calls[early]
    assert not deadlines.add(late, 2.0)
    assert deadlines.due(1.0) == ([], 2.0)
    assert deadlines.due(2.0) == ([late], None)


def test_after_the_last_call_any_deadline_sets_the_timer() -> None:
    deadlines = Deadlines()
    deadlines.add(new_call(), 1.0)
    deadlines.due(1.0)
    assert deadlines.add(new_call(), 100.0)


class Moving(Call):
    """A stream whose limit moves, as items come."""

    limit: float | None = None

    def limit_at(self, now: float) -> float | None:
        return self.limit


def test_a_limit_that_has_moved_is_looked_at_again_when_it_may_be_reached() -> None:
    deadlines = Deadlines()
    call = Moving("work", {}, wakeups=WakeUps(), submitted_at=0.0)
    assert deadlines.add(call, 5.0)
    call.limit = 8.0
    assert deadlines.due(5.0) == ([], 8.0)
    call.limit = 12.0
    assert deadlines.due(8.0) == ([], 12.0)
    assert deadlines.due(12.0) == ([call], None)


def test_the_limit_of_waiting_counts_only_while_a_call_waits() -> None:
    deadlines = Deadlines()
    waits, runs, endless = new_call(9.0, 2.0), new_call(9.0, 2.0), new_call(None, 2.0)
    for call in (waits, runs, endless):
        assert call.limit_at(0.0) == 2.0
        deadlines.add(call, 2.0)
    runs.started_at = endless.started_at = 1.0
    assert deadlines.due(2.0) == ([waits], 9.0)
    assert len(deadlines.calls) == 1, "nothing limits what has no deadline and runs"
    error = timeout_error(waits, 2.5)
    assert isinstance(error, QueueTimeout)
    assert error.details == {"command": "work", "limit": "queue", "timeout_s": 2.0, "queued_s": 2.5}
    assert (error.outcome, error.retryable) == (Outcome.NONE, True)
    assert deadlines.due(9.0) == ([runs], None)
    late = timeout_error(runs, 9.5)
    assert isinstance(late, CallTimeout)
    assert (late.limit, late.queued_s, late.ran_s) == ("total", 1.0, 8.5)


def test_the_total_limit_is_named_when_it_is_the_one_reached_in_the_queue() -> None:
    error = timeout_error(new_call(3.0, 5.0), 3.0)
    assert isinstance(error, CallTimeout)
    assert (error.limit, error.queued_s, error.ran_s) == ("total", 3.0, 0.0)
    assert (error.outcome, error.retryable) == (Outcome.NONE, True)


def started(call: Call, now: float) -> Call:
    call.apply(CallEvent.START)
    call.started_at = now
    call.limit_run(now)
    return call


def test_the_limit_of_running_counts_from_the_start_and_anew_after_a_recall() -> None:
    call = new_call(run_limit=2.0)
    assert call.limit_at(50.0) is None, "while it waits, nothing limits it"
    started(call, 50.0)
    assert call.limit_at(50.0) == 52.0
    call.recall()
    assert call.limit_at(51.0) is None
    started(call, 60.0)
    error = timeout_error(call, 62.0)
    assert isinstance(error, CallTimeout)
    assert (error.limit, error.queued_s, error.ran_s) == ("run", 60.0, 2.0)
    assert error.details["timeout_s"] == 2.0


def test_the_total_limit_is_not_moved_by_that_of_running() -> None:
    call = started(new_call(3.0, run_limit=5.0), 1.0)
    assert call.limit_at(1.0) == 3.0
    error = timeout_error(call, 3.0)
    assert isinstance(error, CallTimeout)
    assert error.limit == "total"


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.booleans()), max_size=20))
def test_a_single_timer_is_late_for_no_call(calls: list[tuple[int, int, bool]]) -> None:
    """Each call: how long it may take, when it comes, whether it ends before. Time is a number."""
    deadlines = Deadlines()
    timer: float | None = None
    due_at: dict[Call, float] = {}
    expected: dict[Call, float] = {}
    for now in range(45):
        for limit, comes, ends in calls:
            if comes == now:
                call = new_call(now + limit)
                if deadlines.add(call, now + limit):
                    timer = now + limit
                if ends:
                    del deadlines.calls[call]
                else:
                    expected[call] = now + limit
        if timer is not None and timer <= now:
            due, timer = deadlines.due(now)
            due_at |= dict.fromkeys(due, now)
    assert due_at == expected
    assert len(deadlines.calls) == 0
