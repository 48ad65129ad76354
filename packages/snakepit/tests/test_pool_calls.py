"""Which calls a pool says it has, and for how long."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from gated_pool import gated_pool, hold_all, noting
from processes import until

from snakepit import CallInfo, Pool, PythonAdapter
from snakepit.testing import Gate


async def test_it_tells_what_runs_and_what_waits() -> None:
    async with gated_pool(look_ahead=0) as (pool, gate):
        assert pool.calls() == ()
        (held,) = await hold_all(pool, gate, session_id="ada")
        low = noting(pool, 1, priority="low")
        high = noting(pool, 2, priority="high")
        await until(lambda: pool.stats().queued == 2, "two wait")
        running, *queued = pool.calls()
        assert isinstance(running, CallInfo)
        (worker,) = pool.workers()
        assert (running.command, running.session_id) == ("call_host", "ada")
        assert (running.state, running.worker_id) == ("running", worker.worker_id)
        assert running.correlation_id.startswith(f"{worker.worker_id}/")
        assert running.running_s is not None
        assert running.running_s > queued[0].queued_s > 0 <= running.queued_s
        assert [call.priority for call in queued] == ["high", "low"]
        assert {(call.state, call.worker_id, call.running_s) for call in queued} == {
            ("queued", None, None)
        }
        assert [call.correlation_id for call in pool.calls()[1:]] == [
            call.correlation_id for call in queued
        ]
        with pytest.raises(dataclasses.FrozenInstanceError):
            running.command = "other"  # type: ignore[misc]
        gate.opened.set()
        await asyncio.gather(held, low, high)
        assert pool.calls() == ()


async def test_calls_that_travel_together_are_told_each_by_itself() -> None:
    async with Pool(PythonAdapter("batch_worker:Worker"), size=1, look_ahead=0) as pool:
        with Gate() as gate:
            held = asyncio.create_task(pool.execute("hold", {"gate": gate.key}))
            await gate.reached()
            batched = [asyncio.create_task(pool.execute("double", {"x": x})) for x in range(3)]
            await until(lambda: len(pool.calls()) == 4, "all are there")
            assert [call.command for call in pool.calls()] == ["hold", *["double"] * 3]
            assert [call.state for call in pool.calls()] == ["running", *["queued"] * 3]
            gate.open()
            await held
            assert await asyncio.gather(*batched) == [0, 2, 4]
