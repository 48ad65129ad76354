"""Hedged calls: when a second one is made, which answer counts, and what becomes of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from snakepit import HedgePolicy, Pool, with_policies
from snakepit.errors import CallTimeout, WorkerLost
from snakepit.policies.budget import RESERVE
from snakepit.policies.durations import ENOUGH
from snakepit.testing import Die, Fail, ManualClock, Reply, ScriptedAdapter


def on_clock(scenario: Callable[[ManualClock], Any]) -> None:
    clock = ManualClock()
    clock.run(scenario(clock))


class Answers:
    """A command whose calls end when the test says so."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []
        self.stopped: list[int] = []

    async def work(self) -> Any:
        number = len(self.calls)
        self.calls.append(asyncio.get_running_loop().create_future())
        try:
            return await self.calls[number]
        except asyncio.CancelledError:
            self.stopped.append(number)
            raise


def test_a_second_call_is_made_after_a_while_and_the_first_answer_counts() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=2.0))
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(1.9)
            assert len(answers.calls) == 1
            await clock.advance(0.2)
            assert len(answers.calls) == 2
            answers.calls[1].set_result("second")
            assert await call == "second"
            assert answers.stopped == [0]
            stats = pool.stats()
            assert (stats.succeeded, stats.cancelled, stats.running) == (1, 1, 0)

    on_clock(scenario)


def test_the_first_call_may_win_and_the_second_is_stopped() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=2.0))
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(3.0)
            answers.calls[0].set_result("first")
            assert await call == "first"
            assert answers.stopped == [1]

    on_clock(scenario)


@pytest.mark.parametrize("options", [{}, {"idempotent": True, "session_id": "ada"}])
def test_only_idempotent_calls_without_a_session_are_hedged(options: dict[str, Any]) -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=2.0))
            call = asyncio.create_task(calls.execute("work", **options))
            await clock.advance(100.0)
            assert len(answers.calls) == 1
            answers.calls[0].set_result("only")
            assert await call == "only"

    on_clock(scenario)


def test_calls_of_a_session_that_the_policies_are_around_are_not_hedged() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        adapter = ScriptedAdapter({"work": answers.work})
        async with Pool(adapter, size=2) as pool, pool.session() as session:
            calls = with_policies(with_policies(session), HedgePolicy(after=2.0))
            assert calls.session_id == session.session_id
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(100.0)
            assert len(answers.calls) == 1
            answers.calls[0].set_result("only")
            assert await call == "only"

    on_clock(scenario)


def test_an_error_of_the_command_is_an_answer_and_a_lost_worker_is_none() -> None:
    async def scenario(clock: ManualClock) -> None:
        now, later = asyncio.Event(), asyncio.Event()
        script = ScriptedAdapter(
            {
                "raises": [Reply("late", after=later), Fail(ValueError("no"), after=now)],
                "dies": [Reply("late", after=later), Die(after=now)],
            }
        )
        async with Pool(script, size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=1.0))
            raises = asyncio.create_task(calls.execute("raises", idempotent=True))
            await clock.advance(1.0)
            now.set()
            with pytest.raises(ValueError, match="no"):
                await raises
            now.clear()
            dies = asyncio.create_task(calls.execute("dies", idempotent=True))
            await clock.advance(1.0)
            now.set()
            await script.called("dies", 2)
            await clock.advance(1.0)
            assert not dies.done()
            later.set()
            assert await dies == "late"

    on_clock(scenario)


def test_when_both_fail_the_first_error_is_raised() -> None:
    async def scenario(clock: ManualClock) -> None:
        one, other = asyncio.Event(), asyncio.Event()
        script = ScriptedAdapter(
            {"work": [Die(signal="SIGSEGV", after=other), Die(signal="SIGKILL", after=one)]}
        )
        async with Pool(script, size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=1.0))
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(1.0)
            one.set()
            await clock.advance(1.0)
            other.set()
            with pytest.raises(WorkerLost) as caught:
                await call
        assert caught.value.signal == "SIGKILL"

    on_clock(scenario)


def test_both_calls_are_stopped_at_the_deadline_and_when_the_caller_is_cancelled() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=1.0))
            late = asyncio.create_task(calls.execute("work", idempotent=True, timeout=5.0))
            await clock.advance(5.0)
            assert isinstance(late.exception(), CallTimeout)
            assert sorted(answers.stopped) == [0, 1]
            unwanted = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(2.0)
            unwanted.cancel()
            await asyncio.wait([unwanted])
            assert unwanted.cancelled()
            await clock.advance(0.0)
            assert sorted(answers.stopped) == [0, 1, 2, 3]
            assert pool.stats().running == pool.stats().stopping == 0

    on_clock(scenario)


def test_the_delay_follows_what_the_calls_of_late_took() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy())
            for number in range(ENOUGH):
                call = asyncio.create_task(calls.execute("work", idempotent=True))
                await clock.advance(1.0 if number % 10 else 3.0)
                assert len(answers.calls) == number + 1
                answers.calls[-1].set_result(None)
                await call
            call = asyncio.create_task(calls.execute("work", idempotent=True))
            await clock.advance(2.9)
            assert len(answers.calls) == ENOUGH + 1
            await clock.advance(0.2)
            assert len(answers.calls) == ENOUGH + 2
            answers.calls[-1].set_result("second")
            assert await call == "second"

    on_clock(scenario)


def test_second_calls_are_a_part_of_the_calls() -> None:
    async def scenario(clock: ManualClock) -> None:
        answers = Answers()
        async with Pool(ScriptedAdapter({"work": answers.work}), size=2) as pool:
            calls = with_policies(pool, HedgePolicy(after=1.0, budget=0.25))
            count = 40
            for _ in range(count):
                first = len(answers.calls)
                call = asyncio.create_task(calls.execute("work", idempotent=True))
                await clock.advance(2.0)
                answers.calls[first].set_result(None)
                await call
        assert count + RESERVE < len(answers.calls) <= count + RESERVE + 0.25 * count

    on_clock(scenario)
