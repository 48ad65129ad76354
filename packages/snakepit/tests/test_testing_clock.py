"""A clock of the test's own: what is due runs in its order and at its time, and nothing waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from snakepit import Pool
from snakepit.errors import CallTimeout, PoolBroken, WorkerStartFailed
from snakepit.supervision.restarts import RestartBudget
from snakepit.testing import ManualClock, Reply, ScriptedAdapter
from snakepit.testing import clock as clock_module


def test_what_is_due_runs_in_order_and_at_its_time() -> None:
    clock = ManualClock()
    start = clock.time()
    ran: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float, again: float) -> None:
        for pause in (seconds, again):
            await asyncio.sleep(pause)
            ran.append((name, round(clock.time() - start, 6)))

    async def scenario() -> None:
        tasks = [
            asyncio.create_task(sleeper("a", 10, 10)),
            asyncio.create_task(sleeper("b", 15, 4)),
        ]
        await clock.advance(9.5)
        assert ran == []
        await clock.advance(10)
        assert ran == [("a", 10), ("b", 15), ("b", 19)]
        assert time.monotonic() == clock.time() == asyncio.get_running_loop().time() == start + 19.5
        await clock.advance(0.5)
        assert ran[-1] == ("a", 20.0)
        await asyncio.gather(*tasks)

    clock.run(scenario())
    assert time.monotonic() != clock.time()


def test_days_pass_too() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7 * 86400):
                await clock.advance(8 * 86400)
        await clock.advance(1)

    clock.run(scenario())


def test_a_calls_deadline_and_its_grace() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        script = ScriptedAdapter({"work": [Reply(after=asyncio.Event()), Reply(1)]})
        async with Pool(script, size=1) as pool:
            slow = asyncio.create_task(pool.execute("work", timeout=3600))
            queued = asyncio.create_task(pool.execute("work", timeout=1800))
            await script.called("work")
            await clock.advance(1800)
            error = queued.exception()
            assert isinstance(error, CallTimeout)
            assert (error.details["queued_s"], error.details["ran_s"]) == (1800, 0)
            await clock.advance(1800)
            error = slow.exception()
            assert isinstance(error, CallTimeout)
            assert (error.details["queued_s"], error.details["ran_s"]) == (0, 3600)
            assert await pool.execute("work") == 1

    clock.run(scenario())


def test_a_pool_whose_workers_do_not_start_tries_ever_more_slowly_then_gives_up() -> None:
    clock = ManualClock()
    error = WorkerStartFailed("no such device")
    pauses = RestartBudget(limit=100)
    expected = [pauses.record_failure(now=0.0) for _ in range(20)]

    async def scenario() -> None:
        # One of two workers comes up, so that the pool starts; the other never does.
        script = ScriptedAdapter({"work": lambda: 1}, starts=[None, *[error] * 100])
        async with Pool(script, size=2) as pool:
            left = len(script._starts)
            seen = [left]
            for pause in expected:
                await clock.advance(pause)
                left = len(script._starts)
                seen.append(left)
                if pool.stats().ready == 1 and seen[-1] == seen[-2]:
                    break
            assert left > 80  # it has given up long before the script's end
            tried = [b - a for a, b in zip(seen[1:], seen, strict=False)]
            assert tried == [1] * (len(tried) - 1) + [0]
            await clock.advance(3600)
            assert len(script._starts) == left
            with pytest.raises(PoolBroken, match="keep dying"):
                await pool.execute("work")

    clock.run(scenario())


def test_a_scenario_that_nobody_advances_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "PATIENCE", 0.01)
    clock = ManualClock()

    async def scenario() -> None:
        await asyncio.sleep(1)

    real = time.monotonic
    with pytest.raises(RuntimeError, match=r"nobody has called advance\(\)"):
        clock.run(scenario())
    assert time.monotonic is real


def test_the_clock_does_not_stop_what_needs_no_time() -> None:
    clock = ManualClock()

    async def scenario() -> Any:
        return await asyncio.to_thread(sum, [1, 2])

    assert clock.run(scenario()) == 3


def test_advancing_is_one_tasks_business_and_goes_forward() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        with pytest.raises(ValueError, match="does not go back by 1 s"):
            await clock.advance(-1)
        other = asyncio.create_task(clock.advance(1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await clock.advance(1)
        await other

    clock.run(scenario())
