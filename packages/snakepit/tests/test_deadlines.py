"""Which calls are due, and when to look again."""

from __future__ import annotations

from asyncio import Future
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from snakepit.calls import Call
from snakepit.deadlines import Deadlines

NO_ANSWER = cast("Future[Any]", None)


def new_call() -> Call:
    return Call("work", {}, answer=NO_ANSWER, submitted_at=0.0)


def test_the_timer_is_set_only_for_an_earlier_deadline() -> None:
    deadlines = Deadlines()
    assert deadlines.add(new_call(), 5.0)
    assert not deadlines.add(new_call(), 7.0)
    assert not deadlines.add(new_call(), 5.0)
    assert deadlines.add(new_call(), 3.0)
    assert len(deadlines) == 4


def test_a_call_is_due_at_its_deadline_and_only_once() -> None:
    deadlines = Deadlines()
    call = new_call()
    deadlines.add(call, 5.0)
    assert deadlines.due(4.999) == ([], 5.0)
    assert deadlines.due(5.0) == ([call], None)
    assert deadlines.due(6.0) == ([], None)
    assert len(deadlines) == 0


def test_the_next_look_is_at_the_earliest_of_those_left() -> None:
    deadlines = Deadlines()
    calls = {at: new_call() for at in (3.0, 1.0, 2.0)}
    for at, call in calls.items():
        deadlines.add(call, at)
    assert deadlines.due(1.5) == ([calls[1.0]], 2.0)
    assert deadlines.due(9.0) == ([calls[3.0], calls[2.0]], None)


def test_a_discarded_call_is_never_due() -> None:
    deadlines = Deadlines()
    call = new_call()
    deadlines.add(call, 1.0)
    deadlines.discard(call)
    deadlines.discard(call)
    assert deadlines.due(2.0) == ([], None)


def test_a_timer_that_is_set_serves_a_later_deadline_too() -> None:
    """The early call has ended, but its timer still fires, and is then set anew."""
    deadlines = Deadlines()
    early, late = new_call(), new_call()
    deadlines.add(early, 1.0)
    deadlines.discard(early)
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
    call = Moving("work", {}, answer=NO_ANSWER, submitted_at=0.0)
    assert deadlines.add(call, 5.0)
    call.limit = 8.0
    assert deadlines.due(5.0) == ([], 8.0)
    call.limit = 12.0
    assert deadlines.due(8.0) == ([], 12.0)
    assert deadlines.due(12.0) == ([call], None)


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
                call = new_call()
                if deadlines.add(call, now + limit):
                    timer = now + limit
                if ends:
                    deadlines.discard(call)
                else:
                    expected[call] = now + limit
        if timer is not None and timer <= now:
            due, timer = deadlines.due(now)
            due_at |= dict.fromkeys(due, now)
    assert due_at == expected
    assert len(deadlines) == 0
