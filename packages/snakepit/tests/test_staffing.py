"""Which workers come and go. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.supervision.staffing import Moves, Staff, moves


def names(prefix: str, most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.integers(0, most).map(lambda count: tuple(f"{prefix}{i}" for i in range(count)))


@st.composite
def staffs(draw: st.DrawFn) -> Staff:
    return Staff(
        size=draw(st.integers(1, 12)),
        spares=draw(st.integers(0, 3)),
        serving=draw(names("w", 12)),
        spare=draw(names("s", 4)),
        coming=draw(st.integers(0, 6)),
        room=draw(st.none() | st.integers(-3, 12)),
    )


def after(staff: Staff, done: Moves) -> Staff:
    """What is there when the moves are made."""
    kept = (each for each in staff.serving if each not in done.let_go)
    left = (each for each in staff.spare if each not in (*done.promote, *done.dismiss))
    return Staff(
        size=staff.size,
        spares=staff.spares,
        serving=(*kept, *done.promote),
        spare=tuple(left),
        coming=staff.coming + done.start - done.call_off,
        room=None if staff.room is None else staff.room - done.start + done.call_off,
    )


@given(staffs())
def test_once_done_there_is_no_more_to_do(staff: Staff) -> None:
    assert not moves(after(staff, moves(staff)))


@given(staffs())
def test_there_are_as_many_as_there_are_to_be(staff: Staff) -> None:
    settled = after(staff, moves(staff))
    total = len(settled.serving) + len(settled.spare) + settled.coming
    assert len(settled.serving) <= staff.size
    assert total <= staff.size + staff.spares
    if staff.room is None:
        assert total == staff.size + staff.spares
    if len(settled.serving) < staff.size:
        assert settled.spare == ()


@given(staffs())
def test_nobody_who_serves_leaves_while_others_do_not_suffice(staff: Staff) -> None:
    done = moves(staff)
    if done.let_go:
        assert len(staff.serving) > staff.size
        assert done.let_go == staff.serving[: len(done.let_go)]
        assert not done.promote
    if done.dismiss:
        assert done.call_off == staff.coming
    assert not (done.start and (done.call_off or done.dismiss))


@given(staffs())
def test_no_more_are_started_than_there_is_room_for(staff: Staff) -> None:
    if staff.room is not None:
        assert moves(staff).start <= max(0, staff.room)


def test_a_spare_one_takes_the_place_of_one_that_is_missing_and_is_replaced() -> None:
    staff = Staff(size=2, spares=1, serving=("a",), spare=("x",), coming=0)
    assert moves(staff) == Moves(promote=("x",), start=1)


def test_what_is_not_up_yet_is_called_off_before_a_worker_is_let_go() -> None:
    staff = Staff(size=2, spares=0, serving=("a", "b"), spare=(), coming=2)
    assert moves(staff) == Moves(call_off=2)
