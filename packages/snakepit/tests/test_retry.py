"""Retries around a pool: what is repeated, when, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from snakepit import Pool, RetryPolicy, Session, with_policies
from snakepit.errors import CallTimeout, Outcome, PoolSaturated, StreamBroken, WorkerLost
from snakepit.policies import Policy, PolicyCall
from snakepit.policies.budget import RESERVE
from snakepit.policies.stack import Proceed
from snakepit.testing import Die, Fail, ManualClock, Reply, ScriptedAdapter, Stream

FULL = Fail(PoolSaturated("full"))


def quick(**options: Any) -> RetryPolicy:
    """Its pauses are over before anything else happens."""
    return RetryPolicy(**{"first_delay": 1e-6, "longest_delay": 1e-6, **options})


async def test_a_call_that_did_not_start_is_made_again() -> None:
    script = ScriptedAdapter({"work": [FULL, FULL, Reply("done")]})
    async with Pool(script, size=1) as pool:
        assert await with_policies(pool, quick()).execute("work", {"x": 1}) == "done"
    script.assert_done()
    assert [dict(call.args) for call in script.calls] == [{"x": 1}] * 3


async def test_the_last_error_is_raised_and_says_how_many_attempts_there_were() -> None:
    script = ScriptedAdapter({"work": [FULL] * 4})
    async with Pool(script, size=1) as pool:
        with pytest.raises(PoolSaturated) as caught:
            await with_policies(pool, quick(attempts=4)).execute("work")
    script.assert_done()
    assert caught.value.details["attempts"] == 4


async def test_a_call_that_may_have_run_is_made_again_only_if_it_is_idempotent() -> None:
    script = ScriptedAdapter({"work": [Die(), Die(), Reply("done")]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, quick())
        with pytest.raises(WorkerLost) as caught:
            await calls.execute("work")
        assert (caught.value.outcome, caught.value.details["attempts"]) == (Outcome.UNKNOWN, 1)
        assert await calls.execute("work", idempotent=True) == "done"
    script.assert_done()


async def test_what_the_command_raises_is_not_repeated() -> None:
    script = ScriptedAdapter({"work": [Fail(ValueError("no"))]})
    async with Pool(script, size=1) as pool:
        with pytest.raises(ValueError, match="no"):
            await with_policies(pool, quick()).execute("work", idempotent=True)
    script.assert_done()


async def test_a_session_can_be_the_target_and_options_reach_it() -> None:
    script = ScriptedAdapter({"work": [FULL, Reply("done")]})
    async with Pool(script, size=1, timeout=50.0) as pool, pool.session("ada") as session:
        assert isinstance(session, Session)
        calls = with_policies(session, quick())
        assert calls.default_timeout == 50.0
        assert await calls.execute("work", priority="high", affinity="strict_queue") == "done"
    assert [call.session_id for call in script.calls] == ["ada", "ada"]


async def test_anything_with_such_an_execute_can_be_the_target() -> None:
    class Target:
        def __init__(self) -> None:
            self.seen: list[Mapping[str, Any]] = []

        async def execute(self, command: str, args: Any = None, **options: Any) -> str:
            self.seen.append(options)
            if len(self.seen) == 1:
                raise PoolSaturated("full")
            return command

        def execute_stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
            raise AssertionError("no stream is asked for")

    target = Target()
    assert await with_policies(target, quick()).execute("work", label="x") == "work"
    assert target.seen == [{"label": "x", "timeout": None, "idempotent": False}] * 2


async def test_further_attempts_are_a_part_of_the_calls() -> None:
    attempts = 0

    def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise PoolSaturated("full")

    policy = quick(budget=0.25)
    async with Pool(ScriptedAdapter({"work": fail}), size=1) as pool:
        calls = with_policies(pool, policy)
        for _ in range(40):
            with pytest.raises(PoolSaturated):
                await calls.execute("work")
    assert 40 + RESERVE < attempts <= 40 + RESERVE + 0.25 * 40


# --- time ----------------------------------------------------------------------------------------

Scenario = Callable[[ManualClock], Any]


def on_clock(scenario: Scenario) -> None:
    clock = ManualClock()
    clock.run(scenario(clock))


def test_pauses_are_within_limits_that_double() -> None:
    async def scenario(clock: ManualClock) -> None:
        at: list[float] = []

        def fail() -> None:
            at.append(clock.time())
            raise PoolSaturated("full")

        policy = RetryPolicy(attempts=6, first_delay=1.0, longest_delay=5.0)
        async with Pool(ScriptedAdapter({"work": fail}), size=1) as pool:
            call = asyncio.create_task(with_policies(pool, policy).execute("work"))
            await clock.advance(1 + 2 + 4 + 5 + 5)
            assert isinstance(call.exception(), PoolSaturated)
        pauses = [later - earlier for earlier, later in pairwise(at)]
        assert len(pauses) == 5
        assert all(
            0 <= pause <= limit for pause, limit in zip(pauses, [1, 2, 4, 5, 5], strict=True)
        )
        assert len(set(pauses)) > 1

    on_clock(scenario)


def test_50_attempts_and_pauses_share_one_budget() -> None:
    async def scenario(clock: ManualClock) -> None:
        policy = RetryPolicy(attempts=100, first_delay=3.0, longest_delay=3.0, budget=100)

        def fail() -> None:
            raise PoolSaturated("full")

        script = ScriptedAdapter({"work": fail})
        async with Pool(script, size=1) as pool:
            start = clock.time()
            call = asyncio.create_task(with_policies(pool, policy).execute("work", timeout=10.0))
            await clock.advance(10.0)
            error = call.exception()
        assert isinstance(error, PoolSaturated)
        assert error.details["attempts"] == len(script.calls) > 1
        left = [call.timeout for call in script.calls]
        assert left[0] == 10.0
        assert left == sorted(left, key=lambda each: each or 0.0, reverse=True)
        assert len(set(left)) > 1
        assert clock.time() == start + 10.0

    on_clock(scenario)


def test_50_the_default_of_the_pool_is_the_budget_of_all_attempts() -> None:
    async def scenario(clock: ManualClock) -> None:
        steps = [Reply(after=asyncio.Event()), Reply("at last")]
        script = ScriptedAdapter({"work": steps})
        async with Pool(script, size=1, timeout=10.0) as pool:
            calls = with_policies(pool, RetryPolicy())
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(10.0)
            error = call.exception()
            assert isinstance(error, CallTimeout)
            assert error.details["attempts"] == 1
            assert await calls.execute("work", timeout=None) == "at last"
        assert [call.timeout for call in script.calls] == [10.0, None]

    on_clock(scenario)


def test_an_attempt_that_hangs_is_given_up_for_another_one() -> None:
    async def scenario(clock: ManualClock) -> None:
        never = asyncio.Event()
        script = ScriptedAdapter({"work": [Reply(after=never), Reply("done")]})
        policy = RetryPolicy(attempt_timeout=2.0, first_delay=0.5)
        async with Pool(script, size=2) as pool:
            calls = with_policies(pool, policy)
            call = asyncio.create_task(calls.execute("work", timeout=60.0, idempotent=True))
            await clock.advance(2.5)
            assert call.result() == "done"
        assert [call.timeout for call in script.calls] == [2.0, 2.0]

    on_clock(scenario)


def test_a_pause_that_leaves_no_time_is_not_begun() -> None:
    async def scenario(clock: ManualClock) -> None:
        patient = Fail(PoolSaturated("full", details={"retry_after_s": 30.0}))
        script = ScriptedAdapter({"work": [patient, patient, Reply("done")]})
        async with Pool(script, size=1) as pool:
            calls = with_policies(pool, RetryPolicy())
            with pytest.raises(PoolSaturated):
                await calls.execute("work", timeout=30.0)
            call = asyncio.create_task(calls.execute("work", timeout=31.0))
            await clock.advance(29.9)
            assert not call.done()
            await clock.advance(0.3)
            assert call.result() == "done"

    on_clock(scenario)


def test_a_call_that_is_cancelled_in_a_pause_ends_at_once() -> None:
    async def scenario(clock: ManualClock) -> None:
        patient = Fail(PoolSaturated("full", details={"retry_after_s": 1000.0}))
        script = ScriptedAdapter({"work": [patient]})
        async with Pool(script, size=1) as pool:
            call = asyncio.create_task(with_policies(pool, RetryPolicy()).execute("work"))
            await script.called("work")
            await clock.advance(1.0)
            start = clock.time()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert clock.time() == start
        script.assert_done()

    on_clock(scenario)


def test_an_attempt_has_no_time_that_a_pause_has_overdrawn() -> None:
    async def scenario(clock: ManualClock) -> None:
        over = asyncio.Event()

        class Slow(Policy):
            async def execute(self, call: PolicyCall, proceed: Proceed) -> Any:
                await over.wait()
                return await proceed(call)

        script = ScriptedAdapter({"work": [Reply()]})
        async with Pool(script, size=1) as pool:
            call = asyncio.create_task(with_policies(pool, Slow()).execute("work", timeout=5.0))
            await clock.advance(5.0)
            over.set()
            with pytest.raises(CallTimeout) as caught:
                await call
            assert caught.value.outcome is Outcome.NONE
        assert script.calls == []

    on_clock(scenario)


# --- streams -------------------------------------------------------------------------------------


async def test_a_stream_is_begun_again_while_nothing_of_it_has_arrived() -> None:
    script = ScriptedAdapter({"work": [FULL, Stream([1, 2])]})
    async with Pool(script, size=1) as pool:
        stream = with_policies(pool, quick()).execute_stream("work", {"x": 1})
        assert [item async for item in stream] == [1, 2]
    script.assert_done()


async def test_a_stream_of_which_something_has_arrived_is_not_begun_again() -> None:
    script = ScriptedAdapter({"work": [Stream([1, 2], then=Die())]})
    async with Pool(script, size=1) as pool:
        stream = with_policies(pool, quick()).execute_stream("work", idempotent=True)
        assert [await anext(stream), await anext(stream)] == [1, 2]
        with pytest.raises(StreamBroken) as caught:
            await anext(stream)
    assert caught.value.details["delivered"] == 2
    script.assert_done()


async def test_leaving_a_stream_early_stops_its_producer() -> None:
    closed = asyncio.Event()

    async def count() -> AsyncIterator[int]:
        try:
            for number in range(10**9):
                yield number
        finally:
            closed.set()

    async with Pool(ScriptedAdapter({"count": count}), size=1) as pool:
        async with aclosing(with_policies(pool, quick()).execute_stream("count")) as stream:
            assert await anext(stream) == 0
        await closed.wait()
