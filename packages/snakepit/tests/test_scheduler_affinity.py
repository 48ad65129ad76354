"""Strict affinity in the scheduler alone: who waits, who overtakes, who moves on."""

from __future__ import annotations

import asyncio

from snakepit.calls import Call
from snakepit.scheduler import Scheduler


def _call(session_id: str | None, *, strict: bool = False) -> Call:
    loop = asyncio.get_running_loop()
    return Call(
        "work",
        {},
        answer=loop.create_future(),
        submitted_at=0,
        session_id=session_id,
        strict=strict,
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


async def test_a_strict_call_goes_elsewhere_when_its_worker_has_ended() -> None:
    scheduler = await _scheduler()
    home = str(scheduler.submit(_call("s")))
    strict = _call("s", strict=True)
    assert scheduler.submit(strict) is None
    scheduler.remove_worker(home)
    found = scheduler.next()
    assert found is not None
    assert found[1] != home


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


async def test_a_call_in_a_borrowed_slot_gives_its_session_a_home() -> None:
    scheduler = await _scheduler()
    scheduler.borrowed(_call("s", strict=True), "w1")
    assert scheduler.submit(_call("s")) == "w1"
    scheduler.borrowed(_call("s"), "w0")
    assert scheduler.worker_of("s") == "w1"
