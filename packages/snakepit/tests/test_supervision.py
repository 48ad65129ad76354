"""Workers that are recycled, frozen or deadlocked. With real processes; the numbers are those of
the scenarios in docs/faults.md."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool
from processes import alive, send_signal, until
from supervised_worker import MIB

from snakepit import CallOptions, Heartbeat, Pool, PythonAdapter, RecyclePolicy, WorkerSpec
from snakepit.errors import CallTimeout, ConfigurationError, Outcome, WorkerHung
from snakepit.processes.vitals import private_memory
from snakepit.supervision.member import Standing
from snakepit.testing import Gate

WORKER = "supervised_worker:Worker"
QUICK = Heartbeat(interval=0.05, misses=3)


def new_pool(**options: Any) -> Pool:
    return CheckedPool(PythonAdapter(WORKER), **{"size": 2, "heartbeat": QUICK, **options})


def serving(pool: Pool) -> list[str]:
    return [info.worker_id for info in pool.workers() if not info.leaving]


async def until_full(pool: Pool) -> None:
    def full() -> bool:
        return len(serving(pool)) == len(pool.workers()) == pool.stats().size

    await until(full, "the pool is at its size again")


# --- 22: recycling -----------------------------------------------------------------------------


async def call_until_recycled(pool: Pool, times: int, command: str, **args: Any) -> int:
    """Call from 8 tasks until so many workers are recycled; every call has to succeed, and there
    must always be as many serving workers as the pool's size. Returns the number of calls."""
    calls = 0

    async def caller() -> None:
        nonlocal calls
        while pool.stats().workers_recycled < times:
            await pool.execute(command, args)
            calls += 1
            assert len(serving(pool)) >= pool.stats().size

    await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(8))), 60)
    await until_full(pool)
    stats = pool.stats()
    assert (stats.succeeded, stats.workers_lost) == (calls, 0)
    return calls


async def test_22_workers_are_recycled_by_calls_under_load_without_losing_one() -> None:
    async with new_pool(recycle=RecyclePolicy(max_calls=5)) as pool:
        calls = await call_until_recycled(pool, 6, "pid")
        assert calls >= 5 * 6


async def test_22_an_exact_limit_of_calls_is_never_passed() -> None:
    policy = RecyclePolicy(max_calls=3, exact=True)
    async with new_pool(recycle=policy, look_ahead=0) as pool:
        pids = await asyncio.gather(*(pool.execute("pid") for _ in range(24)))
        assert max(Counter(pids).values()) == 3
        await until_full(pool)
        stats = pool.stats()
        assert stats.workers_lost == 0
        assert stats.workers_recycled == list(Counter(pids).values()).count(3)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_22_workers_are_recycled_by_age_under_load_without_losing_one(
    concurrency: int,
) -> None:
    policy = RecyclePolicy(max_age=0.2)
    async with new_pool(recycle=policy, concurrency=concurrency) as pool:
        await call_until_recycled(pool, 4, "pid")


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_22_a_leaking_worker_is_recycled_under_load_without_losing_a_call(
    concurrency: int,
) -> None:
    async with new_pool(size=1) as pool:
        at_start = private_memory(int(pool.workers()[0].pid or 0))
    policy = RecyclePolicy(max_memory=at_start + 40 * MIB)
    async with new_pool(recycle=policy, concurrency=concurrency) as pool:
        calls = await call_until_recycled(pool, 3, "leak", mib=4)
        assert calls >= 3 * 10


async def test_22_what_a_running_call_holds_is_no_leak(tmp_path: Path) -> None:
    async with new_pool(size=1, recycle=RecyclePolicy(max_memory=1)) as pool:
        started, gate = tmp_path / "started", tmp_path / "gate"
        before = serving(pool)
        (member,) = pool._workforce.members.values()
        running = asyncio.create_task(
            pool.execute("sleep_until", {"started": str(started), "gate": str(gate)})
        )
        await until(started.exists, "the call runs")
        if member.standing is Standing.SERVING:  # or the first look came before the call
            looks = pool._workforce.monitor
            first = looks.last_look
            await until(lambda: looks.last_look > first + 0.2, "it was looked at several times")
            assert serving(pool) == before
        gate.touch()
        assert await running == "done"
        await until(lambda: serving(pool) != before, "it is replaced after the call")


