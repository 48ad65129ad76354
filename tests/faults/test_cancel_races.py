"""Part F: the moment of the answer, of the deadline and of the cancellation fall together."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fault_pool import faulty_pool, outcomes_of, pids_of, settled

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import CallTimeout, ConfigurationError, HostCallCancelled, Outcome, WorkerLost

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


@asynccontextmanager
async def busy_pool(**functions: Any) -> AsyncIterator[tuple[Pool, asyncio.Event]]:
    """A pool whose one worker is busy until the event is set, with these functions of the host."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> str:
        entered.set()
        await go_on.wait()
        return "held"

    async with faulty_pool(size=1, host_functions={"hold": hold, **functions}) as pool:
        busy = asyncio.create_task(pool.execute("call_host", {"name": "hold"}))
        await entered.wait()
        try:
            yield pool, go_on
        finally:
            go_on.set()
        assert await busy == "held"


@pytest.mark.parametrize("command", ["echo", "aecho"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_47_a_deadline_at_the_moment_of_the_answer(command: str, concurrency: int) -> None:
    """A call ends as one of the two; its slot comes back, and the worker is none the worse."""
    async with faulty_pool(concurrency=concurrency, cancel_grace=5.0) as pool:
        dice = random.Random(47)
        ends: Counter[str] = Counter()
        # What a call takes changes with the machine's load, so the limit goes after the outcomes.
        limit = await _typical_seconds(pool, command)
        for number in _enough(ends, "late", "in time"):
            try:
                result = await pool.execute(
                    command, {"value": number}, timeout=limit * dice.uniform(0.5, 1.5)
                )
            except CallTimeout:
                ends["late"] += 1
                limit *= 1.1
            else:
                assert result == number
                ends["in time"] += 1
                limit *= 0.9


def _enough(ends: Counter[str], *expected: str) -> Iterator[int]:
    """Numbers, at least 500, until each of the expected ends was counted 50 times."""
    for number in itertools.count():
        assert ends.total() == number
        if number >= 500 and all(ends[end] >= 50 for end in expected):
            return
        assert number < 10_000, ends
        yield number


async def _typical_seconds(pool: Pool, command: str) -> float:
    """The median time of a call."""
    times = []
    for number in range(51):
        start = time.monotonic()
        await pool.execute(command, {"value": number})
        times.append(time.monotonic() - start)
    return sorted(times)[25]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_47_a_cancellation_at_the_moment_of_the_answer(concurrency: int) -> None:
    async with faulty_pool(concurrency=concurrency, cancel_grace=5.0) as pool:
        typical = await _typical_seconds(pool, "echo")
        dice = random.Random(48)
        loop = asyncio.get_running_loop()
        ends: Counter[str] = Counter()
        for number in _enough(ends, "cancelled", "answered"):
            call = asyncio.create_task(pool.execute("echo", {"value": number}))
            loop.call_later(typical * dice.uniform(0.0, 3.0), call.cancel)
            loop.call_later(typical * dice.uniform(0.0, 3.0), call.cancel)
            await asyncio.wait([call])
            if call.cancelled():
                ends["cancelled"] += 1
                typical *= 1.1
            else:
                assert call.result() == number
                ends["answered"] += 1
                typical *= 0.9
        # Twice, after the end, and by two tasks.
        done = asyncio.create_task(pool.execute("echo", {"value": 1}))
        await done
        assert not done.cancel()


async def test_49_a_caller_that_vanishes_gives_its_slot_back() -> None:
    async with faulty_pool(size=1, concurrency=4, cancel_grace=5.0) as pool:
        before = pids_of(pool)
        for _ in range(20):
            call = asyncio.create_task(pool.execute("async_for_ever"))
            await settled(lambda: pool.stats().running == 1, "it runs")
            call.cancel()
            del call
            gc.collect()
            await settled(lambda: pool.stats().stopping + pool.stats().running == 0, "it ended")
        assert pids_of(pool) == before


async def test_49_a_stream_that_is_dropped_gives_its_slot_back() -> None:
    async with faulty_pool(size=1, cancel_grace=5.0) as pool:
        before = pids_of(pool)
        for _ in range(20):
            stream = pool.execute_stream("count", {"n": 10**9})
            assert await anext(stream) == 0
            del stream
            gc.collect()
            await settled(lambda: pool.stats().stopping + pool.stats().running == 0, "it ended")
        never = pool.execute_stream("count", {"n": 10**9})
        assert pool.stats().running == 0
        await never.aclose()
        assert pids_of(pool) == before


async def test_50_one_budget_for_queue_worker_and_host_function() -> None:
    seen: dict[str, float] = {}

    async def slow(call: HostCall) -> None:
        seen["host"] = float(call.remaining() or 0)
        try:
            await asyncio.Event().wait()
        finally:
            seen["stopped"] = time.monotonic()

    async with busy_pool(slow=slow) as (pool, go_on):
        late = asyncio.create_task(pool.execute("call_host", {"name": "slow"}, timeout=2.0))
        await settled(lambda: any(call.queued_s > 0.05 for call in pool.calls()), "it waits")
        go_on.set()
        with pytest.raises(CallTimeout) as caught:
            await late
        queued, ran = float(caught.value.queued_s or 0), float(caught.value.ran_s or 0)
        assert queued > 0.05
        assert queued + ran > 1.99
        # What is left when the host function begins: not what was spent in the queue.
        assert 0.0 < seen["host"] <= 2.0 - queued
        await settled(lambda: "stopped" in seen, "the host function is stopped")


async def test_50_a_call_whose_time_is_over_is_not_sent() -> None:
    async with busy_pool() as (pool, go_on):
        calls = [
            asyncio.create_task(pool.execute("note", {"number": i}, timeout=1e-6))
            for i in range(50)
        ]
        for error in await outcomes_of(*calls):
            assert isinstance(error, CallTimeout)
            assert error.outcome is Outcome.NONE
        go_on.set()
        assert await pool.execute("noted") == []


SILLY: tuple[Any, ...] = (
    0,
    -1,
    0.0,
    -0.5,
    float("nan"),
    float("inf"),
    "5",
    True,
    2**2000,
    [],
    timedelta(0),
)


async def test_51_silly_timeouts_are_refused_before_anything_is_queued() -> None:
    async with faulty_pool() as pool:
        submitted = pool.stats().submitted
        for value in SILLY:
            with pytest.raises(ConfigurationError):
                await pool.execute("add", {"x": 1}, timeout=value)
            with pytest.raises(ConfigurationError):
                await anext(pool.execute_stream("count", {"n": 1}, timeout=value))
        assert pool.stats().submitted == submitted


@pytest.mark.parametrize("option", ["timeout", "cancel_grace", "start_timeout"])
def test_51_silly_options_are_refused_when_the_pool_is_made(option: str) -> None:
    for value in SILLY:
        with pytest.raises(ConfigurationError, match=option):
            Pool(PythonAdapter("fault_worker:Victim"), **{option: value})


async def test_51_any_positive_number_of_seconds_is_a_timeout() -> None:
    values: list[Any] = [1e308, 1, 0.5, timedelta(days=365), None, 10**9]
    async with faulty_pool() as pool:
        for value in values:
            assert await pool.execute("add", {"x": 1}, timeout=value) == 2


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_53_a_jump_of_the_clock_ends_no_call(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with busy_pool() as (pool, go_on):
        waiting = asyncio.create_task(pool.execute("add", {"x": 1}, timeout=10))
        await settled(lambda: pool.stats().queued == 1, "it waits")
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        go_on.set()
        assert await waiting == 2
        with pytest.raises(CallTimeout):
            await pool.execute("burn", {"seconds": 5.0}, timeout=0.2)


async def test_54_a_pending_call_survives_a_collection_when_only_the_pool_knows_it() -> None:
    async with busy_pool() as (pool, go_on):
        results: list[int] = []

        async def call() -> None:
            results.append(await pool.execute("add", {"x": 1}))

        task = asyncio.create_task(call())
        gone = weakref.ref(task)
        await settled(lambda: pool.stats().queued == 1, "it waits")
        del task
        for _ in range(3):
            gc.collect()
        go_on.set()
        await settled(lambda: results == [2], "it is answered")
        gc.collect()
        await settled(lambda: gone() is None, "nobody holds it any more")


async def test_54_waiters_that_are_cancelled_block_nobody_behind_them() -> None:
    async with faulty_pool(size=1) as pool:
        dice = random.Random(54)
        for _ in range(20):
            calls = [asyncio.create_task(pool.execute("echo", {"value": i})) for i in range(50)]
            await asyncio.sleep(0)
            # One that has its answer already can't be cancelled any more.
            doomed = {number for number in dice.sample(range(50), 25) if calls[number].cancel()}
            outcomes = await outcomes_of(*calls)
            for number, outcome in enumerate(outcomes):
                cancelled = isinstance(outcome, asyncio.CancelledError)
                assert cancelled == (number in doomed)
                assert cancelled or outcome == number


@pytest.mark.parametrize("idempotent", [False, True])
async def test_56_nothing_that_may_have_run_is_run_again(idempotent: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with faulty_pool(size=1) as pool:
        args = {"path": str(log), "die": True}
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("append_line", args, idempotent=idempotent, timeout=10)
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.UNKNOWN, idempotent)
        assert log.read_text() == "ran\n"


async def test_56_what_never_reached_a_worker_says_so() -> None:
    async with busy_pool() as (pool, _):
        with pytest.raises(CallTimeout) as caught:
            await pool.execute("add", {"x": 1}, timeout=0.01)
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, True)


async def test_56_an_inner_call_that_is_cut_off_is_never_repeated_either() -> None:
    calls: list[str] = []

    async def once(call: HostCall) -> None:
        calls.append(call.command)
        await pool.execute("die", {"how": "kill"})

    async with faulty_pool(size=1, host_functions={"once": once}) as pool:
        with pytest.raises((WorkerLost, HostCallCancelled)):
            await pool.execute("call_host", {"name": "once"}, idempotent=True, timeout=10)
        assert calls == ["once"]


async def test_70_leaving_a_stream_in_every_way_frees_its_slot() -> None:
    async with faulty_pool(size=1, cancel_grace=5.0) as pool:
        before = pids_of(pool)
        for how in ("break", "raise", "cancel"):
            for last in range(5):
                await _leave(pool, how, last)
                await settled(lambda: pool.stats().stopping == 0, "it has stopped")
        assert pids_of(pool) == before


async def _leave(pool: Pool, how: str, last: int) -> None:
    async def consume() -> None:
        async with aclosing(pool.execute_stream("count", {"n": 10**9})) as stream:
            async for item in stream:
                if item < last:
                    continue
                if how == "cancel":
                    task.cancel()
                    await asyncio.sleep(0)
                if how == "raise":
                    raise KeyError(item)
                break

    task = asyncio.create_task(consume())
    (outcome,) = await outcomes_of(task)
    kinds = {"break": type(None), "raise": KeyError, "cancel": asyncio.CancelledError}
    assert isinstance(outcome, kinds[how])
