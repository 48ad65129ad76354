"""Options of scheduling, waiting for workers, names of pools, and what explain tells."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import pytest
from gated_pool import Reluctant, adapter, gated_pool, hold_all, noting
from processes import send_signal, until

import snakepit
from snakepit import Explanation, HostCall, Pool
from snakepit.errors import (
    ConfigurationError,
    PoolBroken,
    PoolClosed,
    PoolNotReady,
    WorkerLost,
)
from snakepit.supervision import restarts

# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("affinity", "strict"), ("queue_timeout", 0), ("session_limit", 0), ("affinity", None)],
)
def test_a_pool_refuses_impossible_options(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Pool(adapter(), **{option: value})


@pytest.mark.parametrize(
    ("option", "value"), [("affinity", "strict"), ("queue_timeout", -1), ("priority", 5)]
)
async def test_a_call_refuses_impossible_options(option: str, value: Any) -> None:
    async with Pool(adapter(), size=1) as pool:
        with pytest.raises(ConfigurationError, match=option):
            await pool.execute("add", {"x": 1}, **{option: value})
        assert pool.stats().submitted == 0


async def test_no_more_sessions_are_remembered_than_allowed() -> None:
    async with Pool(adapter(), size=1, session_limit=10) as pool:
        for number in range(30):
            await pool.execute("add", {"x": 1}, session_id=str(number))
        assert pool.stats().sessions == 10
        assert pool.worker_of_session("19") is None
        assert pool.worker_of_session("20") is not None


# --- readiness and names -------------------------------------------------------------------------


async def test_await_ready_waits_for_all_or_for_some() -> None:
    async with Pool(adapter(), size=2) as pool:
        await pool.await_ready(20.0)
        first, second = pool.workers()
        send_signal(first, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "a death is noticed")
        await pool.await_ready(20.0)
        assert second in pool.workers()
        assert len(pool.workers()) == 2
        await pool.await_ready(20.0, workers=1)
        with pytest.raises(ConfigurationError, match="only 2"):
            await pool.await_ready(workers=3)
    with pytest.raises(PoolClosed, match="is closed"):
        await pool.await_ready(1.0)


async def test_await_ready_says_how_many_are_ready_when_its_time_is_over() -> None:
    reluctant = Reluctant()
    async with Pool(reluctant, size=2) as pool:
        await pool.await_ready(workers=1)
        await until(lambda: reluctant.starts == 3, "the start is tried again")
        with pytest.raises(PoolNotReady, match="1 of 2 workers") as caught:
            await pool.await_ready(0.01)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.details == {"ready": 1, "wanted": 2, "starting": 1}
        waiting = asyncio.create_task(pool.await_ready())
        reluctant.gate.set()
        await waiting


async def test_await_ready_ends_when_the_pool_is_closed() -> None:
    reluctant = Reluctant()
    async with Pool(reluctant, size=2) as pool:
        await until(lambda: reluctant.starts == 3, "the start is tried again")
        waiting = asyncio.create_task(pool.await_ready())
        await asyncio.sleep(0)
    with pytest.raises(PoolClosed):
        await waiting


async def test_await_ready_fails_when_the_workers_keep_dying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "_LONGEST_DELAY", 0.1)
    async with Pool(adapter(), size=1, quarantine_after=None) as pool:
        for _ in range(8):
            with pytest.raises((WorkerLost, PoolBroken)):
                await pool.execute("die", {"number": int(signal.SIGKILL)})
        with pytest.raises(PoolBroken):
            await pool.await_ready(30.0)


async def test_pools_of_one_name_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="snakepit")
    async with (
        Pool(adapter(), size=1, name="twin") as one,
        Pool(adapter(), size=1, name="twin") as two,
    ):
        assert (one.name, two.name) == ("twin", "twin#2")
        ids = [pool.workers()[0].worker_id for pool in (one, two)]
        assert ids == ["twin-1", "twin#2-1"]
        with pytest.raises(WorkerLost, match="twin#2-1"):
            await two.execute("die", {"number": int(signal.SIGKILL)})
        assert await one.execute("add", {"x": 1}) == 12
        await two.await_ready(20.0)
        assert one.stats().workers_lost == 0
    assert any("pool twin#2: " in record.getMessage() for record in caplog.records)
    async with Pool(adapter(), size=1, name="twin") as again:
        assert again.name == "twin"


# --- explain -------------------------------------------------------------------------------------


async def test_explain_tells_what_would_become_of_a_call() -> None:
    async with gated_pool(size=2, queue_limit=3) as (pool, gate):
        explanation = pool.explain("add")
        assert isinstance(explanation, Explanation)
        assert explanation.runs_now
        assert "the least loaded worker" in explanation.reason
        await pool.execute("add", {"x": 1}, session_id="s")
        home = pool.worker_of_session("s")
        explanation = pool.explain("add", "s")
        assert (explanation.worker_id, explanation.session_worker) == (home, home)
        assert "served its session before" in explanation.reason

        calls = await hold_all(pool, gate, session_id="s")
        explanation = pool.explain("add", "s")
        assert explanation.runs_now
        assert explanation.worker_id != home
        assert "is busy" in explanation.reason
        explanation = pool.explain("add", "s", affinity="strict_queue")
        assert not explanation.runs_now
        assert (explanation.worker_id, explanation.position) == (home, 0)
        assert f"waits for {home}" in explanation.reason
        assert pool.explain("add", "s", affinity="strict_fail_fast").error == "worker_busy"

        calls += await hold_all(pool, gate)
        calls += [noting(pool, 1), noting(pool, 2, priority="low")]
        await until(lambda: pool.stats().queued == 2, "they wait")
        explanation = pool.explain("add", priority="high")
        assert (explanation.position, explanation.worker_id) == (0, None)
        assert "all 2 are busy" in explanation.reason
        assert pool.explain("add").position == 1
        calls.append(noting(pool, 3))
        await until(lambda: pool.stats().queued == 3, "the queue is full")
        assert pool.explain("add").error == "pool_saturated"
        assert pool.stats().submitted == 6
        gate.opened.set()
        await asyncio.gather(*calls)


async def test_explain_tells_of_a_lost_session_and_of_a_nested_call() -> None:
    seen: list[Explanation] = []

    async def look(call: HostCall) -> None:
        seen.append(pool.explain("add", call.session_id))

    async with Pool(adapter(), size=1, host_functions={"look": look}) as pool:
        await pool.execute("call_host", {"name": "look", "args": {}}, session_id="s")
        (worker,) = pool.workers()
        assert seen[0].runs_now
        assert seen[0].worker_id == worker.worker_id
        assert "in the slot of the call that waits for it" in seen[0].reason
        send_signal(worker, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "its death is noticed")
        lost = pool.explain("add", "s", affinity="strict_queue")
        assert (lost.error, lost.session_worker) == ("session_worker_unavailable", worker.worker_id)
    with pytest.raises(PoolClosed):
        pool.explain("add")
    assert snakepit.Explanation is Explanation
