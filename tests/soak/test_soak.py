"""An hour of everything at once (`make soak`; SOAK_SECONDS and SOAK_SEED change it).

Left out of `make test` by its marker.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from fault_pool import Baseline, after_check, fresh_calls, new_pool, pids_of, settled
from host_kill import VARIANTS, seconds_until_gone
from measured import Series, write_report
from soak_calls import DISTURBED, Ledger, disturb, make_calls
from storm import rage

from snakepit import Heartbeat, Pool, RecyclePolicy
from snakepit.errors import PoolStartFailed

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]
SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
SEED = int(os.environ.get("SOAK_SEED") or secrets.randbelow(2**32))
CALLERS = 6
#: Seconds. Whether memory is flat can't be told earlier: what is made on first use is being made.
LONG_ENOUGH = 600.0
#: Looks at the memory. Workers come and go all the time, so a single one says little.
SAMPLES = 1200
#: The pools that are soaked, by their options.
POOLS: dict[str, dict[str, Any]] = {
    # Often enough that some come to it before they are killed.
    "serial": {"size": 2, "recycle": RecyclePolicy(max_calls=200)},
    "concurrent": {"size": 2, "concurrency": 8, "recycle": RecyclePolicy(max_age=0.5)},
}


def new_soak_pool(name: str) -> Pool:
    heartbeat = Heartbeat(interval=0.5)
    return new_pool(name=name, cancel_grace=0.1, heartbeat=heartbeat, **POOLS[name])


async def short_lives(ledger: Ledger, over: asyncio.Event) -> None:
    """Open, use and close pools beside the others, as programs start and stop."""
    while not over.is_set():
        try:
            async with new_pool(size=1, name="short") as pool:
                await fresh_calls(pool)
        except (PoolStartFailed, *DISTURBED) as error:  # the keeper it shares was killed
            ledger.disturbances[f"pool opened: {type(error).__name__}"] += 1
        else:
            ledger.disturbances["pool opened and closed"] += 1
        await _pause(over, 3.0)


async def disturbances(
    pools: list[Pool], dice: random.Random, ledger: Ledger, over: asyncio.Event
) -> None:
    """Something bad about twice a second."""
    while not over.is_set():
        await _pause(over, dice.expovariate(2.0))
        disturb(dice.choice(pools), dice, ledger)


async def _pause(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


async def with_fresh_workers(pool: Pool) -> None:
    """Replace all workers: what is kept for a worker's large values goes with it."""
    old = set(pids_of(pool))
    for pid in old:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await settled(lambda: not old & set(pids_of(pool)), "the deaths are noticed")


async def test_soak() -> None:
    print(f"\nsoak: SOAK_SECONDS={SECONDS:g} SOAK_SEED={SEED}")
    ledger, series, over = Ledger(), Series(), asyncio.Event()
    start = time.monotonic()
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(new_soak_pool(name)) for name in POOLS]
        for pool in pools:
            await fresh_calls(pool)
        before = Baseline.take()
        submitted = sum(pool.stats().submitted for pool in pools)
        async with asyncio.TaskGroup() as group:
            group.create_task(disturbances(pools, random.Random(SEED), ledger, over))
            group.create_task(short_lives(ledger, over))
            for number in range(CALLERS * len(pools)):
                pool, dice = pools[number % len(pools)], random.Random(SEED + 1 + number)
                group.create_task(make_calls(pool, dice, ledger, over.is_set))
            while (elapsed := time.monotonic() - start) < SECONDS:
                series.take(elapsed)
                await _pause(over, SECONDS / SAMPLES)
            over.set()
        await settled(lambda: all(pool.stats().running == 0 for pool in pools), "all have ended")
        made = sum(pool.stats().submitted for pool in pools) - submitted
        stats = {pool.name: pool.stats() for pool in pools}
        for pool in pools:
            await with_fresh_workers(pool)
        for pool in pools:
            await after_check(pool, before, *(other for other in pools if other is not pool))
    report = {
        "seconds": SECONDS, "seed": SEED, "calls made": made, "kinds": dict(ledger.made),
        "ends": dict(ledger.ended), "disturbances": dict(ledger.disturbances), "pools": stats,
        "memory": series.summary()["figures"], "wrong": ledger.wrong[:100],
        "series": series.summary(),
    }  # fmt: skip
    print(f"soak: {write_report('soak', report).with_suffix('.md')}")
    assert ledger.wrong == []
    assert ledger.made.total() == ledger.ended.total()
    assert all(each.workers_recycled for each in stats.values())
    if SECONDS >= LONG_ENOUGH:
        assert series.is_flat("host_rss_mb"), series.summary()["figures"]
        assert series.is_flat("workers_pss_mb"), series.summary()["figures"]


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_storm_of_100_000_calls(concurrency: int) -> None:
    """Under a SIGKILL every 50 ms each call ends once, with its own result or a typed error."""
    start = time.monotonic()
    storm = await rage(100_000, seed=SEED, concurrency=concurrency)
    report = {
        "seed": SEED, "seconds": round(time.monotonic() - start, 1), "kills": storm.kills,
        "ends": dict(storm.ends), "wrong": storm.wrong[:100],
    }  # fmt: skip
    write_report(f"storm-{concurrency}", report)
    assert storm.wrong == []
    assert storm.ended == 100_000
    assert set(storm.ends) <= {"own result", "WorkerLost", "StreamBroken"}
    assert storm.kills > 50


def test_hosts_killed_at_random_moments(tmp_path: Path) -> None:
    """Two hundred of them, in all states: nothing is left of any after a second."""
    dice = random.Random(SEED)
    worst = 0.0
    for _ in range(200):
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        variant, delay = dice.choice(list(VARIANTS)), dice.uniform(0.0, 0.2)
        took = seconds_until_gone(variant, folder, delay)
        assert took < 1.0, f"{variant}, {delay:.3f} s after it was ready: {took:.3f} s"
        assert list(folder.iterdir()) == []
        worst = max(worst, took)
    write_report("host-kills", {"seed": SEED, "hosts": 200, "longest_s": round(worst, 4)})
