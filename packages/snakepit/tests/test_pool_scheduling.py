"""Priorities, turns of sessions, strict affinity, limits of waiting: with real workers."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from after_check import CheckedPool
from gated_pool import adapter, gated_pool, hold_all, noting
from processes import send_signal, until

from snakepit import HostCall
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    EncodeError,
    Outcome,
    PoolSaturated,
    QueueTimeout,
    SessionWorkerUnavailable,
    WorkerBusy,
    WorkerLost,
)
from snakepit.options import Affinity

STRICT: tuple[Affinity, ...] = ("strict_queue", "strict_fail_fast")


# --- the order -----------------------------------------------------------------------------------


async def test_waiting_calls_start_by_class_and_session_by_session() -> None:
    async with gated_pool() as (pool, gate):
        calls = await hold_all(pool, gate)
        for number in range(3):
            calls.append(noting(pool, f"low{number}", priority="low"))
            calls.append(noting(pool, f"a{number}", session_id="a"))
        calls.append(noting(pool, "b0", session_id="b"))
        calls.append(noting(pool, "plain0"))
        calls.append(noting(pool, "high0", priority="high", session_id="a"))
        await until(lambda: pool.stats().queued == 9, "all wait")
        stats = pool.stats()
        assert (stats.queued_high, stats.queued_low, stats.refused) == (1, 3, 0)
        gate.opened.set()
        await asyncio.gather(*calls)
    assert gate.noted == ["high0", "a0", "b0", "plain0", "a1", "a2", "low0", "low1", "low2"]
    assert pool.stats().queued_low == 0


async def test_42_a_session_with_thousands_of_calls_does_not_starve_another() -> None:
    async with gated_pool(size=2, queue_limit=20_000) as (pool, gate):
        calls = await hold_all(pool, gate, 2)
        crowd = [noting(pool, "crowd", session_id="crowd") for _ in range(3000)]
        await until(lambda: pool.stats().queued == 3000, "the crowd waits")
        late = noting(pool, "late", session_id="late")
        await until(lambda: pool.stats().queued == 3001, "all wait")
        gate.opened.set()
        await late
        assert pool.stats().queued > 2900
        await asyncio.gather(*calls, *crowd)
        stats = pool.stats()
        assert (stats.succeeded, stats.queued, stats.running) == (3003, 0, 0)


async def test_42_ten_thousand_at_once_all_end_with_their_own_result() -> None:
    async with CheckedPool(adapter(), size=2, queue_limit=10_000) as pool:
        sessions = [None, *map(str, range(99))]
        calls = [
            pool.execute("add", {"x": number}, session_id=sessions[number % 100])
            for number in range(10_000)
        ]
        assert await asyncio.gather(*calls) == [number + 11 for number in range(10_000)]
        stats = pool.stats()
        assert (stats.succeeded, stats.queued, stats.running, stats.refused) == (10_000, 0, 0, 0)


async def test_46_a_session_whose_calls_can_not_be_sent_stops_nobody() -> None:
    async with gated_pool() as (pool, gate):
        calls = await hold_all(pool, gate)
        bad = [
            asyncio.create_task(pool.execute("add", {"x": object()}, session_id="bad"))
            for _ in range(50)
        ]
        await until(lambda: pool.stats().queued == 50, "the bad ones are first")
        good = [noting(pool, number, session_id="good") for number in range(3)]
        await until(lambda: pool.stats().queued == 53, "all wait")
        gate.opened.set()
        await asyncio.gather(*calls, *good)
        results = await asyncio.gather(*bad, return_exceptions=True)
    assert gate.noted == [0, 1, 2]
    assert all(isinstance(result, EncodeError) for result in results)


# --- strict affinity -----------------------------------------------------------------------------


async def test_a_strict_call_of_a_session_whose_worker_died_fails_until_that_is_noted() -> None:
    async with CheckedPool(adapter(), size=2) as pool:
        home = await pool.execute("pid", session_id="s", affinity="strict_queue")
        assert await pool.execute("pid", session_id="s", affinity="strict_queue") == home
        (victim,) = [worker for worker in pool.workers() if worker.pid == home]
        send_signal(victim, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "its death is noticed")
        for affinity in STRICT:
            with pytest.raises(SessionWorkerUnavailable, match=victim.worker_id) as caught:
                await pool.execute("pid", session_id="s", affinity=affinity)
            assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, False)
            details = caught.value.details
            assert (details["session_id"], details["worker_id"]) == ("s", victim.worker_id)
        with pytest.raises(SessionWorkerUnavailable):
            await anext(
                pool.execute_stream("count", {"n": 3}, session_id="s", affinity="strict_queue")
            )
        assert pool.stats().refused == 3
        assert pool.release_session("s")
        assert await pool.execute("pid", session_id="s", affinity="strict_queue") != home


async def test_strict_calls_that_wait_fail_when_their_worker_dies_and_others_go_on() -> None:
    async with gated_pool(size=2) as (pool, gate):
        home = await pool.execute("pid", session_id="s")
        (holding,) = await hold_all(pool, gate, session_id="s")
        strict = [noting(pool, "strict", session_id="s", affinity="strict_queue") for _ in range(3)]
        await until(lambda: pool.stats().queued == 3, "they wait for their worker")
        hint = noting(pool, "hint", session_id="s")
        await until(lambda: pool.stats().queued == 4, "and so does what comes after them")
        (victim,) = [worker for worker in pool.workers() if worker.pid == home]
        send_signal(victim, signal.SIGKILL)
        results = await asyncio.gather(*strict, return_exceptions=True)
        assert all(isinstance(result, SessionWorkerUnavailable) for result in results)
        await hint
        with pytest.raises(WorkerLost):
            await holding
        stats = pool.stats()
        assert (stats.failed, stats.succeeded, stats.queued) == (4, 2, 0)
    assert gate.noted == ["hint"]


async def test_a_strict_stream_waits_for_its_sessions_worker() -> None:
    async with gated_pool(size=2) as (pool, gate):
        home = await pool.execute("pid", session_id="s")
        (holding,) = await hold_all(pool, gate, session_id="s")

        async def consume() -> list[int]:
            stream = pool.execute_stream(
                "count", {"n": 100}, session_id="s", affinity="strict_queue"
            )
            async with aclosing(stream):
                return [item async for item in stream]

        stream = asyncio.create_task(consume())
        await until(lambda: pool.stats().queued == 1, "it waits, though a worker is free")
        gate.opened.set()
        assert await stream == list(range(100))
        await holding
        assert await pool.execute("pid", session_id="s", affinity="strict_queue") == home


async def test_strict_fail_fast_is_refused_while_its_worker_is_busy_streams_too() -> None:
    async with gated_pool(size=2, affinity="strict_fail_fast") as (pool, gate):
        home = await pool.execute("pid", session_id="s")
        (holding,) = await hold_all(pool, gate, session_id="s")
        with pytest.raises(WorkerBusy, match="no free slot") as caught:
            await pool.execute("pid", session_id="s")
        assert caught.value.retryable
        with pytest.raises(WorkerBusy):
            await anext(pool.execute_stream("count", {"n": 3}, session_id="s"))
        assert await pool.execute("pid", session_id="t") != home, "another session is free to run"
        assert await pool.execute("pid", session_id="s", affinity="hint") != home
        gate.opened.set()
        await holding
        assert pool.stats().refused == 2


async def test_the_pools_affinity_is_the_default_of_calls_and_sessions() -> None:
    async with gated_pool(size=2, affinity="strict_queue") as (pool, gate):
        session = pool.session()
        home = await session.execute("pid")
        (holding,) = await hold_all(pool, gate, session_id=session.session_id)
        waiting = asyncio.create_task(session.execute("pid"))
        await until(lambda: pool.stats().queued == 1, "it waits for its worker")
        assert await pool.execute("pid") != home, "a call without a session has no worker"
        gate.opened.set()
        assert await waiting == home
        await holding


async def test_a_nested_call_runs_on_the_leaving_worker_that_keeps_its_session() -> None:
    async def nested(call: HostCall) -> Any:
        (worker,) = [each for each in pool.workers() if each.worker_id == call.worker_id]
        pool._workforce.retire(worker.worker_id, "the test")
        return await pool.execute("pid", session_id=call.session_id, affinity="strict_queue")

    async with CheckedPool(adapter(), size=1, host_functions={"nested": nested}) as pool:
        home = await pool.execute("pid", session_id="s")
        args = {"name": "nested", "args": {}}
        assert await pool.execute("call_host", args, session_id="s") == home


async def test_45_a_nested_call_does_not_wait_behind_what_waits_for_its_own_worker() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def nested(call: HostCall) -> Any:
        entered.set()
        await go_on.wait()
        return await pool.execute("add", {"x": 1}, session_id="b")

    async with CheckedPool(adapter(), size=2, host_functions={"nested": nested}) as pool:
        home = await pool.execute("pid", session_id="b")
        assert await pool.execute("pid") != home
        assert await pool.execute("pid", session_id="a") == home
        args = {"name": "nested", "args": {}}
        outer = asyncio.create_task(pool.execute("call_host", args, session_id="a"))
        await entered.wait()
        waiting = asyncio.create_task(
            pool.execute("add", {"x": 2}, session_id="b", affinity="strict_queue")
        )
        await until(lambda: pool.stats().queued == 1, "it waits for the outer call's end")
        go_on.set()
        assert await asyncio.wait_for(outer, 20) == 12
        assert await waiting == 13


# --- limits of waiting ---------------------------------------------------------------------------


async def test_40_a_full_queue_refuses_and_what_timed_out_in_it_never_runs() -> None:
    async with gated_pool(queue_limit=5, queue_timeout=0.1) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        calls = [noting(pool, number) for number in range(10)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        late = [result for result in results if isinstance(result, QueueTimeout)]
        assert len(late) == 5
        assert sum(isinstance(result, PoolSaturated) for result in results) == 5
        for error in late:
            assert error.details["limit"] == "queue"
            assert error.details["timeout_s"] == pytest.approx(0.1)
            assert error.queued_s is not None
            assert error.queued_s >= 0.1
            assert (error.outcome, error.retryable) == (Outcome.NONE, True)
        gate.opened.set()
        await holding
        await noting(pool, "after")
        stats = pool.stats()
        assert (stats.timed_out, stats.queue_timeouts, stats.refused) == (5, 5, 5)
        assert (stats.succeeded, stats.queued, stats.submitted) == (2, 0, 7)
    assert gate.noted == ["after"]


async def test_the_limit_of_waiting_is_for_the_queue_alone_and_a_call_may_set_its_own() -> None:
    async with gated_pool(queue_timeout=0.05, look_ahead=0) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        patient = noting(pool, "patient", queue_timeout=None)
        in_all = noting(pool, "in all", queue_timeout=timedelta(minutes=1), timeout=0.05)
        with pytest.raises(QueueTimeout):
            await noting(pool, "hasty")
        with pytest.raises(CallTimeout) as caught:
            await in_all
        assert caught.value.limit == "total"
        assert (caught.value.outcome, caught.value.ran_s) == (Outcome.NONE, 0.0)
        gate.opened.set()
        await asyncio.gather(holding, patient)
    assert gate.noted == ["patient"]


async def test_the_limit_of_running_does_not_count_the_waiting() -> None:
    async with gated_pool(cancel_grace=0.1, look_ahead=0) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        patient = noting(pool, "patient", run_timeout=1.0)
        late = asyncio.create_task(pool.execute("spin", run_timeout=timedelta(seconds=0.2)))
        await until(lambda: pool.stats().queued == 2, "they wait")
        asyncio.get_running_loop().call_later(1.1, gate.opened.set)
        await asyncio.gather(holding, patient)
        with pytest.raises(CallTimeout, match=r"run limit of 0\.2 s") as caught:
            await late
        error = caught.value
        assert (error.limit, error.outcome) == ("run", Outcome.UNKNOWN)
        assert error.queued_s is not None
        assert error.queued_s >= 1.0
        assert error.ran_s is not None
        assert error.ran_s > 0.19
        with pytest.raises(ConfigurationError, match="run_timeout is 0"):
            await pool.execute("spin", run_timeout=0)


async def test_50_the_total_limit_counts_waiting_and_the_error_tells_where_the_time_went() -> None:
    async with gated_pool(cancel_grace=0.1) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        late = asyncio.create_task(pool.execute("spin", timeout=1.0))
        await until(lambda: pool.stats().queued == 1, "it waits")
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, gate.opened.set)
        with pytest.raises(CallTimeout) as caught:
            await late
        await holding
    error = caught.value
    assert error.queued_s is not None
    assert error.ran_s is not None
    assert error.queued_s >= 0.15
    assert error.ran_s > 0
    assert error.queued_s + error.ran_s > 0.99
    assert (error.limit, error.outcome) == ("total", Outcome.UNKNOWN)


async def test_the_time_left_is_visible_in_the_worker_and_bounds_nested_calls() -> None:
    left: list[float | None] = []

    async def nested(call: HostCall) -> Any:
        left.append(call.remaining())
        return await pool.execute("remaining", session_id=call.session_id, timeout=None)

    async with CheckedPool(adapter(), size=1, host_functions={"nested": nested}) as pool:
        args = {"name": "nested", "args": {}}
        inner = await pool.execute("call_host", args, timeout=20.0)
        assert left[0] is not None
        assert inner <= left[0] <= 20.0
        assert await pool.execute("remaining") is None


@pytest.mark.parametrize("end", ["cancel", "time out"])
async def test_41_calls_that_end_in_the_queue_leave_nothing(end: str) -> None:
    async with gated_pool(queue_limit=2000) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        for _ in range(5):
            timeout = 0.001 if end == "time out" else None
            calls = [
                noting(pool, "never", session_id=str(number), queue_timeout=timeout)
                for number in range(2000)
            ]
            if end == "cancel":
                await until(lambda: pool.stats().queued == 2000, "all wait, none is refused")
                for call in calls:
                    call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            wanted = QueueTimeout if end == "time out" else asyncio.CancelledError
            assert all(isinstance(result, wanted) for result in results)
        assert pool.stats().queued == 0
        assert pool._scheduler.queue.sessions() == set()
        gate.opened.set()
        await holding
        await noting(pool, "life")
    assert gate.noted == ["life"]
