"""Strict affinity in the scheduler alone: who waits, who overtakes, who moves on."""

from __future__ import annotations

import pytest

from snakepit.calls.call import NORMAL_PRIORITY, Call
from snakepit.calls.scheduler import Scheduler
from snakepit.errors import SessionWorkerUnavailable, WorkerBusy
from snakepit.loops.wakeups import WakeUps


def _call(
    session_id: str | None,
    *,
    strict: bool = False,
    fail_fast: bool = False,
    priority: int = NORMAL_PRIORITY,
) -> Call:
    return Call(
        "work",
        {},
        wakeups=WakeUps(),
        submitted_at=0,
        session_id=session_id,
        strict=strict or fail_fast,
        fail_fast=fail_fast,
        priority=priority,
    )


async def _scheduler(workers: int = 2) -> Scheduler:
    scheduler = Scheduler(queue_limit=10)
    for number in range(workers):
        scheduler.add_worker(f"w{number}", 1)
    return scheduler


async def test_a_strict_call_waits_for_its_sessions_worker() -> None:
    scheduler = await _scheduler()
    home = scheduler.submit(_call("s"))
    assert home is not None
    strict = _call("s", strict=True)
    assert scheduler.submit(strict) is None
    assert scheduler.next() is None  # the other worker is free, and not its own
    other = scheduler.submit(_call(None))
    assert other not in (None, home)  # overtakes: it needs nothing that the waiting call needs
    scheduler.release(home)
    assert scheduler.next() == (strict, home)
    assert scheduler.queued == 0


async def test_a_hint_call_moves_the_session_and_a_strict_one_follows() -> None:
    scheduler = await _scheduler()
    first = scheduler.submit(_call("s"))
    second = scheduler.submit(_call("s"))
    assert {first, second} == {"w0", "w1"}
    assert scheduler.worker_of("s") == second
    strict = _call("s", strict=True)
    assert scheduler.submit(strict) is None
    scheduler.release(str(first))
    assert scheduler.next() is None
    scheduler.release(str(second))
    assert scheduler.next() == (strict, second)


async def test_a_strict_call_fails_when_its_worker_has_left() -> None:
    scheduler = await _scheduler()
    home = str(scheduler.submit(_call("s")))
    strict, after = _call("s", strict=True), _call("s")
    assert scheduler.submit(strict) is None
    assert scheduler.submit(after) is None, "it keeps its place behind the call before it"
    assert scheduler.stranded(home) == []
    scheduler.close_worker(home)
    assert scheduler.stranded(home) == [strict]
    scheduler.withdraw(strict)
    with pytest.raises(
        SessionWorkerUnavailable, match=f"worker {home}.*release the session"
    ) as caught:
        scheduler.submit(_call("s", strict=True))
    assert caught.value.details == {"session_id": "s", "worker_id": home}
    assert scheduler.next() == (after, "w1" if home == "w0" else "w0")


@pytest.mark.parametrize("acknowledge", ["release", "hint"])
async def test_a_lost_session_is_bound_anew_once_its_caller_has_taken_note(
    acknowledge: str,
) -> None:
    scheduler = await _scheduler()
    home = str(scheduler.submit(_call("s")))
    scheduler.remove_worker(home)
    for _ in range(2):
        with pytest.raises(SessionWorkerUnavailable):
            scheduler.submit(_call("s", strict=True))
    if acknowledge == "release":
        assert scheduler.release_session("s")
    else:
        other = scheduler.submit(_call("s"))
        assert other not in (None, home)
        scheduler.release(str(other))
    assert scheduler.submit(_call("s", strict=True)) not in (None, home)


async def test_a_call_that_must_not_wait_for_its_worker_is_refused_while_that_is_busy() -> None:
    scheduler = await _scheduler()
    home = str(scheduler.submit(_call("s", fail_fast=True)))
    with pytest.raises(WorkerBusy, match=f"worker {home} of session 's'") as caught:
        scheduler.submit(_call("s", fail_fast=True))
    assert caught.value.details == {"session_id": "s", "worker_id": home}
    assert scheduler.queued == 0
    scheduler.release(home)
    assert scheduler.submit(_call("s", fail_fast=True)) == home


async def test_a_call_that_must_not_wait_for_its_sessions_worker_waits_for_a_first_one() -> None:
    scheduler = await _scheduler(workers=1)
    scheduler.submit(_call(None))
    first = _call("s", fail_fast=True)
    assert scheduler.submit(first) is None, "no worker is its own yet"
    with pytest.raises(WorkerBusy, match="earlier calls of session 's'"):
        scheduler.submit(_call("s", fail_fast=True))
    scheduler.release("w0")
    assert scheduler.next() == (first, "w0")


async def test_calls_of_a_session_go_ahead_to_its_own_worker_only() -> None:
    scheduler = Scheduler(queue_limit=10)
    for name in ("w0", "w1"):
        scheduler.add_worker(name, 1, ahead=2)
    first = {scheduler.submit(_call(session), short=True) for session in "st"}
    assert first == {"w0", "w1"}
    home = str(scheduler.worker_of("s"))
    assert scheduler.submit(_call("s"), short=True) == home
    assert scheduler.submit(_call("s", strict=True), short=True) == home
    assert scheduler.submit(_call("s"), short=True) is None, "its own has no more room ahead"
    assert scheduler.submit(_call("new"), short=True) is None, "it has no worker yet"


async def test_nothing_goes_ahead_to_a_worker_that_others_wait_for() -> None:
    scheduler = Scheduler(queue_limit=10)
    scheduler.add_worker("w0", 1, ahead=2)
    assert scheduler.submit(_call("s"), short=True) == "w0"
    strict, short = _call("s", strict=True), _call(None)
    assert scheduler.submit(strict) is None
    assert scheduler.submit(short, short=True) is None

    def is_short(call: Call) -> bool:
        return call is short

    assert scheduler.next(is_short) is None, "the strict one would wait longer"
    scheduler.release("w0")
    assert scheduler.next(is_short) == (strict, "w0")
    assert scheduler.next(is_short) is None, "the strict one is not short"
    scheduler.release("w0")
    assert scheduler.next(is_short) == (short, "w0")


async def test_waiting_calls_keep_their_order() -> None:
    scheduler = await _scheduler(workers=1)
    home = str(scheduler.submit(_call("s")))
    waiting = [_call("s", strict=True), _call(None), _call("t")]
    assert [scheduler.submit(call) for call in waiting] == [None, None, None]
    served = []
    for _ in waiting:
        scheduler.release(home)
        found = scheduler.next()
        assert found is not None
        served.append(found[0])
    assert served == waiting


async def test_a_session_that_waits_stays_in_turn_when_another_call_moves_it() -> None:
    scheduler = await _scheduler(workers=3)
    first, second = str(scheduler.submit(_call("s"))), str(scheduler.submit(_call(None)))
    strict = _call("s", strict=True)
    assert scheduler.submit(strict) is None
    assert scheduler.next() is None
    third = str(scheduler.submit(_call("s", priority=0)))
    assert len({first, second, third}) == 3
    scheduler.release(first)
    assert scheduler.next() is None, "its session is at the third worker now"
    scheduler.release(third)
    assert scheduler.next() == (strict, third)


async def test_a_call_in_a_borrowed_slot_gives_its_session_a_home() -> None:
    scheduler = await _scheduler()
    scheduler.borrowed(_call("s", strict=True), "w1")
    assert scheduler.submit(_call("s")) == "w1"
    scheduler.borrowed(_call("s"), "w0")
    assert scheduler.worker_of("s") == "w1"
