"""With concurrency: one call of a worker does not stop, and what becomes of its other calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until

from snakepit import Pool, PythonAdapter
from snakepit.errors import Outcome, WorkerLost
from snakepit.testing import Gate


def new_pool() -> Pool:
    adapter = PythonAdapter("pool_worker:Worker")
    return Pool(adapter, size=1, concurrency=4, cancel_grace=0.1)


async def stuck_with_a_sibling(pool: Pool, started: Path, gate: Gate) -> asyncio.Task[Any]:
    """In the one worker, with concurrency: a call that was given up and does not stop, and another
    one, which waits at the gate. Returns that one when the worker's successor serves."""
    (worker,) = pool.workers()
    stuck = asyncio.create_task(pool.execute("sleep", {"started": str(started)}))
    args = {"gate": gate.key, "note": "spared"}
    sibling = asyncio.create_task(pool.execute("wait_at_gate", args))
    await until(started.exists, "one has begun")
    assert [arrival.pid for arrival in await gate.reached()] == [worker.pid]
    stuck.cancel()
    suspect = worker.worker_id

    def is_serving() -> bool:
        return any(i.worker_id == suspect and not i.leaving for i in pool.workers())

    await until(lambda: not is_serving(), "the worker is suspect")
    assert await pool.execute("pid") != worker.pid
    return sibling


async def test_with_concurrency_a_stuck_call_costs_its_siblings_nothing_when_they_end_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.supervision.workforce._RETIRE_PATIENCE", 3600.0)
    async with new_pool() as pool:
        before = await pool.execute("pid")
        with Gate() as gate:
            sibling = await stuck_with_a_sibling(pool, tmp_path / "started", gate)
            assert alive(before)
            gate.open()
            assert await sibling == "spared"
        await until(lambda: not alive(before), "the stuck worker ends after it")
        await until(lambda: len(pool.workers()) == 1, "its successor alone is left")
        assert (pool.stats().running, pool.stats().stopping) == (0, 0)
        assert (pool.stats().cancelled, pool.stats().failed) == (1, 0)


async def test_with_concurrency_a_sibling_that_outlasts_the_patience_ends_with_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.supervision.workforce._RETIRE_PATIENCE", 0.05)
    async with new_pool() as pool:
        worker = pool.workers()[0]
        with Gate() as gate:
            sibling = await stuck_with_a_sibling(pool, tmp_path / "started", gate)
            with pytest.raises(WorkerLost, match="did not stop within") as caught:
                await sibling
        error = caught.value
        assert (error.outcome, error.retryable) == (Outcome.UNKNOWN, False)
        assert (error.worker_id, error.signal) == (worker.worker_id, "SIGKILL")
        await until(lambda: len(pool.workers()) == 1, "its successor alone is left")
        assert (pool.stats().running, pool.stats().stopping) == (0, 0)
