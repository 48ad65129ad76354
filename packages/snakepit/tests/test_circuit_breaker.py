"""A circuit breaker around a pool: what opens it, what it refuses, and how it closes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from snakepit import CircuitBreaker, Pool, RetryPolicy, with_policies
from snakepit.errors import (
    CallTimeout,
    CircuitOpen,
    Outcome,
    PoolClosed,
    PoolSaturated,
    StreamBroken,
    UnknownCommand,
    WorkerLost,
)
from snakepit.policies import CircuitState
from snakepit.policies.breaker import is_breakdown
from snakepit.testing import Die, Fail, ManualClock, Reply, ScriptedAdapter, Stream


def on_clock(scenario: Callable[[ManualClock], Any]) -> None:
    clock = ManualClock()
    clock.run(scenario(clock))


def state_of(breaker: CircuitBreaker) -> CircuitState:
    """A property that is asked twice is taken by type checkers to answer the same."""
    return breaker.state


async def lose(calls: Any, times: int) -> None:
    for _ in range(times):
        with pytest.raises(WorkerLost):
            await calls.execute("work")


def test_lost_workers_open_it_and_it_closes_after_a_probe() -> None:
    async def scenario(clock: ManualClock) -> None:
        breaker = CircuitBreaker(failures=3, open_time=30.0)
        script = ScriptedAdapter({"work": [Die(), Die(), Die(), Reply("well"), Reply("again")]})
        async with Pool(script, size=1) as pool:
            calls = with_policies(pool, breaker)
            await lose(calls, 3)
            assert state_of(breaker) is CircuitState.OPEN
            assert repr(breaker) == "<CircuitBreaker open>"
            await clock.advance(10.0)
            with pytest.raises(CircuitOpen) as caught:
                await calls.execute("work")
            error = caught.value
            assert (error.outcome, error.retryable) == (Outcome.NONE, True)
            assert error.retry_after_s == 20.0
            await clock.advance(20.0)
            assert state_of(breaker) is CircuitState.HALF_OPEN
            assert await calls.execute("work") == "well"
            assert state_of(breaker) is CircuitState.CLOSED
            assert await calls.execute("work") == "again"
        script.assert_done()

    on_clock(scenario)


async def test_what_a_command_raises_is_an_answer_and_what_was_not_sent_is_nothing() -> None:
    breaker = CircuitBreaker(failures=2)
    no, full = Fail(ValueError("no")), Fail(PoolSaturated("full"))
    script = ScriptedAdapter({"work": [Die(), full, no, Die(), Die()]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, breaker)
        await lose(calls, 1)
        with pytest.raises(PoolSaturated):
            await calls.execute("work")
        with pytest.raises(UnknownCommand):
            await calls.execute("play")
        with pytest.raises(ValueError, match="no"):
            await calls.execute("work")
        await lose(calls, 1)
        assert state_of(breaker) is CircuitState.CLOSED
        await lose(calls, 1)
        assert state_of(breaker) is CircuitState.OPEN


def test_which_errors_are_breakdowns() -> None:
    assert is_breakdown(WorkerLost("gone"))
    assert is_breakdown(CallTimeout("late"))
    assert not is_breakdown(CallTimeout("late", outcome=Outcome.NONE))
    assert not is_breakdown(PoolClosed("closed", outcome=Outcome.UNKNOWN))
    assert not is_breakdown(ValueError("no"))


async def test_a_cancelled_call_counts_as_nothing() -> None:
    breaker = CircuitBreaker(failures=1)
    script = ScriptedAdapter({"work": [Reply(after=asyncio.Event()), Reply("done")]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, breaker)
        call = asyncio.create_task(calls.execute("work"))
        await script.called("work")
        call.cancel()
        await asyncio.wait([call])
        assert state_of(breaker) is CircuitState.CLOSED
        assert await calls.execute("work") == "done"


async def test_which_errors_count_can_be_said() -> None:
    breaker = CircuitBreaker(failures=1, is_failure=lambda error: isinstance(error, LookupError))
    script = ScriptedAdapter({"work": [Die(), Fail(KeyError("no"))]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, breaker)
        await lose(calls, 1)
        assert state_of(breaker) is CircuitState.CLOSED
        with pytest.raises(KeyError):
            await calls.execute("work")
        assert state_of(breaker) is CircuitState.OPEN
        breaker.reset()
        assert state_of(breaker) is CircuitState.CLOSED


def test_several_callers_share_it_and_one_of_them_probes() -> None:
    async def scenario(clock: ManualClock) -> None:
        breaker = CircuitBreaker(failures=1, open_time=5.0)
        well = asyncio.Event()
        script = ScriptedAdapter({"work": [Die(), Reply("well", after=well), Reply("too")]})
        async with Pool(script, size=2) as pool:
            one, other = with_policies(pool, breaker), with_policies(pool, breaker)
            await lose(one, 1)
            await clock.advance(5.0)
            probe = asyncio.create_task(other.execute("work"))
            await script.called("work", 2)
            with pytest.raises(CircuitOpen):
                await one.execute("work")
            well.set()
            assert await probe == "well"
            assert await one.execute("work") == "too"

    on_clock(scenario)


def test_a_retry_waits_until_the_circuit_may_be_closed() -> None:
    async def scenario(clock: ManualClock) -> None:
        breaker = CircuitBreaker(failures=1, open_time=5.0)
        script = ScriptedAdapter({"work": [Die(), Reply("well")]})
        async with Pool(script, size=1) as pool:
            calls = with_policies(pool, RetryPolicy(first_delay=0.001), breaker)
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(4.9)
            assert not call.done()
            await clock.advance(0.2)
            assert call.result() == "well"
        script.assert_done()

    on_clock(scenario)


async def test_streams_are_counted_and_refused_as_calls_are() -> None:
    breaker = CircuitBreaker(failures=2)
    script = ScriptedAdapter(
        {"work": [Stream([1], then=Die()), Stream([1, 2]), *[Stream([], then=Die())] * 2]}
    )
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, breaker)

        async def items() -> list[Any]:
            return [item async for item in calls.execute_stream("work")]

        with pytest.raises(StreamBroken):
            await items()
        async with aclosing(calls.execute_stream("work")) as stream:
            assert await anext(stream) == 1
        for _ in range(2):
            assert state_of(breaker) is CircuitState.CLOSED
            with pytest.raises(StreamBroken):
                await items()
        with pytest.raises(CircuitOpen):
            await items()
    script.assert_done()
