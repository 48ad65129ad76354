"""The events of workers, of their looking after and of their processes, each provoked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated_pool import gated_pool, hold_all
from processes import until, until_computing
from supervised_worker import MIB
from told_events import proves, told

from snakepit import Heartbeat, Pool, PythonAdapter, RecyclePolicy, ResourceLimits, Sizing
from snakepit.errors import PoolBroken, RemoteError, ResourceLimitExceeded, WorkerHung
from snakepit.processes.sweep import RunMark
from snakepit.testing import kill_keeper, kill_template, kill_worker, signal_process, worker_pid
from snakepit.worker.marks import RUN_VARIABLE

QUICK = Heartbeat(interval=0.05, misses=3)


def new_pool(target: str = "supervised_worker:Worker", **options: Any) -> Pool:
    own = {name: options.pop(name) for name in ("start", "limits") if name in options}
    return Pool(PythonAdapter(target, **own), **{"size": 1, "name": "shop", **options})


# --- starts --------------------------------------------------------------------------------------


@proves("worker.spawn_started", "worker.spawned", "worker.ready")
@pytest.mark.parametrize("start", ["template", "spawn"])
async def test_a_worker_that_starts_is_told_step_by_step(start: str) -> None:
    with told() as events:
        async with new_pool(start=start) as pool:
            pid = pool.workers()[0].pid
    started = events.assert_told("snakepit.worker.spawn_started")
    assert started.metadata == {"pool": "shop", "worker_id": "shop-1"}
    labels = {"pool": "shop", "worker_id": "shop-1", "pid": pid}
    spawned = events.assert_told("snakepit.worker.spawned")
    assert spawned.metadata == {**labels, "forked": start == "template"}
    ready = events.assert_told("snakepit.worker.ready")
    assert ready.metadata == labels
    assert ready.measurements["duration_s"] >= spawned.measurements["duration_s"] > 0.0
    order = [name for name in events.names if name.startswith("snakepit.worker.")]
    assert [name.rpartition(".")[2] for name in order] == [
        "spawn_started", "spawned", "ready", "terminated"
    ]  # fmt: skip


@proves("worker.spawn_failed", "pool.broken")
async def test_workers_that_do_not_start_any_more_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told_to_fail.py").write_text(
        "import os, snakepit\nfrom pathlib import Path\nclass Worker:\n"
        "    def __init__(self, allowed):\n        os.unlink(allowed)\n"
        "    @snakepit.command\n    def hello(self): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    allowed = tmp_path / "allowed"
    allowed.touch()
    adapter = PythonAdapter("told_to_fail:Worker", config={"allowed": str(allowed)})
    async with Pool(adapter, size=1, name="shop") as pool:
        pool._workforce.budget.limit = 2
        with told() as events:
            kill_worker(pool)
            broken = await events.wait_for("snakepit.pool.broken", pool="shop")
        with pytest.raises(PoolBroken):
            await pool.execute("hello")
    failed = events.told("snakepit.worker.spawn_failed", error="worker_start_failed")
    assert failed[0].metadata["worker_id"] == "shop-2"
    assert broken.measurements == {"failures": 2}
    assert broken.metadata["error"] == "worker_start_failed"


# --- ends ----------------------------------------------------------------------------------------


@proves("worker.crash", "worker.terminated", "worker.restarted")
async def test_a_worker_that_dies_and_its_replacement_are_told() -> None:
    async with new_pool() as pool:
        await pool.execute("echo", {"value": 1})
        with told() as events:
            pid = kill_worker(pool)
            await events.wait_for("snakepit.worker.restarted", worker_id="shop-2")
    crash = events.assert_told("snakepit.worker.crash")
    assert crash.metadata == {
        "pool": "shop", "worker_id": "shop-1", "pid": pid, "reason": "crash",
        "exit_code": None, "signal": "SIGKILL", "phase": "idle",
    }  # fmt: skip
    assert crash.measurements["calls"] == 1
    assert crash.measurements["in_flight"] == 0
    events.assert_told("snakepit.worker.terminated", worker_id="shop-1", planned=False)
    assert events.assert_told("snakepit.worker.restarted").measurements == {"delay_s": 0.0}


async def test_a_worker_that_ends_with_its_pool_is_no_crash() -> None:
    with told() as events:
        async with new_pool():
            pass
    ended = events.assert_told("snakepit.worker.terminated", planned=True)
    assert (ended.metadata["exit_code"], ended.metadata["signal"]) == (0, None)
    assert "snakepit.worker.crash" not in events.names


@proves("worker.recycled")
async def test_a_worker_that_is_recycled_is_told() -> None:
    async with new_pool(recycle=RecyclePolicy(max_calls=2)) as pool:
        with told() as events:
            for _ in range(2):
                await pool.execute("pid")
            await events.wait_for("snakepit.worker.terminated", worker_id="shop-1")
    recycled = events.assert_told("snakepit.worker.recycled", worker_id="shop-1")
    assert recycled.metadata["reason"] == "it has ended 2 calls"
    assert recycled.measurements["calls"] == 2
    events.assert_told("snakepit.worker.terminated", worker_id="shop-1", planned=True)
    assert "snakepit.worker.crash" not in events.names


@proves("worker.tainted")
async def test_a_worker_whose_call_was_broken_off_is_told() -> None:
    async with new_pool() as pool:
        with told() as events:
            unwanted = asyncio.create_task(pool.execute("spin"))
            await until_computing(pool)
            unwanted.cancel()
            await events.wait_for("snakepit.worker.restarted")
            # Its successor may be there before it is gone.
            await events.wait_for("snakepit.worker.terminated", worker_id="shop-1")
    tainted = events.assert_told("snakepit.worker.tainted", worker_id="shop-1", pool="shop")
    assert tainted.metadata["reason"] == "a call of it was broken off"
    events.assert_told("snakepit.worker.terminated", worker_id="shop-1", planned=True)


@proves("limit.exceeded")
async def test_a_worker_that_uses_up_its_cpu_time_is_told() -> None:
    async with new_pool(limits=ResourceLimits(cpu_time=1)) as pool:
        with told() as events, pytest.raises(ResourceLimitExceeded):
            await pool.execute("spin")
    exceeded = events.assert_told("snakepit.limit.exceeded")
    assert exceeded.metadata == {"pool": "shop", "worker_id": "shop-1", "limit": "cpu_time"}


async def test_a_worker_that_gets_no_more_memory_is_told() -> None:
    async with new_pool(limits=ResourceLimits(memory=300 * MIB)) as pool:
        with told() as events, pytest.raises(RemoteError):
            await pool.execute("leak", {"mib": 280})
    exceeded = events.assert_told("snakepit.limit.exceeded")
    assert exceeded.metadata == {"pool": "shop", "worker_id": "shop-1", "limit": "memory"}
    failed = events.assert_told("snakepit.call.exception")
    assert failed.metadata["error_type"] == "MemoryError"


# --- heartbeat -----------------------------------------------------------------------------------


@proves(
    "pool.status", "heartbeat.monitor_started", "heartbeat.monitor_stopped",
    "heartbeat.ping_sent", "heartbeat.pong_received",
)  # fmt: skip
async def test_looks_at_idle_workers_are_told() -> None:
    with told() as events:
        async with new_pool(heartbeat=QUICK) as pool:
            pid = pool.workers()[0].pid
            pong = await events.wait_for("snakepit.heartbeat.pong_received")
            status = await events.wait_for("snakepit.pool.status")
    interval = {"interval_s": 0.05}
    assert events.assert_told("snakepit.heartbeat.monitor_started").measurements == interval
    assert events.assert_told("snakepit.heartbeat.monitor_stopped").measurements == interval
    assert pong.metadata == {"pool": "shop", "worker_id": "shop-1", "pid": pid}
    assert events.told("snakepit.heartbeat.ping_sent")[0].metadata == pong.metadata
    assert status.metadata == {"pool": "shop"}
    assert status.measurements == {
        "size": 1, "ready": 1, "starting": 0, "queued": 0, "running": 0, "stopping": 0,
        "sessions": 0,
    }  # fmt: skip


@proves("heartbeat.missed", "worker.hung")
async def test_a_frozen_worker_is_told_look_by_look_and_as_hung() -> None:
    async with new_pool(heartbeat=QUICK) as pool:
        with told() as events:
            pid = worker_pid(pool)
            signal_process(pid, signal.SIGSTOP)
            hung = await events.wait_for("snakepit.worker.hung")
            await events.wait_for("snakepit.worker.restarted")
    missed = events.told("snakepit.heartbeat.missed", worker_id="shop-1")
    assert [event.measurements["missed"] for event in missed[:3]] == [1, 2, 3]
    verdicts = [event.metadata["verdict"] for event in missed[:3]]
    assert verdicts == ["silent", "silent", "stopped"]
    assert hung.metadata == {
        "pool": "shop", "worker_id": "shop-1", "pid": pid, "verdict": "stopped"
    }  # fmt: skip
    assert hung.measurements["silent_s"] == pytest.approx(0.15)
    crash = events.assert_told("snakepit.worker.crash")
    assert str(crash.metadata["reason"]).startswith("killed: stopped")


async def test_a_call_of_a_frozen_worker_ends_and_is_told() -> None:
    async with new_pool(heartbeat=QUICK) as pool:
        pid = await pool.execute("pid")
        with told() as events:
            signal_process(pid, signal.SIGSTOP)
            with pytest.raises(WorkerHung):
                await pool.execute("pid")
    events.assert_told("snakepit.call.exception", error="worker_hung")


# --- shared memory -------------------------------------------------------------------------------


@proves("shared_memory.export", "shared_memory.import")
async def test_large_buffers_are_told_in_both_directions() -> None:
    array = np.zeros(1 << 20, "u1")
    async with new_pool() as pool:
        with told() as events:
            await pool.execute("echo", {"value": array})
            small = await pool.execute("echo", {"value": array[:10]})
            assert small.nbytes == 10
    labels = {"pool": "shop", "worker_id": "shop-1"}
    for name in ("export", "import"):
        event = events.assert_told(f"snakepit.shared_memory.{name}")
        assert event.metadata == labels
        assert event.measurements == {"bytes": array.nbytes}


@proves("shared_memory.fallback")
async def test_large_buffers_without_room_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(size: int) -> None:
        raise OSError

    array = np.zeros(1 << 20, "u1")
    async with new_pool() as pool:
        worker: Any = pool._workforce.workers["shop-1"]
        monkeypatch.setattr(worker._data.segments, "_create_memory", no_memory)
        with told() as events:
            echoed = await pool.execute("echo", {"value": array})
            assert echoed.nbytes == array.nbytes
    fallback = events.assert_told("snakepit.shared_memory.fallback")
    assert fallback.measurements == {"bytes": array.nbytes}
    assert fallback.metadata == {"pool": "shop", "worker_id": "shop-1"}
    assert "snakepit.shared_memory.export" not in events.names


# --- keeper and templates ------------------------------------------------------------------------


@proves("keeper.started", "keeper.terminated", "template.started", "template.terminated")
async def test_keeper_and_template_are_told_when_they_come_and_go() -> None:
    adapter = PythonAdapter("supervised_worker:Worker")
    with told() as events:
        async with Pool(adapter, size=1):
            keeper, template = adapter.keeper_pid, adapter.template_pid
    assert events.assert_told("snakepit.keeper.started").metadata == {"pid": keeper}
    events.assert_told("snakepit.keeper.terminated", pid=keeper, planned=True)
    started = events.assert_told("snakepit.template.started")
    assert started.metadata == {"target": "supervised_worker:Worker", "pid": template}
    events.assert_told("snakepit.template.terminated", pid=template, planned=True)


async def test_a_keeper_and_a_template_that_die_are_told() -> None:
    adapter = PythonAdapter("supervised_worker:Worker")
    async with Pool(adapter, size=1) as pool:
        with told() as events:
            template = kill_template(adapter)
            await events.wait_for("snakepit.template.terminated", pid=template, planned=False)
            pool.recycle("default-1")
            await events.wait_for("snakepit.template.started")
            await events.wait_for("snakepit.worker.ready")
            keeper = kill_keeper(adapter)
            await events.wait_for("snakepit.keeper.terminated", pid=keeper, planned=False)
            await events.wait_for("snakepit.keeper.started")


@proves("template.unsafe")
async def test_what_can_not_be_forked_is_told() -> None:
    with told() as events:
        async with new_pool("pool_worker:Threaded") as pool:
            assert await pool.execute("hello") == "hello"
    unsafe = events.assert_told("snakepit.template.unsafe")
    assert unsafe.metadata == {"target": "pool_worker:Threaded"}
    events.assert_told("snakepit.worker.spawned", forked=False)
    assert "snakepit.template.terminated" not in events.names


@proves("template.start_failed")
async def test_a_template_that_can_not_import_is_told() -> None:
    with told() as events, pytest.raises(Exception, match="no_such_module"):
        async with new_pool("no_such_module:Worker"):
            pass
    failed = events.assert_told("snakepit.template.start_failed")
    assert failed.metadata["target"] == "no_such_module:Worker"
    assert failed.metadata["error"] == "worker_start_failed"


@pytest.mark.alone  # or the keeper of another test ends the orphan first
@proves("keeper.swept")
async def test_orphans_that_a_keeper_has_killed_are_told() -> None:
    mark = RunMark.new()
    of_a_host_that_is_gone = str(mark._replace(run_id="gone", started=mark.started - 1))
    with orphan(of_a_host_that_is_gone), told() as events:
        adapter = PythonAdapter("supervised_worker:Worker")
        async with Pool(adapter, size=1):
            swept = await events.wait_for("snakepit.keeper.swept", pid=adapter.keeper_pid)
    assert swept.measurements == {"processes": 1}


@contextlib.contextmanager
def orphan(mark: str) -> Iterator[None]:
    """A process that would live for ever, with a run's mark in its environment."""
    code = "import signal; print(flush=True); signal.pause()"
    env = {**os.environ, RUN_VARIABLE: mark}
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


async def test_events_of_two_pools_name_their_pool() -> None:
    with told() as events:
        async with new_pool(name="shop") as one, new_pool(name="depot") as other:
            await one.execute("pid")
            await other.execute("pid")
            await until(lambda: len(events.told("snakepit.call.stop")) == 2, "both are told")
    pools = {event.metadata["pool"] for event in events.told("snakepit.call.stop")}
    assert pools == {"shop", "depot"}


@proves("pool.scaled")
async def test_a_size_that_follows_the_calls_is_told() -> None:
    sizes = Sizing(min=1, max=2, queue_wait=0.05, idle=0.1)
    with told() as events:
        async with gated_pool(name="shop", size=sizes, look_ahead=0) as (pool, gate):
            held = await hold_all(pool, gate, 2)
            grown = await events.wait_for("snakepit.pool.scaled", pool="shop")
            assert grown.measurements == {"size": 2, "size_before": 1}
            gate.opened.set()
            await asyncio.gather(*held)
            await until(lambda: pool.stats().ready == 1, "the one not needed has left")
    sizes_told = [each.measurements["size"] for each in events.told("snakepit.pool.scaled")]
    assert sizes_told == [2, 1]
