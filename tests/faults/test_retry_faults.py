"""Retries when workers die: what runs again, how often, and what is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fault_pool import WORKER, assert_accounted, faulty_pool, until_full
from processes import until

from snakepit import Pool, RetryPolicy, with_policies
from snakepit.errors import Outcome, PoisonCall, WorkerLost
from snakepit.testing import Action, Fault, FaultyAdapter, Phase, kill_worker


def persistent() -> RetryPolicy:
    return RetryPolicy(attempts=10, first_delay=0.001, longest_delay=0.01, budget=10)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize(
    ("phase", "ran"), [(Phase.ARGUMENTS_DECODED, 0), (Phase.RESULT_HALF_WRITTEN, 1)]
)
async def test_56_what_may_have_run_is_retried_only_if_it_is_idempotent(
    phase: Phase, ran: int, idempotent: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    with Fault(phase, Action.KILL, command="append_line") as fault:
        async with Pool(FaultyAdapter(WORKER, faults=[fault]), size=1) as pool:
            calls = with_policies(pool, persistent())
            call = calls.execute(
                "append_line", {"path": str(log), "die": False}, idempotent=idempotent, timeout=20.0
            )
            if idempotent:
                await call
            else:
                with pytest.raises(WorkerLost) as caught:
                    await call
                assert caught.value.outcome is Outcome.UNKNOWN
                assert caught.value.details["attempts"] == 1
        assert fault.fired
    assert log.read_text().count("ran\n") == ran + idempotent


async def test_12_a_deadly_call_is_not_retried_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with faulty_pool(quarantine_after=2) as pool:
        calls = with_policies(pool, persistent())
        deadly = calls.execute("append_line", {"path": str(log), "die": True}, idempotent=True)
        good = [calls.execute("add", {"x": x}, idempotent=True) for x in range(40)]
        error, *sums = await asyncio.gather(deadly, *good, return_exceptions=True)
        assert isinstance(error, PoisonCall)
        assert isinstance(error.__cause__, WorkerLost)
        assert error.details["attempts"] == 3
        assert sums == [x + 1 for x in range(40)]
        assert log.read_text() == "ran\n" * 2


async def test_11_idempotent_calls_get_through_a_storm_of_kills() -> None:
    async with faulty_pool(size=2) as pool:
        calls = with_policies(pool, persistent())
        burn = (calls.execute("burn", {"seconds": 0.005}, idempotent=True) for _ in range(200))
        storm = asyncio.gather(*burn)
        for _ in range(10):
            await more_have_succeeded(pool, 10)
            await until_full(pool)
            kill_worker(pool)
        await storm
        await until_full(pool)
        assert_accounted(pool.stats())


async def more_have_succeeded(pool: Pool, count: int) -> None:
    """A pool in which no call completes between deaths would give up."""
    goal = pool.stats().succeeded + count
    await until(lambda: pool.stats().succeeded >= goal, f"{count} more calls have succeeded")
