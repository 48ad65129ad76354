"""How soon a late call's caller, its slot and its neighbours are free; figures for one machine."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest
from fault_pool import fresh_calls, new_pool, settled
from measured import write_report

from snakepit import Pool
from snakepit.errors import CallTimeout

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
ROUNDS = 20
GRACE, LIMIT = 0.25, 0.2


async def neighbour_times(pool: Pool, until: asyncio.Future[Any]) -> list[float]:
    """The times of short calls, one after the other, until something is done."""
    times = []
    while not until.done():
        start = time.perf_counter()
        await pool.execute("add", {"x": 1})
        times.append(time.perf_counter() - start)
    return times


def p99_ms(times: list[float]) -> float:
    return round(statistics.quantiles(times, n=100)[98] * 1000, 3)


async def one_round(pool: Pool, command: str) -> tuple[float, float, list[float]]:
    """Seconds from the deadline to the error and to the free slot; the neighbours' times."""
    start = time.perf_counter()
    late = asyncio.create_task(pool.execute(command, timeout=LIMIT))
    neighbours = asyncio.create_task(neighbour_times(pool, late))
    with pytest.raises(CallTimeout):
        await late
    error_after = time.perf_counter() - start - LIMIT
    times = await neighbours
    ready = pool.stats().size
    await settled(
        lambda: pool.stats().stopping == 0 and pool.stats().ready >= ready, "the slot is back"
    )
    return error_after, time.perf_counter() - start - LIMIT, times


@pytest.mark.parametrize("command", ["spin", "sleep", "hold_gil"])
async def test_figures_of_a_late_call(command: str) -> None:
    async with new_pool(size=2, cancel_grace=GRACE) as pool:
        await fresh_calls(pool)
        quiet = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(2.0, quiet.set_result, None)
        alone = await neighbour_times(pool, quiet)
        busy = asyncio.create_task(pool.execute("burn", {"seconds": 2.0}))
        beside_work = await neighbour_times(pool, busy)
        errors, slots, beside_late = [], [], []
        for _ in range(ROUNDS):
            error_after, slot_after, times = await one_round(pool, command)
            errors.append(error_after)
            slots.append(slot_after)
            beside_late += times
    report = {
        "error after the deadline, ms": {
            "median": round(statistics.median(errors) * 1000, 2),
            "worst": round(max(errors) * 1000, 2),
            "goal": 50,
        },
        "slot back after the deadline, ms": {
            "median": round(statistics.median(slots) * 1000, 2),
            "worst": round(max(slots) * 1000, 2),
            "goal": (GRACE + 0.15) * 1000,
        },
        "neighbours' p99, ms": {
            "alone": p99_ms(alone),
            "beside a busy worker": p99_ms(beside_work),
            "beside the late call": p99_ms(beside_late),
        },
    }
    write_report(f"deadline-{command}", report)
    print(f"\n{command}: {report}")
    assert statistics.median(errors) < 0.05
    assert statistics.median(slots) < GRACE + 0.15