async def test_22_a_worker_is_recycled_on_request_and_finishes_its_call(tmp_path: Path) -> None:
    async with new_pool(size=1) as pool:
        started, gate = tmp_path / "started", tmp_path / "gate"
        running = asyncio.create_task(
            pool.execute("sleep_until", {"started": str(started), "gate": str(gate)})
        )
        await until(started.exists, "the call runs")
        (old,) = pool.workers()
        assert pool.recycle(old.worker_id)
        assert not pool.recycle(old.worker_id)
        assert not pool.recycle("no such worker")
        await until(lambda: old.worker_id not in serving(pool), "it takes no calls any more")
        assert await pool.execute("pid") != old.pid
        assert not running.done()
        gate.touch()
        assert await running == "done"
        await until_full(pool)
        assert not alive(int(old.pid or 0))
        assert (pool.stats().workers_recycled, pool.stats().workers_lost) == (1, 0)


class Scripted:
    """An adapter whose workers are plain objects; the second and later ones start as told."""

    class Worker:
        pid: int | str = 1 << 30  # no process has this number

    def __init__(self) -> None:
        self.started = 0
        self.pids: list[int | str] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def start_worker(self, spec: WorkerSpec) -> Scripted.Worker:
        self.started += 1
        if self.started > 1:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
        worker = self.Worker()
        if self.pids:
            worker.pid = self.pids.pop(0)
        return worker

    async def execute(
        self, worker: Any, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> str:
        return command


async def test_22_without_a_successor_the_old_worker_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = Scripted()
    adapter.failure = RuntimeError("no memory left")
    async with Pool(adapter, size=1) as pool:
        (old,) = serving(pool)
        assert pool.recycle(old)
        adapter.gate.set()
        await until(lambda: "no memory left" in caplog.text, "the failed start is logged")
        assert serving(pool) == [old]
        assert await pool.execute("work") == "work"
        assert pool.stats().workers_recycled == 0


async def test_22_a_worker_that_dies_while_its_successor_starts_is_replaced_once() -> None:
    adapter = Scripted()
    async with Pool(adapter, size=1) as pool:
        (old,) = serving(pool)
        assert pool.recycle(old)
        await until(lambda: adapter.started == 2, "the successor starts")
        pool._workforce.workers[old].kill("for the test")
        assert serving(pool) == []
        adapter.gate.set()
        await until_full(pool)
        assert adapter.started == 2
        assert await pool.execute("work") == "work"


async def test_22_a_probe_that_fails_is_logged_once_and_recycles_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = RecyclePolicy(max_memory=1)
    async with Pool(Scripted(), size=1, recycle=policy, heartbeat=QUICK) as pool:
        looks = pool._workforce.monitor
        first = looks.last_look
        await until(lambda: looks.last_look > first + 0.2, "it was looked at several times")
        assert pool.stats().workers_recycled == 0
    assert caplog.text.count("its memory can't be read") == 1


async def test_22_the_memory_of_a_worker_that_was_killed_is_not_looked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    started = tmp_path / "started"
    async with new_pool(size=1, recycle=RecyclePolicy(max_memory=1 << 40)) as pool:
        (stuck,) = serving(pool)
        member = pool._workforce.members[stuck]
        args = {"started": str(started), "seconds": 3600}
        call = asyncio.create_task(pool.execute("hold_gil_and_sleep", args))
        await until(lambda: member.is_probe_due, "it was to be looked at after its call")
        call.cancel()
        await until(member.gone.is_set, "it is killed")
        await until_full(pool)
    assert f"{stuck} is replaced: its call of 'hold_gil_and_sleep' did not stop" in caplog.text
    assert "memory can't be read" not in caplog.text


async def test_22_a_worker_that_can_not_be_looked_at_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = Scripted()
    adapter.pids = ["no process\0has this", os.getpid()]  # no path may hold a zero
    adapter.gate.set()
    policy = RecyclePolicy(max_memory=1)
    async with Pool(adapter, size=2, recycle=policy, heartbeat=QUICK) as pool:
        first, second = serving(pool)
        await until(lambda: second not in serving(pool), "the second one is looked at")
        looks = pool._workforce.monitor
        last = looks.last_look
        await until(lambda: looks.last_look > last + 0.2, "they are looked at several times")
        assert first in serving(pool)
        assert pool.stats().workers_recycled == 1
    assert caplog.text.count("can't be looked at") == 1
    assert "embedded null byte" in caplog.text


def test_options_of_the_wrong_type_are_refused() -> None:
    for name in ("recycle", "heartbeat"):
        with pytest.raises(ConfigurationError, match=name):
            Pool(Scripted(), **{name: 5})  # type: ignore[arg-type]


# --- 16: frozen and deadlocked -----------------------------------------------------------------


async def test_16_a_frozen_idle_worker_is_noticed_and_replaced() -> None:
    async with new_pool() as pool:
        victim = pool.workers()[0]
        send_signal(victim, signal.SIGSTOP)
        await until(lambda: pool.stats().workers_lost == 1, "it is killed")
        await until_full(pool)
        assert not alive(int(victim.pid or 0))
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_16_a_call_of_a_frozen_worker_ends_without_any_deadline(tmp_path: Path) -> None:
    async with new_pool(size=1) as pool:
        started = tmp_path / "started"
        running = asyncio.create_task(
            pool.execute("sleep_until", {"started": str(started), "gate": "/no/such/file"})
        )
        await until(started.exists, "the call runs")
        send_signal(pool.workers()[0], signal.SIGSTOP)
        with pytest.raises(WorkerHung) as caught:
            await running
        error = caught.value
        assert (error.signal, error.phase, error.outcome) == ("SIGKILL", "call", Outcome.UNKNOWN)
        assert "stopped" in str(error.reason)
        await until_full(pool)


async def test_16_a_worker_that_goes_on_in_time_is_kept() -> None:
    async with new_pool(size=1, heartbeat=Heartbeat(interval=0.05, misses=200)) as pool:
        (member,) = pool._workforce.members.values()
        send_signal(pool.workers()[0], signal.SIGSTOP)
        await until(lambda: member.pulse.missed >= 2, "it is found silent")
        send_signal(pool.workers()[0], signal.SIGCONT)
        await until(lambda: member.pulse.missed == 0, "it answers again")
        assert pool.stats().workers_lost == 0


async def test_16_an_idle_worker_that_is_deadlocked_is_replaced() -> None:
    async with new_pool(size=1) as pool:
        before = await pool.execute("pid")
        with Gate() as gate:
            await pool.execute("deadlock_at_gate", {"gate": gate.key})
            await gate.reached()
        await until(lambda: pool.stats().workers_lost == 1, "it is killed")
        assert await pool.execute("pid") != before


@pytest.mark.parametrize("command", ["hold_gil_and_burn", "hold_gil_and_sleep"])
async def test_18_a_call_that_holds_the_interpreters_lock_is_busy_and_not_hung(
    tmp_path: Path, command: str
) -> None:
    args = {"rounds": 10**12} if command == "hold_gil_and_burn" else {"seconds": 3600}
    async with new_pool(size=1, cancel_grace=0.1) as pool:
        (member,) = pool._workforce.members.values()
        started = tmp_path / "started"
        running = asyncio.create_task(
            pool.execute(command, {"started": str(started), **args}, timeout=1.5)
        )
        await until(lambda: member.pulse.missed > 5, "it has been silent for long")
        assert not running.done()
        assert pool.stats().workers_lost == 0
        with pytest.raises(CallTimeout):
            await running
        await until_full(pool)
        assert pool.stats().workers_lost == 0


async def test_18_a_blocked_host_loop_makes_no_worker_look_hung() -> None:
    async with new_pool() as pool:
        before = serving(pool)
        for _ in range(4):
            threading.Event().wait(QUICK.misses * 0.05 * 2)
            await asyncio.sleep(0)
        looks = pool._workforce.monitor
        first = looks.last_look
        await until(lambda: looks.last_look > first + 0.3, "it was looked at several times")
        assert serving(pool) == before
        assert pool.stats().workers_lost == 0


async def test_16_without_a_heartbeat_nobody_looks() -> None:
    async with new_pool(size=1, heartbeat=None, cancel_grace=0.05) as pool:
        send_signal(pool.workers()[0], signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            await pool.execute("pid", timeout=0.5)
        await until_full(pool)
        assert pool.stats().workers_lost == 0
