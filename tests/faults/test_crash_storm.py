"""Scenario 11: workers die faster than anybody could look."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from fault_pool import faulty_pool, outcomes_of, pids_of, settled
from storm import rage

from snakepit.errors import WorkerLost

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_11_five_thousand_calls_under_a_kill_every_50_ms(concurrency: int) -> None:
    storm = await rage(5000, seed=11, concurrency=concurrency)
    assert storm.wrong == []
    assert storm.ended == 5000
    assert set(storm.ends) <= {"own result", "WorkerLost", "StreamBroken"}
    assert storm.kills >= 3
    assert storm.ends["own result"] > 2500


async def test_11_all_workers_die_at_once_again_and_again() -> None:
    async with faulty_pool(size=4) as pool:
        for _ in range(5):
            running = [asyncio.create_task(pool.execute("spin")) for _ in range(4)]
            await settled(lambda: pool.stats().running == 4, "all run")
            for pid in pids_of(pool):
                os.kill(pid, signal.SIGKILL)
            assert all(isinstance(error, WorkerLost) for error in await outcomes_of(*running))
            # A call that ends well in between: this is no crash loop.
            assert await pool.execute("add", {"x": 1}, timeout=20) == 2
