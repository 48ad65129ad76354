"""In which order waiting calls are served, and what that costs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit.calls.call import PRIORITIES, Call
from snakepit.calls.call_queue import CallQueue, Place, WaitsFor
from snakepit.loops.wakeups import WakeUps

HIGH, NORMAL, LOW = range(len(PRIORITIES))


def new_call(
    session_id: str | None = None, priority: int = NORMAL, *, strict: bool = False
) -> Call:
    return Call(
        "work", {}, wakeups=WakeUps(), submitted_at=0.0,
        session_id=session_id, priority=priority, strict=strict,
    )  # fmt: skip


def push(queue: CallQueue, *sessions: str | None, priority: int = NORMAL) -> list[Call]:
    calls = [new_call(session, priority) for session in sessions]
    for call in calls:
        queue.push(call)
    return calls


def anywhere(call: Call) -> str:
    return "w"


def take_all(queue: CallQueue, place: Place = anywhere) -> list[Call]:
    taken = []
    while (found := queue.take(place)) is not None:
        taken.append(found[0])
    return taken


def only_on(worker_id: str) -> Place:
    """Strict calls have to run on that worker, which is busy; there is another."""
    return lambda call: WaitsFor(worker_id) if call.strict else "other"


# --- the order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("session", [None, "s"])
def test_calls_of_one_session_or_of_none_are_served_first_come_first_served(
    session: str | None,
) -> None:
    queue = CallQueue()
    calls = push(queue, *[session] * 100)
    assert list(queue) == calls
    assert take_all(queue) == calls
    assert queue.size == 0
    assert queue.take(anywhere) is None


def test_sessions_take_turns() -> None:
    queue = CallQueue()
    a1, a2, a3 = push(queue, "a", "a", "a")
    b1, b2 = push(queue, "b", "b")
    none1, none2, none3 = push(queue, None, None, None)
    expected = [a1, b1, none1, a2, b2, none2, a3, none3]
    assert list(queue) == expected
    assert take_all(queue) == expected


def test_a_session_with_ten_thousand_calls_delays_another_by_one() -> None:
    queue = CallQueue()
    push(queue, *["crowd"] * 10_000)
    for _ in range(10):
        (late,) = push(queue, "late")
        found = [queue.take(anywhere) for _ in range(2)]
        assert any(each is not None and each[0] is late for each in found)


def test_a_higher_class_is_served_before_any_turn_of_a_lower_one() -> None:
    queue = CallQueue()
    low = push(queue, "a", None, priority=LOW)
    normal = push(queue, "a", "b")
    high = push(queue, "b", None, "b", priority=HIGH)
    assert list(queue) == high + normal + low
    assert take_all(queue) == high + normal + low


def test_a_call_put_back_is_the_next_to_be_served() -> None:
    queue = CallQueue()
    calls = push(queue, "a", "a", "b", None)
    first = queue.take(anywhere)
    second = queue.take(anywhere)
    assert first == (calls[0], "w")
    assert second == (calls[2], "w")
    queue.push_front(calls[2])
    queue.push_front(calls[0])
    assert take_all(queue)[:3] == [calls[0], calls[2], calls[3]]


def test_a_call_that_is_taken_out_leaves_the_order_of_the_others() -> None:
    queue = CallQueue()
    calls = push(queue, *[None, "a"] * 200)
    for call in calls[40:380]:
        queue.remove(call)
    assert queue.size == 60
    assert list(queue) == calls[:40] + calls[380:]
    assert take_all(queue) == calls[:40] + calls[380:]


def test_how_many_calls_are_ahead_of_a_new_one() -> None:
    queue = CallQueue()
    push(queue, "a", "a", "a", None, None)
    push(queue, "a", "b", priority=HIGH)
    push(queue, "a", priority=LOW)
    assert queue.ahead_of("a", NORMAL) == 2 + 3 + 2
    assert queue.ahead_of("new", NORMAL) == 2 + 1 + 1
    assert queue.ahead_of(None, HIGH) == 2
    assert queue.ahead_of("new", LOW) == 2 + 5 + 1
    for session, priority in [("a", NORMAL), ("new", NORMAL), (None, HIGH), ("b", LOW)]:
        expected = queue.ahead_of(session, priority)
        late = new_call(session, priority)
        queue.push(late)
        assert list(queue).index(late) == expected
        queue.remove(late)


def test_what_waits_of_a_session() -> None:
    queue = CallQueue()
    (normal,) = push(queue, "a")
    (high,) = push(queue, "a", priority=HIGH)
    push(queue, None, "b")
    assert list(queue.of_session("a")) == [high, normal]
    assert list(queue.of_session("c")) == []
    assert queue.sessions() == {"a", "b"}
    assert queue.has_lane("a", HIGH)
    assert not queue.has_lane("b", HIGH)


# --- calls that wait for one worker --------------------------------------------------------------


def test_ten_thousand_that_wait_for_a_busy_worker_are_asked_once() -> None:
    queue = CallQueue()
    asked: Counter[Call] = Counter()
    for number in range(10_000):
        queue.push(new_call(f"s{number}", strict=True))
    place = only_on("busy")

    def count(call: Call) -> str | WaitsFor | None:
        asked[call] += 1
        return place(call)

    for _ in range(50):
        (free,) = push(queue, None)
        assert queue.take(count) == (free, "other")
        assert queue.take(count) is None
    assert asked.total() == 10_000 + 50
    queue.worker_has_room("busy")
    asked.clear()
    assert queue.take(lambda call: "busy") is not None
    assert queue.take(count) is None
    assert asked.total() == 1, "its room is taken, and nobody else has to be told"


def test_what_waits_for_a_worker_is_served_in_turn_once_it_has_room() -> None:
    queue = CallQueue()
    strict = [new_call(session, strict=True) for session in "aabb"]
    for call in strict:
        queue.push(call)
    assert queue.take(only_on("busy")) is None
    (late,) = push(queue, "c")
    queue.worker_has_room("busy")
    a1, a2, b1, b2 = strict
    assert take_all(queue) == [a1, b1, late, a2, b2]


def test_a_session_waits_for_its_worker_with_all_its_calls() -> None:
    queue = CallQueue()
    strict = new_call("a", strict=True)
    queue.push(strict)
    push(queue, "a")
    assert queue.take(only_on("busy")) is None
    assert queue.size == 2


@pytest.mark.parametrize("change", ["worker_left", "session_moved", "remove"])
def test_a_session_waits_no_longer_when_its_reason_is_gone(change: str) -> None:
    queue = CallQueue()
    strict = new_call("a", strict=True)
    queue.push(strict)
    (after,) = push(queue, "a")
    assert queue.take(only_on("busy")) is None
    match change:
        case "worker_left":
            queue.worker_left("busy")
            assert take_all(queue) == [strict, after]
        case "session_moved":
            queue.session_moved("a")
            assert take_all(queue) == [strict, after]
        case "remove":
            queue.remove(strict)
            assert take_all(queue, only_on("busy")) == [after]


def test_all_sessions_that_wait_for_a_worker_are_next_in_their_order_when_it_leaves() -> None:
    queue = CallQueue()
    waiting = [new_call(session, strict=True) for session in ("a", "b", "c")]
    for call in waiting:
        queue.push(call)
    assert queue.take(only_on("busy")) is None
    assert queue.parked() == 3
    later = push(queue, "d")
    queue.worker_left("busy")
    assert not queue.is_awaited("busy")
    assert take_all(queue) == waiting + later


# --- what it costs -------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [1, 1000])
def test_a_hundred_thousand_cancelled_calls_leave_nothing(sessions: int) -> None:
    queue = CallQueue()
    (kept,) = push(queue, "s0")
    for start in range(0, 100_000, 1000):
        calls = push(queue, *[f"s{number % sessions}" for number in range(start, start + 1000)])
        for call in calls:
            queue.remove(call)
        assert kept.lane is not None
        assert len(kept.lane.calls) <= 100
    assert queue.sessions() == {"s0"}
    assert take_all(queue) == [kept]
    assert queue.sessions() == set()


# --- any order of events -------------------------------------------------------------------------

SESSIONS = st.sampled_from([None, "a", "b", "c", "d"])
WORKERS = ("w1", "w2", "w3")


class AnyOrder(RuleBasedStateMachine):
    """A queue beside a plain list, with workers that have room or not, and sessions bound to them.

    What has to hold is said as rules, not as a second queue.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = CallQueue()
        self.waiting: list[Call] = []
        self.room = dict.fromkeys(WORKERS, 0)
        self.home: dict[str | None, str] = {}
        # How often a session that could have been served saw another one served instead.
        self.passed: Counter[tuple[int, str | None, str | None]] = Counter()
        self.taken: list[Call] = []

    def place(self, call: Call) -> str | WaitsFor | None:
        free = [worker for worker, room in self.room.items() if room]
        if not free:
            return None
        home = self.home.get(call.session_id)
        if call.strict and home in self.room:
            return home if self.room[home] else WaitsFor(home)
        return free[0]

    def heads(self) -> dict[tuple[int, str | None], Call]:
        """The first call of each session in each class."""
        heads: dict[tuple[int, str | None], Call] = {}
        for call in self.waiting:
            heads.setdefault((call.priority, call.session_id), call)
        return heads

    def runnable(self) -> list[Call]:
        return [call for call in self.heads().values() if isinstance(self.place(call), str)]

    @rule(session=SESSIONS, strict=st.booleans(), priority=st.sampled_from([HIGH, NORMAL]))
    def push(self, session: str | None, strict: bool, priority: int) -> None:
        call = new_call(session, priority, strict=strict and session is not None)
        self.waiting.append(call)
        self.queue.push(call)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(call)
        self.queue.remove(call)

    @rule()
    def take(self) -> None:
        runnable = self.runnable()
        found = self.queue.take(self.place)
        if found is None:
            assert not runnable
            return
        call, worker = found
        assert call in runnable
        assert worker == self.place(call)
        assert call.priority == min(each.priority for each in runnable)
        for other in runnable:
            if other.priority == call.priority and other is not call:
                turn = (call.priority, other.session_id, call.session_id)
                self.passed[turn] += 1
                assert self.passed[turn] <= 2, "it was passed over again and again"
        for key in list(self.passed):
            if key[:2] == (call.priority, call.session_id):
                del self.passed[key]
        self.waiting.remove(call)
        self.taken.append(call)
        self.room[worker] -= 1

    @precondition(lambda self: self.taken)
    @rule()
    def put_back(self) -> None:
        call = self.taken.pop()
        self.waiting.insert(0, call)
        self.queue.push_front(call)
        self.passed.clear()

    @rule(worker=st.sampled_from(WORKERS))
    def give_room(self, worker: str) -> None:
        if worker in self.room:
            self.room[worker] += 1
            self.queue.worker_has_room(worker)

    @rule(session=st.sampled_from("abcd"), worker=st.sampled_from([None, *WORKERS]))
    def bind(self, session: str, worker: str | None) -> None:
        self.home.pop(session, None)
        if worker is not None:
            self.home[session] = worker
        self.queue.session_moved(session)

    @rule(worker=st.sampled_from(WORKERS))
    def lose_worker(self, worker: str) -> None:
        if len(self.room) > 1 and self.room.pop(worker, None) is not None:
            self.queue.worker_left(worker)

    @invariant()
    def the_queue_agrees(self) -> None:
        order = list(self.queue)
        assert self.queue.size == len(order) == len(self.waiting)
        assert set(order) == set(self.waiting)
        assert [call.priority for call in order] == sorted(call.priority for call in order)
        for key in self.heads():
            assert [call for call in order if (call.priority, call.session_id) == key] == [
                call for call in self.waiting if (call.priority, call.session_id) == key
            ]
        assert self.queue.sessions() == {call.session_id for call in order} - {None}
        assert all(call.lane is None for call in self.taken)

    def teardown(self) -> None:
        """With room on every worker, all are served."""
        for worker in self.room:
            self.room[worker] = 1000
            self.queue.worker_has_room(worker)
        while self.waiting:
            self.take()
        assert self.queue.size == 0
        assert self.queue.sessions() == set()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
