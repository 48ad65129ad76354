"""What a pool says of its health."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from snakepit import Health, Pool, PythonAdapter
from snakepit.errors import WorkerLost
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


def new_pool() -> Pool:
    return Pool(PythonAdapter("pool_worker:Worker"), size=1)


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
