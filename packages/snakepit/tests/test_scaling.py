"""When a pool's size follows its calls. Pure: what is seen and the time are made up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from snakepit import Sizing
from snakepit.options import seconds
from snakepit.supervision.scaling import Change, Load, Scaler

SIZINGS = st.builds(
    lambda least, more, wait, idle: Sizing(min=least, max=least + more, queue_wait=wait, idle=idle),
    st.integers(1, 5),
    st.integers(1, 20),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([1.0, 10.0, 60.0]),
)
# What happens between two looks: seconds that pass, slots taken, calls that wait, and for how long
# the next one has waited, as a part of them.
MOMENTS = st.lists(
    st.tuples(st.floats(0.01, 30.0), st.integers(0, 200), st.integers(0, 50), st.floats(0.0, 1.0)),
    max_size=40,
)
Moment = tuple[float, int, int, float]


def load(size: int = 1, **facts: object) -> Load:
    settled = Load(size=size, serving=size, slots=1, taken=0, waiting=0, waits_since=None)
    return dataclasses.replace(settled, **facts)  # type: ignore[arg-type]


def looks(
    sizing: Sizing, moments: list[Moment], slots: int
) -> Iterator[tuple[float, Load, Change | None]]:
    """A pool that follows the scaler at once."""
    scaler, now, size = Scaler(sizing, 0.0), 0.0, sizing.min
    for passed, taken, waiting, waited in moments:
        now += passed
        seen = load(
            size,
            slots=slots,
            taken=min(taken, size * slots),
            waiting=waiting,
            waits_since=now - passed * waited if waiting else None,
        )
        change = scaler.decide(seen, now)
        yield now, seen, change
        if change is not None:
            size = change.size


@given(SIZINGS, MOMENTS, st.integers(1, 16))
def test_the_size_stays_within_its_limits_and_every_change_is_one(
    sizing: Sizing, moments: list[Moment], slots: int
) -> None:
    for _, seen, change in looks(sizing, moments, slots):
        if change is not None:
            assert sizing.min <= change.size <= sizing.most
            assert change.size != seen.size
            assert change.reason


@given(SIZINGS, MOMENTS, st.integers(1, 16))
def test_it_grows_only_for_a_call_that_has_waited_since_the_last_change_and_doubles_at_most(
    sizing: Sizing, moments: list[Moment], slots: int
) -> None:
    changed_at = 0.0
    for now, seen, change in looks(sizing, moments, slots):
        if change is not None and change.size > seen.size:
            assert seen.waits_since is not None
            assert now - max(seen.waits_since, changed_at) >= sizing.queue_wait  # type: ignore[operator]
            assert change.size <= 2 * seen.size
            assert (change.size - seen.size - 1) * slots < seen.waiting
        if change is not None:
            changed_at = now


@given(SIZINGS, MOMENTS, st.integers(1, 16))
def test_it_shrinks_only_after_a_spell_that_needed_less_and_to_half_at_most(
    sizing: Sizing, moments: list[Moment], slots: int
) -> None:
    history: list[tuple[float, int]] = [(0.0, 0)]
    changed_at = 0.0
    for now, seen, change in looks(sizing, moments, slots):
        history.append((now, seen.demand))
        if change is not None and change.size < seen.size:
            assert now - changed_at >= sizing.idle  # type: ignore[operator]
            recent = [demand for at, demand in history if at > now - sizing.idle]  # type: ignore[operator]
            assert max(recent) <= change.size
            assert change.size >= seen.size / 2
        if change is not None:
            changed_at = now


@given(SIZINGS, st.integers(0, 40), st.integers(1, 16))
def test_under_a_steady_load_it_comes_to_rest(sizing: Sizing, calls: int, slots: int) -> None:
    """The load is what it is; calls that have no slot wait, and have waited long."""
    scaler, size, sizes = Scaler(sizing, 0.0), sizing.most, []
    for number in range(1, 400):
        now = number * seconds("idle", sizing.idle) / 8
        waiting = max(0, calls - size * slots)
        seen = load(
            size,
            slots=slots,
            taken=calls - waiting,
            waiting=waiting,
            waits_since=0.0 if waiting else None,
        )
        change = scaler.decide(seen, now)
        size = size if change is None else change.size
        sizes.append(size)
    needed = min(max(math.ceil(calls / slots), sizing.min), sizing.most)
    rested = [at for at, size in enumerate(sizes) if size != needed]
    assert sizes[-1] == needed
    # Monotonic: it never overshoots and comes back.
    assert sizes == sorted(sizes, reverse=True), rested


def test_while_workers_are_coming_it_does_not_grow() -> None:
    scaler = Scaler(Sizing(min=1, max=8, queue_wait=1.0), 0.0)
    crowd = load(2, taken=1, waiting=9, waits_since=0.0)
    assert scaler.decide(dataclasses.replace(crowd, serving=1), 5.0) is None
    assert scaler.decide(crowd, 5.0) == Change(4, "9 calls wait, the next one for 5 s")
    assert scaler.decide(dataclasses.replace(crowd, size=4, serving=4), 5.9) is None
    grown = scaler.decide(dataclasses.replace(crowd, size=4, serving=4), 6.0)
    assert grown is not None
    assert grown.size == 8


def test_calls_that_wait_for_one_certain_worker_let_it_be() -> None:
    scaler = Scaler(Sizing(min=1, max=8, queue_wait=1.0), 0.0)
    assert scaler.decide(load(1, taken=1, waits_since=None), 100.0) is None


def test_many_slots_a_worker_need_few_workers() -> None:
    scaler = Scaler(Sizing(min=1, max=8, queue_wait=1.0), 0.0)
    change = scaler.decide(load(1, slots=16, taken=16, waiting=20, waits_since=0.0), 2.0)
    assert change is not None
    assert change.size == 2
    scaler = Scaler(Sizing(min=1, max=8, idle=10.0), 0.0)
    assert scaler.decide(load(4, slots=16, taken=4), 5.0) is None
    change = scaler.decide(load(4, slots=16, taken=4), 10.0)
    assert change == Change(2, "for 10 s no more than 1 were needed")


def test_a_busy_moment_keeps_what_it_needed_for_the_whole_spell() -> None:
    scaler = Scaler(Sizing(min=1, max=8, idle=10.0), 0.0)
    assert scaler.decide(load(8, taken=7), 1.0) is None
    change = scaler.decide(load(8), 10.0)
    assert change is not None
    assert change.size == 7


def test_it_looks_often_enough_to_see_all_in_time() -> None:
    assert Scaler(Sizing(max=2, queue_wait=0.5, idle=60.0), 0.0).interval == 0.25
    assert Scaler(Sizing(max=2, queue_wait=60.0, idle=0.2), 0.0).interval == 0.1
    assert Scaler(Sizing(max=2, queue_wait=60.0, idle=60.0), 0.0).interval == 1.0
