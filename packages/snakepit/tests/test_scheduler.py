"""Which call runs where: loads, ties, sessions, the queue, workers that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit.calls.call import NORMAL_PRIORITY, Call
from snakepit.calls.scheduler import Scheduler
from snakepit.errors import Outcome, PoolSaturated, SessionWorkerUnavailable, WorkerBusy
from snakepit.loops.wakeups import WakeUps


def new_call(
    session_id: str | None = None,
    *,
    strict: bool = False,
    fail_fast: bool = False,
    priority: int = NORMAL_PRIORITY,
) -> Call:
    return Call(
        "work", {}, wakeups=WakeUps(), submitted_at=0.0, session_id=session_id,
        strict=strict, fail_fast=fail_fast, priority=priority,
    )  # fmt: skip


def new_scheduler(*capacities: int, queue_limit: int = 100) -> Scheduler:
    """Workers w1, w2, ...; the first is the first to get a call."""
    scheduler = Scheduler(queue_limit)
    for number in range(len(capacities), 0, -1):
        scheduler.add_worker(f"w{number}", capacities[number - 1])
    return scheduler


def submit(scheduler: Scheduler, *sessions: str | None) -> list[str | None]:
    return [scheduler.submit(new_call(session)) for session in sessions]


# --- which worker --------------------------------------------------------------------------------


def test_the_least_loaded_worker_gets_the_call() -> None:
    scheduler = new_scheduler(3, 3)
    assert submit(scheduler, None, None, None, None) == ["w1", "w2", "w1", "w2"]
    scheduler.release("w2")
    scheduler.release("w2")
    assert submit(scheduler, None, None, None) == ["w2", "w2", "w1"]
    assert scheduler.load_of("w1") == 3
    assert scheduler.load_of("w2") == 2


def test_ties_rotate_also_when_every_call_ends_before_the_next() -> None:
    scheduler = new_scheduler(1, 1, 1)
    order = []
    for _ in range(6):
        (worker_id,) = submit(scheduler, None)
        assert worker_id is not None
        order.append(worker_id)
        scheduler.release(worker_id)
    assert order == ["w1", "w2", "w3"] * 2


def test_a_worker_that_just_came_gets_the_next_call() -> None:
    scheduler = new_scheduler(2, 2)
    submit(scheduler, None, None)
    scheduler.add_worker("new", 2)
    assert submit(scheduler, None) == ["new"]


def test_a_larger_worker_is_filled_only_up_to_its_capacity() -> None:
    scheduler = new_scheduler(1, 3)
    assert sorted(map(str, submit(scheduler, *[None] * 5))) == ["None", "w1", "w2", "w2", "w2"]
    assert scheduler.queued == 1


def test_whether_a_slot_is_free() -> None:
    scheduler = Scheduler(10)
    assert not scheduler.has_free_slot()
    scheduler.add_worker("w1", 1)
    assert scheduler.has_free_slot()
    submit(scheduler, None)
    assert not scheduler.has_free_slot()
    scheduler.release("w1")
    assert scheduler.has_free_slot()
    scheduler.close_worker("w1")
    assert not scheduler.has_free_slot()


# --- sessions ------------------------------------------------------------------------------------


def test_a_session_prefers_the_worker_that_served_it() -> None:
    scheduler = new_scheduler(1, 1)
    for _ in range(3):
        assert submit(scheduler, "s") == ["w1"]
        scheduler.release("w1")
    assert scheduler.worker_of("s") == "w1"
    assert (scheduler.session_hits, scheduler.session_misses) == (2, 0)


def test_a_session_prefers_its_worker_even_when_another_is_less_loaded() -> None:
    scheduler = new_scheduler(3, 3)
    assert submit(scheduler, "s", "s", "s") == ["w1", "w1", "w1"]
    assert submit(scheduler, None) == ["w2"]


def test_a_session_whose_worker_is_busy_is_served_elsewhere_and_moves_there() -> None:
    scheduler = new_scheduler(1, 1)
    assert submit(scheduler, "s", "s") == ["w1", "w2"]
    assert (scheduler.session_hits, scheduler.session_misses) == (0, 1)
    scheduler.release("w1")
    scheduler.release("w2")
    assert submit(scheduler, "s") == ["w2"]
    assert (scheduler.session_hits, scheduler.session_misses) == (1, 1)


@pytest.mark.parametrize("end", [Scheduler.close_worker, Scheduler.remove_worker])
def test_a_session_whose_worker_left_is_bound_anew(end: Any) -> None:
    scheduler = new_scheduler(2, 2)
    assert submit(scheduler, "s") == ["w1"]
    end(scheduler, "w1")
    assert submit(scheduler, "s", "s") == ["w2", "w2"]
    assert (scheduler.session_hits, scheduler.session_misses) == (1, 1)


def test_a_worker_that_is_gone_is_no_sessions_worker() -> None:
    scheduler = new_scheduler(1)
    submit(scheduler, "s")
    scheduler.remove_worker("w1")
    assert scheduler.worker_of("s") is None


def test_a_released_session_is_a_new_one() -> None:
    scheduler = new_scheduler(2, 2)
    submit(scheduler, "s")
    assert scheduler.release_session("s")
    assert not scheduler.release_session("s")
    assert scheduler.worker_of("s") is None
    assert submit(scheduler, "s") == ["w2"]
    assert (scheduler.session_hits, scheduler.session_misses) == (0, 0)


def test_calls_without_a_session_are_neither_hits_nor_misses() -> None:
    scheduler = new_scheduler(2)
    submit(scheduler, None, None)
    assert (scheduler.session_hits, scheduler.session_misses) == (0, 0)


def test_the_sessions_used_longest_ago_are_forgotten() -> None:
    scheduler = Scheduler(10, session_limit=2)
    scheduler.add_worker("w1", 9)
    submit(scheduler, "a", "b", "a", "c")
    assert [scheduler.worker_of(session) for session in "abc"] == ["w1", None, "w1"]
    assert scheduler.sessions == 2


# --- the queue -----------------------------------------------------------------------------------


def test_queued_calls_start_first_come_first_served() -> None:
    scheduler = new_scheduler(1)
    submit(scheduler, None)
    calls = [new_call() for _ in range(3)]
    assert [scheduler.submit(call) for call in calls] == [None, None, None]
    assert list(scheduler.waiting()) == calls
    assert scheduler.next() is None
    started = []
    while scheduler.queued:
        scheduler.release("w1")
        assignment = scheduler.next()
        assert assignment is not None
        started.append(assignment)
    assert started == [(call, "w1") for call in calls]
    assert scheduler.next() is None


def test_a_session_in_the_queue_goes_to_its_worker_if_that_is_free_too() -> None:
    scheduler = new_scheduler(1, 1)
    assert submit(scheduler, "s", None, "s") == ["w1", "w2", None]
    scheduler.release("w2")
    scheduler.release("w1")
    assignment = scheduler.next()
    assert assignment is not None
    assert assignment[1] == "w1"


def test_a_full_queue_refuses_and_says_that_a_retry_is_safe() -> None:
    scheduler = new_scheduler(1, queue_limit=1)
    submit(scheduler, None, None)
    with pytest.raises(PoolSaturated, match="1 calls wait already") as caught:
        submit(scheduler, None)
    assert caught.value.details == {"queued": 1, "queue_limit": 1}
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, True)
    assert scheduler.queued == 1


def test_a_queue_of_length_zero_refuses_only_when_all_slots_are_taken() -> None:
    scheduler = new_scheduler(1, queue_limit=0)
    assert submit(scheduler, None) == ["w1"]
    with pytest.raises(PoolSaturated):
        submit(scheduler, None)


def test_a_withdrawn_call_leaves_its_place_to_the_next() -> None:
    scheduler = new_scheduler(1)
    submit(scheduler, None)
    first, second = new_call(), new_call()
    scheduler.submit(first)
    scheduler.submit(second)
    scheduler.withdraw(first)
    scheduler.release("w1")
    assert scheduler.next() == (second, "w1")


# --- workers -------------------------------------------------------------------------------------


def test_without_workers_every_call_waits_for_the_first() -> None:
    scheduler = Scheduler(10)
    call = new_call("s")
    assert scheduler.submit(call) is None
    assert scheduler.next() is None
    scheduler.add_worker("w1", 1)
    assert scheduler.next() == (call, "w1")


def test_a_closed_worker_keeps_its_calls_and_gets_no_more() -> None:
    scheduler = new_scheduler(2, 2)
    assert submit(scheduler, "s") == ["w1"]
    scheduler.close_worker("w1")
    assert scheduler.load_of("w1") == 1
    assert submit(scheduler, None, "s", None) == ["w2", "w2", None]
    scheduler.release("w1")
    assert scheduler.load_of("w1") == 0
    assert scheduler.next() is None


def test_what_comes_after_a_workers_end_is_ignored() -> None:
    scheduler = new_scheduler(1, 1)
    submit(scheduler, None)
    scheduler.remove_worker("w1")
    scheduler.release("w1")
    scheduler.close_worker("w1")
    scheduler.remove_worker("w1")
    assert submit(scheduler, None, None) == ["w2", None]


# --- everything at once --------------------------------------------------------------------------

SESSIONS = st.sampled_from([None, "a", "b", "c"])


class AnyOrder(RuleBasedStateMachine):
    """Calls and workers in any order, beside a record of what has to be true. After every event
    the calls that wait are asked, as a pool does.
    """

    @initialize(limit=st.integers(0, 4))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.scheduler = Scheduler(limit)
        self.capacity: dict[str, int] = {}
        self.closed: set[str] = set()
        self.running: dict[Call, str] = {}
        self.queue: list[Call] = []
        self.bound: dict[str, str] = {}
        self.hits = self.misses = self.numbers = 0

    def load(self, worker_id: str) -> int:
        return list(self.running.values()).count(worker_id)

    def free(self) -> dict[str, int]:
        """The loads of the workers that could take a call."""
        loads = {worker: self.load(worker) for worker in self.capacity.keys() - self.closed}
        return {worker: load for worker, load in loads.items() if load < self.capacity[worker]}

    def is_open(self, worker_id: str | None) -> bool:
        return worker_id in self.capacity.keys() - self.closed

    def is_lost(self, call: Call) -> bool:
        home = self.bound.get(call.session_id or "")
        return call.strict and home is not None and not self.is_open(home)

    def can_start(self, call: Call) -> bool:
        home = self.bound.get(call.session_id or "")
        if call.strict and self.is_open(home):
            return home in self.free()
        return bool(self.free())

    def heads(self) -> list[Call]:
        """Those that are the first of their session in their class."""
        lanes = {(call.priority, call.session_id): call for call in reversed(self.queue)}
        return list(lanes.values())

    def fail_stranded(self, worker_id: str) -> None:
        """What a pool does when a worker has left."""
        stranded = self.scheduler.stranded(worker_id)
        expected = [
            call
            for call in self.queue
            if call.strict and self.bound.get(call.session_id or "") == worker_id
        ]
        assert set(stranded) == set(expected)
        for call in stranded:
            self.scheduler.withdraw(call)
            self.queue.remove(call)

    def start(self, call: Call, worker_id: str) -> None:
        assert self.can_start(call)
        free = self.free()
        own = self.bound.get(call.session_id or "")
        if own in free:
            assert worker_id == own
        else:
            assert free[worker_id] == min(free.values())
        if call.session_id is not None:
            self.hits += own == worker_id
            self.misses += own not in (None, worker_id)
            self.bound[call.session_id] = worker_id
        self.running[call] = worker_id

    def start_waiting(self) -> None:
        """What a pool does after every event."""
        while (assignment := self.scheduler.next()) is not None:
            call, worker_id = assignment
            runnable = list(filter(self.can_start, self.heads()))
            assert call in runnable
            assert call.priority == min(each.priority for each in runnable)
            self.queue.remove(call)
            self.start(call, worker_id)
        assert not any(map(self.can_start, self.heads()))
        assert not any(map(self.is_lost, self.queue))

    def expected_error(self, call: Call, *, has_to_wait: bool) -> type[Exception] | None:
        home = self.bound.get(call.session_id or "")
        if self.is_lost(call):
            return SessionWorkerUnavailable
        lane = (call.priority, call.session_id)
        behind = lane in [(each.priority, each.session_id) for each in self.queue]
        if call.fail_fast and ((home is not None and home not in self.free()) or behind):
            return WorkerBusy
        if has_to_wait and len(self.queue) >= self.limit:
            return PoolSaturated
        return None

    @rule(
        session=SESSIONS,
        affinity=st.sampled_from(["hint", "strict_queue", "strict_fail_fast"]),
        priority=st.integers(0, 2),
    )
    def submit(self, session: str | None, affinity: str, priority: int) -> None:
        call = new_call(
            session,
            strict=affinity != "hint" and session is not None,
            fail_fast=affinity == "strict_fail_fast" and session is not None,
            priority=priority,
        )
        lane = (priority, session)
        behind = session is not None and lane in [
            (each.priority, each.session_id) for each in self.queue
        ]
        has_to_wait = behind or not self.can_start(call)
        error = self.expected_error(call, has_to_wait=has_to_wait)
        if error is not None:
            with pytest.raises(error):
                self.scheduler.submit(call)
            return
        worker_id = self.scheduler.submit(call)
        if worker_id is None:
            assert has_to_wait
            self.queue.append(call)
        else:
            self.start(call, worker_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(list(self.running)))
        self.scheduler.release(self.running.pop(call))
        self.start_waiting()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.queue))
        self.scheduler.withdraw(call)
        self.queue.remove(call)
        self.start_waiting()

    @precondition(lambda self: len(self.capacity) < 4)
    @rule(capacity=st.integers(1, 3))
    def add_worker(self, capacity: int) -> None:
        self.numbers += 1
        self.capacity[f"w{self.numbers}"] = capacity
        self.scheduler.add_worker(f"w{self.numbers}", capacity)
        self.start_waiting()

    @precondition(lambda self: self.capacity)
    @rule(data=st.data())
    def close_worker(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from(list(self.capacity)))
        self.closed.add(worker_id)
        self.scheduler.close_worker(worker_id)
        self.fail_stranded(worker_id)
        self.start_waiting()

    @precondition(lambda self: self.capacity)
    @rule(data=st.data(), calls_end_first=st.booleans())
    def lose_worker(self, data: st.DataObject, calls_end_first: bool) -> None:
        worker_id = data.draw(st.sampled_from(list(self.capacity)))
        if not calls_end_first:
            self.scheduler.remove_worker(worker_id)
            del self.capacity[worker_id]
            self.fail_stranded(worker_id)
        for call, runs_on in list(self.running.items()):
            if runs_on == worker_id:
                del self.running[call]
                self.scheduler.release(worker_id)
                self.start_waiting()
        if calls_end_first:
            # Calls that waited may have taken the slots: they go down with the worker.
            self.running = {c: w for c, w in self.running.items() if w != worker_id}
            self.scheduler.remove_worker(worker_id)
            del self.capacity[worker_id]
            self.fail_stranded(worker_id)
        self.start_waiting()

    @rule(session=st.sampled_from("abc"))
    def release_session(self, session: str) -> None:
        assert self.scheduler.release_session(session) == (session in self.bound)
        self.bound.pop(session, None)
        self.start_waiting()

    @invariant()
    def the_scheduler_agrees(self) -> None:
        assert set(self.scheduler.waiting()) == set(self.queue)
        assert self.scheduler.open_workers == len(self.capacity.keys() - self.closed)
        assert self.scheduler.queued == len(self.queue) <= self.limit
        for worker_id, capacity in self.capacity.items():
            assert 0 <= self.scheduler.load_of(worker_id) == self.load(worker_id) <= capacity
        assert self.scheduler.has_free_slot() == bool(self.free())
        for session in "abc":
            known = self.bound.get(session)
            alive = known if known in self.capacity else None
            assert self.scheduler.worker_of(session) == alive
        assert (self.scheduler.session_hits, self.scheduler.session_misses) == (
            self.hits,
            self.misses,
        )

    def teardown(self) -> None:
        """Nothing is lost: with a worker to run on, every call starts and ends."""
        self.add_worker(1)
        while self.running:
            self.scheduler.release(self.running.popitem()[1])
            self.start_waiting()
        assert self.queue == []
        assert self.scheduler.queued == 0
        assert all(self.scheduler.load_of(worker_id) == 0 for worker_id in self.capacity)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
