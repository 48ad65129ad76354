"""Pools whose size follows their calls: on a clock that stands still, and with real processes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from gated_pool import gated_pool, hold_all
from processes import until

from snakepit import Pool, Sizing
from snakepit.errors import WorkerStartFailed
from snakepit.supervision.scaling import Change, Load, Scaler
from snakepit.testing import ManualClock, ScriptedAdapter

SIZES = Sizing(min=1, max=4, queue_wait=1.0, idle=10.0)


class Busy(ScriptedAdapter):
    """Its calls last until they are let go."""

    def __init__(self, **options: Any) -> None:
        super().__init__({"work": self._work}, **options)
        self.running: list[asyncio.Event] = []

    async def _work(self) -> None:
        ended = asyncio.Event()
        self.running.append(ended)
        await ended.wait()

    def let_go(self, count: int) -> None:
        for ended in self.running[:count]:
            ended.set()
        del self.running[:count]


def work(pool: Pool, count: int, **options: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(pool.execute("work", **options)) for _ in range(count)]


def on_a_clock(scenario: Any, sizes: Sizing = SIZES, **options: Any) -> None:
    clock = ManualClock()

    async def run() -> None:
        busy = Busy(**options.pop("adapter", {}))
        async with Pool(busy, size=sizes, **options) as pool:
            try:
                await scenario(pool, busy, clock)
            finally:
                while pool.stats().running or pool.stats().queued:
                    busy.let_go(len(busy.running))
                    await clock.advance(0.001)

    clock.run(run())


def test_calls_that_wait_add_workers_and_idle_ones_leave() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        sizes = []
        calls = work(pool, 10)
        for _ in range(4):
            await clock.advance(1.0)
            sizes.append(pool.stats().ready)
        assert sizes == [2, 4, 4, 4]
        assert len(busy.running) == 4
        busy.let_go(4)
        await clock.advance(0.001)
        assert len(busy.running) == 4, "the next ones run"
        for _ in range(3):
            busy.let_go(len(busy.running))
            await clock.advance(0.001)
        await asyncio.gather(*calls)
        await clock.advance(9.0)
        assert pool.stats().ready == 4
        # A spell with the last of the calls in it ends, then one after the other that needs none.
        await clock.advance(11.0)
        assert pool.stats().ready == 2
        await clock.advance(10.0)
        assert pool.stats().ready == 1
        await clock.advance(100.0)
        stats = pool.stats()
        assert (stats.size, stats.ready, stats.succeeded) == (1, 1, 10)
        assert (stats.workers_lost, stats.workers_recycled) == (0, 0)

    on_a_clock(scenario)


def test_a_worker_that_can_not_be_let_go_keeps_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(patience: float) -> bool:
        raise OSError("its channel is gone")

    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        calls = work(pool, 4)
        await clock.advance(3.0)
        assert pool.stats().ready == 4
        busy.let_go(4)
        await asyncio.gather(*calls)
        # The newest leave first.
        worker = list(pool._workforce.workers.values())[-1]
        monkeypatch.setattr(worker, "recall", fails)
        await clock.advance(50.0)
        assert {info.worker_id for info in pool.workers() if not info.leaving} == {"default-1"}
        assert {info.worker_id for info in pool.workers() if info.leaving} == {worker.worker_id}

    on_a_clock(scenario)
    assert caplog.text.count("can't be let go") == 1


def test_a_look_that_fails_is_logged_once_and_the_next_ones_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = Scaler.decide
    failures = [RuntimeError("no idea")] * 5

    def decide_later(scaler: Scaler, load: Load, now: float) -> Change | None:
        if failures:
            raise failures.pop()
        return decide(scaler, load, now)

    monkeypatch.setattr(Scaler, "decide", decide_later)

    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        work(pool, 2)
        await clock.advance(60.0)
        assert not failures
        assert pool.stats().ready == 2

    on_a_clock(scenario)
    assert caplog.text.count("can't follow its calls") == 1


def test_a_short_wait_adds_nothing() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        for _ in range(20):
            calls = work(pool, 2)
            await clock.advance(0.4)
            busy.let_go(1)
            await clock.advance(0.4)
            busy.let_go(1)
            await asyncio.gather(*calls)
        assert pool.stats().workers_started == 1

    on_a_clock(scenario)


def test_strict_calls_that_another_worker_could_not_serve_add_nothing() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        work(pool, 1, session_id="ada")
        await clock.advance(0.001)
        work(pool, 3, session_id="ada", affinity="strict_queue")
        await clock.advance(60.0)
        assert pool.stats().workers_started == 1
        work(pool, 1)
        await clock.advance(1.5)
        assert pool.stats().ready == 2
        await clock.advance(0.001)
        assert len(busy.running) == 2

    on_a_clock(scenario)


def test_calls_of_a_low_class_that_never_have_their_turn_add_workers() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        work(pool, 1, priority="low")
        await clock.advance(0.001)
        work(pool, 1, priority="low")
        for _ in range(8):
            work(pool, 1, priority="high")
            await clock.advance(0.2)
            busy.let_go(1)
        assert pool.stats().ready > 1

    on_a_clock(scenario)


def test_a_spare_worker_is_added_without_a_start() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        await clock.advance(0.001)
        (spare,) = [info.worker_id for info in pool.workers() if info.spare]
        work(pool, 2)
        await clock.advance(1.5)
        assert {info.worker_id for info in pool.workers() if info.in_flight} > {spare}
        assert (pool.stats().ready, pool.stats().spares) == (2, 1)

    on_a_clock(scenario, Sizing(min=1, max=4, spares=1, queue_wait=1.0, idle=10.0))


def test_workers_that_can_not_be_added_are_tried_again_without_hurry_and_break_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [WorkerStartFailed("no memory for one more")] * 12

    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        calls = work(pool, 2)
        await clock.advance(50.0)
        tried = len(caplog.messages)
        assert 8 <= tried <= 12
        assert pool.health().ready
        await clock.advance(20.0)
        assert pool.stats().ready == 2, "there is memory again"
        busy.let_go(2)
        await asyncio.gather(*calls)

    with caplog.at_level(logging.WARNING, "snakepit.pool"):
        on_a_clock(scenario, adapter={"starts": [None, *failures]})


def test_a_resize_begins_and_ends_the_scaling() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        pool.resize(3)
        await clock.advance(0.001)
        assert pool.stats().ready == 3
        await clock.advance(1000.0)
        assert pool.stats().ready == 3
        work(pool, 9)
        await clock.advance(50.0)
        assert pool.stats().ready == 3
        pool.resize(Sizing(min=2, max=8, queue_wait=1.0, idle=10.0))
        assert pool.stats().size == 3
        await clock.advance(5.0)
        assert pool.stats().ready == 8
        pool.resize(Sizing(min=1, max=2))
        assert (pool.stats().size, pool.stats().running) == (2, 8)

    on_a_clock(scenario)


def test_many_slots_a_worker_count_as_such() -> None:
    async def scenario(pool: Pool, busy: Busy, clock: ManualClock) -> None:
        work(pool, 16)
        await clock.advance(30.0)
        assert pool.stats().ready == 1
        work(pool, 20)
        await clock.advance(1.5)
        assert pool.stats().ready == 2
        await clock.advance(1.5)
        assert pool.stats().ready == 3

    on_a_clock(scenario, concurrency=16)


async def test_with_real_processes_a_crowd_is_served_and_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = Sizing(min=1, max=3, queue_wait=0.05, idle=0.2)
    with caplog.at_level(logging.INFO, "snakepit.pool"):
        async with gated_pool(size=sizes, look_ahead=0) as (pool, gate):
            # All three are held at once only if two workers were added.
            held = await hold_all(pool, gate, 3)
            assert pool.stats().ready == 3
            gate.opened.set()
            await asyncio.gather(*held)
            await until(lambda: pool.stats().ready == 1, "those not needed have left")
            assert await pool.execute("add", {"x": 1}) == 12
            stats = pool.stats()
            assert (stats.workers_lost, stats.failed, stats.size) == (0, 0, 1)
    grown = [text for text in caplog.messages if "from 1 to 2 workers: 2 calls wait" in text]
    assert len(grown) == 1, caplog.messages
    assert any("no more than" in text for text in caplog.messages)


async def test_59_a_pool_that_is_closed_while_it_grows_ends() -> None:
    sizes = Sizing(min=1, max=4, queue_wait=0.01, idle=0.2)
    async with gated_pool(size=sizes, look_ahead=0) as (pool, gate):
        calls = [
            asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
            for _ in range(4)
        ]
        await until(lambda: pool.stats().size > 1, "it grows")
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        gate.opened.set()
        await closing
        assert await asyncio.gather(*calls) == [None] * 4
