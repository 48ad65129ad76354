"""Pools that become larger and smaller while they serve, and spare workers."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
from after_check import CheckedPool
from gated_pool import adapter, gated_pool, hold_all, noting
from processes import alive, send_signal, until

from snakepit import Pool, RecyclePolicy, Sizing
from snakepit.adapters.adapter import CallOptions, WorkerSpec
from snakepit.errors import (
    ConfigurationError,
    PoolBroken,
    PoolClosed,
    PoolNotReady,
    SessionWorkerUnavailable,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.testing import ManualClock, Reply, ScriptedAdapter


def serving(pool: Pool) -> list[str]:
    return [info.worker_id for info in pool.workers() if not info.leaving and not info.spare]


def spares(pool: Pool) -> list[str]:
    return [info.worker_id for info in pool.workers() if info.spare]


async def until_settled(pool: Pool, size: int, spare: int = 0) -> None:
    def settled() -> bool:
        infos = pool.workers()
        there = (len(serving(pool)), len(spares(pool)), len(infos))
        return there == (size, spare, size + spare) and not pool.stats().starting

    await until(settled, f"{size} workers and {spare} spare ones: {pool.workers()}")


# --- growing -------------------------------------------------------------------------------------


async def test_a_pool_grows_in_the_background_and_await_ready_waits_for_it() -> None:
    async with gated_pool() as (pool, gate):
        await hold_all(pool, gate)
        waiting = noting(pool, "waited")
        await until(lambda: pool.stats().queued == 1, "it waits")
        pool.resize(3)
        assert (pool.stats().size, pool.stats().ready) == (3, 1)
        await pool.await_ready(10.0)
        assert len(serving(pool)) == 3
        await waiting
        assert gate.noted == ["waited"]
        with pytest.raises(ConfigurationError, match="only 3"):
            await pool.await_ready(1.0, workers=4)


async def test_workers_that_do_not_start_are_tried_again_and_await_ready_tells() -> None:
    starts = [None, WorkerStartFailed("not yet"), WorkerStartFailed("not yet")]
    script = ScriptedAdapter({"work": [Reply(1)]}, starts=starts)
    async with Pool(script, size=1) as pool:
        pool.resize(2)
        with pytest.raises(PoolNotReady):
            await pool.await_ready(0.01)
        await pool.await_ready(10.0)
        assert pool.stats().ready == 2


# --- shrinking -----------------------------------------------------------------------------------


async def test_a_pool_shrinks_by_its_idle_workers_and_no_call_is_lost() -> None:
    async with gated_pool(size=4, look_ahead=0) as (pool, gate):
        held = await hold_all(pool, gate, 2)
        busy = {info.worker_id for info in pool.workers() if info.in_flight}
        idle = [info for info in pool.workers() if not info.in_flight]
        pool.resize(2)
        assert set(serving(pool)) == busy
        await until_settled(pool, 2)
        assert not any(alive(int(info.pid or 0)) for info in idle)
        pool.resize(1)
        (kept,) = serving(pool)
        assert len(pool.workers()) == 2, "the other one has a call yet"
        waiting = noting(pool, "after")
        await until(lambda: pool.stats().queued == 1, "it waits for the one that is kept")
        gate.opened.set()
        await asyncio.gather(*held, waiting)
        await until_settled(pool, 1)
        assert serving(pool) == [kept]
        stats = pool.stats()
        assert (stats.workers_lost, stats.workers_recycled, stats.failed) == (0, 0, 0)


async def test_of_idle_workers_the_one_with_the_fewest_sessions_leaves() -> None:
    async with CheckedPool(adapter(), size=2) as pool:
        for name in ("ada", "bob", "cy"):
            await pool.execute("pid", session_id=name)
        counts = dict.fromkeys(serving(pool), 0)
        for name in ("ada", "bob", "cy"):
            counts[str(pool.worker_of_session(name))] += 1
        richer, poorer = sorted(counts, key=lambda worker: -counts[worker])
        assert counts[richer] == 2
        pool.resize(1)
        assert serving(pool) == [richer]
        (lost,) = [name for name in ("ada", "bob", "cy") if pool.worker_of_session(name) == poorer]
        with pytest.raises(SessionWorkerUnavailable):
            await pool.execute("pid", session_id=lost, affinity="strict_queue")
        assert await pool.execute("pid", session_id=lost)
        await until_settled(pool, 1)


async def test_what_is_not_up_yet_is_called_off_first() -> None:
    class Slow(ScriptedAdapter):
        """Its first worker starts at once, the others never; it notes who was given up."""

        def __init__(self) -> None:
            super().__init__({})
            self.begun = self.given_up = 0

        async def start_worker(self, spec: WorkerSpec) -> Any:
            self.begun += 1
            try:
                if self.begun > 1:
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            return await super().start_worker(spec)

    slow = Slow()
    async with Pool(slow, size=1) as pool:
        (first,) = serving(pool)
        pool.resize(4)
        await until(lambda: slow.begun == 4, "all are being started")
        pool.resize(2)
        await until(lambda: slow.given_up == 2, "two are given up")
        pool.resize(1)
        await until(lambda: slow.given_up == 3, "all are given up")
        assert serving(pool) == [first]
        assert pool.stats().starting == 0


# --- spare workers -------------------------------------------------------------------------------


async def test_a_spare_worker_takes_the_place_of_a_dead_one_at_once() -> None:
    async with Pool(adapter(), size=Sizing(min=1, max=1, spares=1)) as pool:
        await until_settled(pool, 1, 1)
        (old,), (spare,) = serving(pool), spares(pool)
        stats = pool.stats()
        assert (stats.size, stats.ready, stats.spares) == (1, 1, 1)
        assert await pool.execute("add", {"x": 1}) == 12
        assert {i.completed for i in pool.workers() if i.spare} == {0}
        with pytest.raises(WorkerLost):
            await pool.execute("die", {"number": int(signal.SIGKILL)})
        # No worker was started meanwhile: it is there as soon as the other's death is known.
        assert serving(pool) == [spare] != [old]
        assert await pool.execute("add", {"x": 1}) == 12
        await until_settled(pool, 1, 1)


async def test_a_spare_worker_takes_the_place_of_a_recycled_one_and_is_recycled_itself() -> None:
    async with Pool(adapter(), size=Sizing(min=2, max=2, spares=1)) as pool:
        await until_settled(pool, 2, 1)
        (old, _), (spare,) = serving(pool), spares(pool)
        assert pool.recycle(old)
        await until(lambda: old not in serving(pool), "it leaves")
        assert spare in serving(pool)
        await until_settled(pool, 2, 1)
        (idle,) = spares(pool)
        assert pool.recycle(idle)
        await until_settled(pool, 2, 1)
        assert idle not in {info.worker_id for info in pool.workers()}
        assert pool.stats().workers_recycled == 2


async def test_a_reload_leaves_no_spare_worker_with_the_old_code() -> None:
    async with Pool(adapter(), size=Sizing(min=2, max=2, spares=2)) as pool:
        await until_settled(pool, 2, 2)
        before = {info.worker_id for info in pool.workers()}
        await pool.reload()
        await until_settled(pool, 2, 2)
        assert not before & {info.worker_id for info in pool.workers()}


async def test_a_spare_worker_that_dies_is_replaced_and_one_that_does_not_start_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakepit.supervision.workforce._GROW_AGAIN", 0.01)
    failures = [WorkerStartFailed("no memory for one more")] * 20
    script = ScriptedAdapter({"work": [Reply(1)]}, starts=[None, *failures])
    async with Pool(script, size=Sizing(min=1, max=1, spares=1)) as pool:
        await until_settled(pool, 1, 1)
        assert script._starts == type(script._starts)()
        assert pool.health().ready
        (spare,) = spares(pool)
        script.workers[spare].die()
        await until_settled(pool, 1, 1)
        assert spares(pool) != [spare]
        assert await pool.execute("work") == 1


async def test_spare_workers_come_and_go_with_the_size() -> None:
    async with Pool(adapter(), size=1) as pool:
        pool.resize(Sizing(min=2, max=2, spares=2))
        await until_settled(pool, 2, 2)
        newest = spares(pool)[-1]
        pool.resize(3)
        assert len(serving(pool)) == 3, "a spare one is there at once"
        await until_settled(pool, 3)
        assert newest not in {info.worker_id for info in pool.workers()}


# --- an adapter that can't have one more ---------------------------------------------------------


class Limited(ScriptedAdapter):
    """Has room for so many workers, and counts how many there were at most."""

    def __init__(self, worker_limit: int | None, **options: Any) -> None:
        super().__init__({"work": lambda: 1, "hold": self.hold}, **options)
        self.worker_limit = worker_limit
        self.opened = asyncio.Event()
        self.most = 0

    async def hold(self) -> int:
        await self.opened.wait()
        return 1

    async def start_worker(self, spec: WorkerSpec) -> Any:
        worker = await super().start_worker(spec)
        self.most = max(self.most, len(self.workers))
        return worker


async def test_a_worker_for_whose_successor_there_is_no_room_ends_first() -> None:
    limited = Limited(2)
    async with Pool(limited, size=2) as pool:
        before = set(serving(pool))
        held = asyncio.create_task(pool.execute("hold"))
        await limited.called("hold")
        reload = asyncio.create_task(pool.reload())
        # The idle one first; the other one takes no more calls, and ends when it can.
        await until(lambda: not before & set(serving(pool)), "one is replaced, one leaves")
        assert await pool.execute("work") == 1
        assert not reload.done()
        limited.opened.set()
        assert await held == 1
        await reload
        await until_settled(pool, 2)
        assert not before & set(serving(pool))
        assert limited.most == 2


async def test_a_pool_keeps_to_the_limit_whatever_happens() -> None:
    limited = Limited(3)
    policy = RecyclePolicy(max_calls=3)
    async with Pool(limited, size=Sizing(min=2, max=2, spares=1), recycle=policy) as pool:
        for number in range(60):
            if number % 7 == 0:
                limited.workers[random.choice(list(limited.workers))].die()
            assert await pool.execute("work") == 1
        await until_settled(pool, 2, 1)
        assert limited.most <= 3


async def test_what_does_not_fit_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="devices for 2"):
        Pool(Limited(2), size=3)
    with pytest.raises(ConfigurationError, match="devices for 2"):
        Pool(Limited(2), size=Sizing(min=1, max=2, spares=1))
    async with Pool(Limited(2)) as pool:
        assert pool.stats().size == 2
        with pytest.raises(ConfigurationError, match="devices for 2"):
            pool.resize(3)
        assert pool.stats().size == 2


# --- when a pool can't be resized ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "2"])
async def test_impossible_sizes_are_refused(size: Any) -> None:
    async with Pool(ScriptedAdapter({}), size=1) as pool:
        with pytest.raises(ConfigurationError, match="size is"):
            pool.resize(size)
        assert pool.stats().size == 1


async def test_59_a_pool_that_is_not_open_is_not_resized() -> None:
    pool = Pool(ScriptedAdapter({}), size=1)
    with pytest.raises(PoolClosed, match="not started"):
        pool.resize(2)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="still starting"):
        pool.resize(2)
    await starting
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="clos"):
        pool.resize(2)
    await closing
    with pytest.raises(PoolClosed, match="is closed"):
        pool.resize(2)


async def test_a_pool_is_resized_in_its_own_loop_only() -> None:
    async with Pool(ScriptedAdapter({}), size=1) as pool:
        for elsewhere in (pool.resize, lambda size: asyncio.run(_resize(pool, size))):
            with pytest.raises(ConfigurationError, match=r"belongs to an(other)? event loop"):
                await asyncio.to_thread(elsewhere, 2)


async def _resize(pool: Pool, size: int) -> None:
    pool.resize(size)


def test_a_broken_pool_is_not_resized() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        script = ScriptedAdapter({}, starts=[None, *[OSError("no more")] * 20])
        async with Pool(script, size=1) as pool:
            script.workers[serving(pool)[0]].die()
            await clock.advance(60.0)
            assert not pool.health().live
            with pytest.raises(PoolBroken):
                pool.resize(2)

    clock.run(scenario())


# --- all at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [True, False])
async def test_59_a_pool_that_is_closed_while_it_is_resized_leaves_nothing(drain: bool) -> None:
    for before, after, turns in itertools.product((1, 3), (2,), (0, 1, 20)):
        pool = Pool(adapter(), size=before)
        await pool.start()
        pids = [int(info.pid or 0) for info in pool.workers()]
        call = asyncio.create_task(pool.execute("add", {"x": 1}))
        pool.resize(after)
        for _ in range(turns):
            await asyncio.sleep(0)
        pids += [int(info.pid or 0) for info in pool.workers()]
        await pool.aclose(drain=drain)
        outcome: object = (await asyncio.gather(call, return_exceptions=True))[0]
        assert outcome == 12 or isinstance(outcome, PoolClosed), repr(outcome)
        assert not any(map(alive, pids))


async def test_59_resizes_crashes_recycling_and_reloads_at_once_come_to_rest() -> None:
    """The size asked for last is what comes of it, and every call ends."""
    chance = random.Random(7)
    limits = Sizing(min=1, max=4, spares=1, idle=0.2, queue_wait=0.02)
    pool = CheckedPool(adapter(), size=2, quarantine_after=None, cancel_grace=0.1)
    moves: list[Callable[[], object]] = [
        lambda: pool.resize(chance.randint(1, 5)),
        lambda: pool.resize(limits),
        lambda: kill_one(pool, chance),
        lambda: pool.recycle(chance.choice(pool.workers()).worker_id) if pool.workers() else None,
        lambda: reloads.append(asyncio.create_task(pool.reload())),
    ]
    reloads: list[asyncio.Task[None]] = []
    async with pool:
        outcomes: list[Any] = []
        for _ in range(40):
            call = asyncio.create_task(pool.execute("add", {"x": 1}))
            chance.choice(moves)()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            outcomes += await asyncio.gather(call, return_exceptions=True)
        await asyncio.gather(*reloads, return_exceptions=True)
        assert all(one == 12 or isinstance(one, WorkerLost) for one in outcomes), outcomes
        pool.resize(3)
        await until_settled(pool, 3)
        assert await pool.execute("add", {"x": 1}) == 12
        stats = pool.stats()
        assert (stats.queued, stats.running, stats.stopping) == (0, 0, 0)


def kill_one(pool: Pool, chance: random.Random) -> None:
    if pool.workers():
        send_signal(chance.choice(pool.workers()), signal.SIGKILL)


async def test_64_a_hundred_resizes_leave_nothing_behind() -> None:
    async with CheckedPool(adapter(), size=1) as pool:
        descriptors, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for number in range(50):
            pool.resize(3)
            if number % 2:
                await pool.await_ready(10.0)
            pool.resize(1)
        await until_settled(pool, 1)
        await until(lambda: len(asyncio.all_tasks()) == tasks, "no task is left")
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "nor a descriptor")


class Plain:
    """An adapter that starts nothing: its workers are nothing."""

    async def execute(self, worker: Any, command: str, args: Any, options: CallOptions) -> Any:
        return options.session_id


async def test_an_adapter_with_nothing_but_execute_is_resized_as_any() -> None:
    async with Pool(Plain(), size=1) as pool:
        pool.resize(3)
        await pool.await_ready(5.0)
        pool.resize(1)
        await until_settled(pool, 1)
        assert await pool.execute("x", session_id="ada") == "ada"
