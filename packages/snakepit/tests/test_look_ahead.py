"""Calls sent ahead: which, how many, and that they come back when the one before them is slow."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from after_check import CheckedPool
from processes import send_signal, until

from snakepit import Pool, PythonAdapter
from snakepit.calls.call import Call
from snakepit.calls.look_ahead import CommandTimes
from snakepit.calls.scheduler import Scheduler
from snakepit.errors import CallTimeout, ConfigurationError, WorkerLost
from snakepit.loops.wakeups import WakeUps
from snakepit.testing import FaultyAdapter, FrameProxy, FrameRule, Gate
from snakepit.wire.frames import FrameDecoder, FrameType
from snakepit.wire.messages import read_ids, value_frame


def new_call(command: str = "short", session_id: str | None = None, strict: bool = False) -> Call:
    return Call(
        command,
        {},
        wakeups=WakeUps(),
        submitted_at=0.0,
        session_id=session_id,
        strict=strict,
    )


def is_short(call: Call) -> bool:
    return call.command == "short"


def submit(scheduler: Scheduler, calls: Sequence[Call]) -> list[str | None]:
    return [scheduler.submit(call, short=is_short(call)) for call in calls]


def new_scheduler(workers: int = 1, ahead: int = 2) -> Scheduler:
    scheduler = Scheduler(100)
    for number in range(workers, 0, -1):
        scheduler.add_worker(f"w{number}", 1, ahead=ahead)
    return scheduler


def new_pool(**options: Any) -> Pool:
    settings: dict[str, Any] = {"size": 1, "name": "test", "spin": 0} | options
    return CheckedPool(PythonAdapter("look_ahead_worker:Worker"), **settings)


async def make_short(pool: Pool, command: str) -> None:
    """Call a command until the pool has seen that it is short."""
    await pool.execute(command)
    while not pool._dispatcher._times.is_short(command):
        await pool.execute(command)


# --- which commands are short --------------------------------------------------------------------


def test_a_command_is_short_once_it_was() -> None:
    times = CommandTimes()
    assert not times.is_short("echo")
    times.record("echo", 0.0001)
    assert times.is_short("echo")
    assert not times.is_short("other")


def test_one_slow_call_counts_until_short_ones_have_made_up_for_it() -> None:
    times = CommandTimes()
    times.record("echo", 0.0001)
    times.record("echo", 1.0)
    assert not times.is_short("echo")
    for _ in range(60):
        times.record("echo", 0.0001)
    assert times.is_short("echo")


# --- which worker --------------------------------------------------------------------------------


def test_short_calls_go_ahead_when_no_slot_is_free_and_only_so_many() -> None:
    scheduler = new_scheduler(workers=2)
    calls = [new_call() for _ in range(7)]
    assert submit(scheduler, calls) == ["w1", "w2", "w1", "w2", "w1", "w2", None]
    assert scheduler.ahead_of("w1") == 2


def test_other_calls_wait_for_a_free_slot() -> None:
    scheduler = new_scheduler()
    assert submit(scheduler, [new_call(), new_call("unknown")]) == ["w1", None]


def test_nothing_goes_ahead_behind_a_call_that_is_not_known_to_be_short() -> None:
    scheduler = new_scheduler()
    assert submit(scheduler, [new_call("unknown"), new_call()]) == ["w1", None]


def test_nothing_goes_ahead_of_a_call_that_waits() -> None:
    scheduler = new_scheduler()
    slow, late = new_call("unknown"), new_call()
    assert submit(scheduler, [new_call(), slow, late]) == ["w1", None, None]
    assert scheduler.next(is_short) is None
    scheduler.release("w1")
    assert scheduler.next(is_short) == (slow, "w1")
    assert scheduler.next(is_short) is None
    scheduler.release("w1")
    assert scheduler.next(is_short) == (late, "w1")


def test_nothing_more_goes_ahead_while_the_running_call_is_slow() -> None:
    scheduler = new_scheduler()
    submit(scheduler, [new_call(), new_call()])
    scheduler.hold("w1")
    assert submit(scheduler, [new_call()]) == [None]
    scheduler.recall_ended("w1")
    assert scheduler.next(is_short) is None
    scheduler.release("w1")
    assert scheduler.next(is_short) is not None


def test_nothing_overtakes_the_calls_that_are_being_given_back() -> None:
    scheduler = new_scheduler()
    submit(scheduler, [new_call(), second := new_call()])
    scheduler.hold("w1")
    assert submit(scheduler, [third := new_call()]) == [None]
    scheduler.release("w1")
    assert scheduler.next(is_short) is None, "the second may be on its way back"
    scheduler.recall_ended("w1")
    scheduler.recalled(second, "w1")
    assert [scheduler.next(is_short), scheduler.next(is_short)] == [(second, "w1"), (third, "w1")]


def test_recalled_calls_are_the_next_in_their_order() -> None:
    scheduler = new_scheduler()
    first, second, third = calls = [new_call() for _ in range(3)]
    waiting = new_call()
    assert submit(scheduler, [*calls, waiting]) == ["w1", "w1", "w1", None]
    for call in (third, second):
        scheduler.recalled(call, "w1")
    assert list(scheduler.waiting()) == [second, third, waiting]
    assert scheduler.load_of("w1") == 1
    assert first not in scheduler.waiting()


def test_a_strict_call_goes_ahead_only_to_its_own_worker() -> None:
    scheduler = new_scheduler(workers=2)
    submit(scheduler, [new_call(session_id="s", strict=True), new_call()])
    strict = [new_call(session_id="s", strict=True) for _ in range(3)]
    assert submit(scheduler, strict) == ["w1", "w1", None]


# --- real workers --------------------------------------------------------------------------------


async def test_calls_behind_one_that_turns_out_slow_are_called_back() -> None:
    async with new_pool(size=2) as pool:
        await make_short(pool, "nap")
        slow = asyncio.create_task(pool.execute("nap", {"seconds": 30}))
        quick = [pool.execute("nap", timeout=20) for _ in range(20)]
        await asyncio.gather(*quick)
        assert not slow.done()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert pool.stats().recalled > 0


async def test_calls_behind_one_that_kills_its_worker_are_given_to_another() -> None:
    async with new_pool() as pool:
        await make_short(pool, "end")
        fatal = asyncio.create_task(pool.execute("end", {"fatal": True}))
        behind = [asyncio.create_task(pool.execute("end")) for _ in range(7)]
        with pytest.raises(WorkerLost):
            await fatal
        assert await asyncio.gather(*behind) == [None] * 7
        assert pool.stats().recalled > 0


async def test_a_call_sent_ahead_ends_at_its_deadline_and_keeps_its_worker() -> None:
    async with new_pool() as pool:
        await make_short(pool, "nap")
        before = await pool.execute("pid")
        with Gate() as gate:
            slow = asyncio.create_task(pool.execute("nap", {"gate": gate.key}))
            await until(lambda: pool.stats().running == 1, "the slow call is sent")
            with pytest.raises(CallTimeout):
                await pool.execute("nap", timeout=0.01)
        await slow
        assert await pool.execute("pid") == before


async def test_calls_behind_a_late_one_that_can_not_be_stopped_do_not_keep_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakepit.supervision.workforce._RETIRE_PATIENCE", 3600.0)
    async with new_pool(heartbeat=None, cancel_grace=0.05) as pool:
        await make_short(pool, "pid")
        frozen = await pool.execute("pid")
        send_signal(pool.workers()[0], signal.SIGSTOP)
        late = asyncio.create_task(pool.execute("pid", timeout=0.1))
        behind = [asyncio.create_task(pool.execute("pid")) for _ in range(3)]
        with pytest.raises(CallTimeout):
            await late
        (successor,) = set(await asyncio.wait_for(asyncio.gather(*behind), 20.0))
    assert successor != frozen


async def test_calls_to_a_frozen_worker_go_elsewhere_when_it_dies() -> None:
    async with new_pool() as pool:
        await make_short(pool, "nap")
        (victim,) = pool.workers()
        send_signal(victim, signal.SIGSTOP)
        calls = [asyncio.create_task(pool.execute("nap")) for _ in range(8)]
        await until(lambda: pool.workers()[0].in_flight == 8, "all are sent")
        os.kill(victim.pid or 0, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], WorkerLost)
        assert results[1:] == [None] * 7


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda ids: [*ids, ids[0]], id="one twice"),
        pytest.param(lambda ids: [*ids, ids[-1] + 1000], id="one that is not open"),
        pytest.param(lambda ids: [min(ids) - 2, *ids], id="the one that runs"),
    ],
)
async def test_30_a_worker_that_gives_back_wrong_calls_is_lost_and_every_call_ends(
    lie: Callable[[list[int]], list[int]],
) -> None:
    def with_lie(data: bytes, _: random.Random) -> bytes:
        (frame,) = FrameDecoder().feed(data)
        return value_frame(FrameType.RECALLED, 0, lie(read_ids(frame)))

    rule = FrameRule(with_lie, FrameType.RECALLED)
    adapter = FaultyAdapter("look_ahead_worker:Worker", proxy=FrameProxy([rule]))
    async with CheckedPool(adapter, size=1, spin=0) as pool:
        await make_short(pool, "nap")
        running = asyncio.create_task(pool.execute("nap", {"seconds": 30}))
        behind = [asyncio.create_task(pool.execute("nap")) for _ in range(3)]
        with pytest.raises(WorkerLost, match=r"broke the protocol: calls .* were given"):
            await asyncio.wait_for(running, 20.0)
        assert await asyncio.wait_for(asyncio.gather(*behind), 20.0) == [None] * 3
    assert rule.fired


@pytest.mark.parametrize("option", [{"look_ahead": -1}, {"spin": -1.0}, {"spin": True}])
def test_impossible_options_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        new_pool(**option)
