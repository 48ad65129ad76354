"""Calls that kill their workers are refused after a while."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from processes import until

from snakepit import Pool, PythonAdapter
from snakepit.calls.call import Call
from snakepit.errors import ConfigurationError, Outcome, PoisonCall, StreamBroken, WorkerLost
from snakepit.loops.wakeups import WakeUps
from snakepit.supervision.quarantine import MEMORY, MOST_SUSPECTS, Quarantine

CRASH = WorkerLost("a worker is gone")


def call(command: str = "work", wire_id: int = 1, parent: int | None = None, **args: Any) -> Call:
    made = Call(command, args, wakeups=WakeUps(), submitted_at=0.0)
    made.wire_id, made.parent_id = wire_id, parent
    return made


def is_refused(quarantine: Quarantine, made: Call, now: float = 0.0) -> bool:
    try:
        quarantine.require_harmless(made, now)
    except PoisonCall as error:
        return error.__cause__ is CRASH
    return False


async def test_a_call_is_refused_at_the_limit_and_others_are_not() -> None:
    quarantine = Quarantine(2)
    assert quarantine.record_crash([call(row=1)], CRASH, 0.0) == []
    assert not is_refused(quarantine, call(row=1))
    assert quarantine.record_crash([call(row=1)], CRASH, 0.0) == ["work"]
    assert is_refused(quarantine, call(row=1))
    assert not is_refused(quarantine, call(row=2))
    assert not is_refused(quarantine, call("other", row=1))


async def test_a_success_clears_a_call() -> None:
    quarantine = Quarantine(2)
    quarantine.record_crash([call(row=1)], CRASH, 0.0)
    quarantine.acquit(call(row=2))
    assert quarantine.suspects
    quarantine.acquit(call(row=1))
    assert not quarantine.suspects


async def test_crashes_are_forgotten_in_time() -> None:
    quarantine = Quarantine(2)
    quarantine.record_crash([call(row=1)], CRASH, 0.0)
    quarantine.record_crash([call(row=1)], CRASH, 5.0)
    assert is_refused(quarantine, call(row=1), 5.0 + MEMORY - 1e-3)
    assert not is_refused(quarantine, call(row=1), 5.0 + MEMORY)
    assert not quarantine.suspects


async def test_a_crash_is_shared_among_the_calls_that_ran() -> None:
    quarantine = Quarantine(2)
    for crash in range(6):
        assert not is_refused(quarantine, call(row=0))
        others = [call(row=10 + crash, wire_id=3), call(row=20 + crash, wire_id=5)]
        quarantine.record_crash([call(row=0), *others], CRASH, 0.0)
    assert is_refused(quarantine, call(row=0))
    assert not is_refused(quarantine, call(row=10))


async def test_a_call_that_waits_for_one_nested_in_it_is_not_to_blame() -> None:
    quarantine = Quarantine(1)
    ran = [call("outer", wire_id=1), call("inner", wire_id=3, parent=1)]
    assert quarantine.record_crash(ran, CRASH, 0.0) == ["inner"]


async def test_a_bounded_number_is_remembered() -> None:
    quarantine = Quarantine(1)
    for row in range(MOST_SUSPECTS + 1):
        quarantine.record_crash([call(row=row)], CRASH, 0.0)
    assert len(quarantine.suspects) == MOST_SUSPECTS
    assert not is_refused(quarantine, call(row=0))
    assert is_refused(quarantine, call(row=1))


@pytest.mark.parametrize("value", [b"x" * (1 << 18), object()])
async def test_large_and_unencodable_arguments_are_not_tracked(value: Any) -> None:
    quarantine = Quarantine(1)
    assert quarantine.record_crash([call(value=value)], CRASH, 0.0) == []
    assert not quarantine.suspects


async def test_without_a_limit_nothing_is_kept() -> None:
    quarantine = Quarantine(None)
    quarantine.record_crash([call()], CRASH, 0.0)
    assert not quarantine.suspects


# --- real deaths ----------------------------------------------------------------------


def new_pool(**options: Any) -> Pool:
    return Pool(PythonAdapter("pool_worker:Worker"), **{"size": 1, **options})


DIE = {"number": int(signal.SIGKILL)}


async def die(pool: Pool) -> Exception | None:
    try:
        await pool.execute("die", DIE)
    except Exception as error:
        return error
    return None


async def test_12_a_call_that_kills_its_workers_is_refused_and_others_go_on() -> None:
    async with new_pool(size=2) as pool:
        assert [type(await die(pool)) for _ in range(2)] == [WorkerLost, WorkerLost]
        with pytest.raises(PoisonCall) as caught:
            await pool.execute("die", DIE, session_id="another")
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, False)
        assert caught.value.details["crashes"] == 2
        assert isinstance(caught.value.__cause__, WorkerLost)
        assert caught.value.__cause__.signal == "SIGKILL"
        assert await pool.execute("add", {"x": 1}) == 2
        assert (pool.stats().workers_lost, pool.stats().refused) == (2, 1)


async def test_12_calls_that_waited_when_it_was_found_out_are_refused_too() -> None:
    async with new_pool() as pool:
        ends = await asyncio.gather(*(die(pool) for _ in range(6)))
        assert [type(end) for end in ends].count(WorkerLost) == 2
        assert [type(end) for end in ends].count(PoisonCall) == 4
        assert await pool.execute("add", {"x": 1}) == 2


async def drained(pool: Pool) -> None:
    async for _ in pool.execute_stream("count_and_die", {"n": 3}):
        pass


async def test_12_a_deadly_stream_is_refused_at_its_first_step() -> None:
    async with new_pool() as pool:
        for _ in range(2):
            with pytest.raises(StreamBroken, match="SIGKILL"):
                await drained(pool)
        with pytest.raises(PoisonCall):
            await anext(pool.execute_stream("count_and_die", {"n": 3}))


async def test_12_new_code_is_given_the_call_again() -> None:
    async with new_pool() as pool:
        for _ in range(2):
            assert isinstance(await die(pool), WorkerLost)
        assert isinstance(await die(pool), PoisonCall)
        await until(lambda: pool.stats().ready == 1, "the last one is replaced")
        await pool.reload()
        assert isinstance(await die(pool), WorkerLost)


async def test_12_a_pool_may_go_without() -> None:
    async with new_pool(quarantine_after=None) as pool:
        assert [type(await die(pool)) for _ in range(3)] == [WorkerLost] * 3


def test_the_limit_is_at_least_one() -> None:
    with pytest.raises(ConfigurationError, match="quarantine_after"):
        new_pool(quarantine_after=0)
