"""What a pool says of its health."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from after_check import CheckedPool

from snakepit import Health, Pool, PythonAdapter
from snakepit.errors import PoolBroken, WorkerLost, WorkerStartFailed
from snakepit.supervision import restarts
from snakepit.supervision.health import HealthFacts, judge

WELL: dict[str, Any] = {
    "takes_calls": True, "may_take_calls": False, "why_not": "", "is_foreign": False,
    "broken": None, "failures": 0, "is_looping": False, "open_workers": 2, "starting": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "live", "ready", "reason"),
    [
        ({}, True, True, None),
        ({"open_workers": 1, "failures": 2}, True, True, None),
        ({"open_workers": 0, "starting": 1}, True, False, "no worker is ready, 1 are starting"),
        ({"is_looping": True, "failures": 3}, True, False, "3 workers in a row"),
        (
            {"takes_calls": False, "may_take_calls": True, "why_not": "is new"},
            True,
            False,
            "is new",
        ),
        ({"takes_calls": False, "why_not": "is closed"}, False, False, "is closed"),
        ({"broken": OSError("no memory")}, False, False, "no memory"),
        ({"is_foreign": True}, False, False, "another process"),
    ],
)
def test_health_follows_from_the_facts(
    change: dict[str, Any], live: bool, ready: bool, reason: str | None
) -> None:
    health = judge(HealthFacts(**{**WELL, **change}))
    assert (health.live, health.ready) == (live, ready)
    assert (health.reasons == ()) == (reason is None)
    assert reason is None or reason in health.reasons[0]


def new_pool(**options: Any) -> Pool:
    return CheckedPool(PythonAdapter("pool_worker:Worker"), **{"size": 1, **options})


async def test_a_pool_is_ready_while_it_is_open() -> None:
    pool = new_pool()
    assert pool.health() == Health(
        True, False, ("the pool is not started; enter it with `async with`",)
    )
    async with pool:
        assert pool.health() == Health(True, True)
    assert pool.health() == Health(False, False, ("the pool is closed",))


async def test_12_a_crash_loop_makes_it_unready_until_a_call_completes() -> None:
    async with new_pool() as pool:
        for number in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"number": int(number)})
        health = pool.health()
        assert (health.live, health.ready) == (True, False)
        assert "3 workers in a row" in health.reasons[-1]
        assert await pool.execute("add", {"x": 1}) == 2
        assert pool.health() == Health(True, True)


async def test_12_workers_that_always_die_break_the_pool_instead_of_burning_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "_LONGEST_DELAY", 0.1)
    async with new_pool(quarantine_after=None) as pool:
        errors: list[Exception] = []
        while not any(isinstance(error, PoolBroken) for error in errors):
            try:
                await pool.execute("die", {"number": int(signal.SIGKILL)}, timeout=30)
            except (WorkerLost, PoolBroken) as error:
                errors.append(error)
        assert len(errors) <= 12
        assert isinstance(errors[-1].__cause__, WorkerStartFailed | WorkerLost)
        assert (pool.stats().running, pool.stats().queued) == (0, 0)
        pool.reset_restarts()
        assert await pool.execute("add", {"x": 1}) == 2


async def test_12_a_pool_that_is_to_go_on_replaces_workers_that_always_die_at_once() -> None:
    async with new_pool(size=2, quarantine_after=None) as pool:
        start = time.monotonic()
        for _ in range(20):
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"number": int(signal.SIGKILL)}, timeout=30)
            pool.reset_restarts()
        assert time.monotonic() - start < 10, "with growing pauses it would be a minute"
        await pool.await_ready(10)
        assert pool.health() == Health(True, True)
