"""Priorities, turns of sessions, strict affinity, limits of waiting: with real workers."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from processes import send_signal, until

import snakepit
from snakepit import CallOptions, Explanation, HostCall, Pool, PythonAdapter, WorkerSpec
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    EncodeError,
    Outcome,
    PoolBroken,
    PoolClosed,
    PoolNotReady,
    PoolSaturated,
    QueueTimeout,
    SessionWorkerUnavailable,
    WorkerBusy,
    WorkerLost,
)
from snakepit.options import Affinity

STRICT: tuple[Affinity, ...] = ("strict_queue", "strict_fail_fast")


def adapter() -> PythonAdapter:
    """``add`` of this one's workers returns 11 more than it gets."""
    return PythonAdapter("pool_worker:Worker", config={"base": 10})


class Gate:
    """Workers call the host functions ``hold``, which lasts until the gate opens, and ``note``."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.held = 0
        self.noted: list[Any] = []

    async def hold(self, call: HostCall) -> None:
        self.held += 1
        await self.opened.wait()

    def note(self, call: HostCall, what: Any) -> None:
        self.noted.append(what)

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        return {"hold": self.hold, "note": self.note}


@asynccontextmanager
async def gated_pool(**options: Any) -> AsyncIterator[tuple[Pool, Gate]]:
    """A pool of one worker, and the gate; it is opened at the end."""
    gate = Gate()
    options = {"size": 1, "start_timeout": 20.0} | options
    async with Pool(adapter(), host_functions=gate.functions, **options) as pool:
        try:
            yield pool, gate
        finally:
            gate.opened.set()


async def hold_all(pool: Pool, gate: Gate, count: int = 1, **options: Any) -> list[Any]:
    """Have calls hold that many slots."""
    held = gate.held + count
    args = {"name": "hold", "args": {}}
    calls = [asyncio.create_task(pool.execute("call_host", args, **options)) for _ in range(count)]
    await until(lambda: gate.held == held, "all are held")
    return calls


def noting(pool: Pool, what: Any, **options: Any) -> asyncio.Task[Any]:
    args = {"name": "note", "args": {"what": what}}
    return asyncio.create_task(pool.execute("call_host", args, **options))


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
    async with Pool(adapter(), size=2, queue_limit=10_000) as pool:
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
    async with Pool(adapter(), size=2) as pool:
        home = await pool.execute("pid", session_id="s", affinity="strict_queue")
        assert await pool.execute("pid", session_id="s", affinity="strict_queue") == home
        (victim,) = [worker for worker in pool.workers() if worker.pid == home]
        send_signal(victim, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "its death is noticed")
        for affinity in STRICT:
            with pytest.raises(SessionWorkerUnavailable, match=victim.worker_id) as caught:
                await pool.execute("pid", session_id="s", affinity=affinity)
            assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, False)
            assert caught.value.details == {"session_id": "s", "worker_id": victim.worker_id}
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

    async with Pool(adapter(), size=1, host_functions={"nested": nested}) as pool:
        home = await pool.execute("pid", session_id="s")
        args = {"name": "nested", "args": {}}
        assert await pool.execute("call_host", args, session_id="s") == home


async def test_45_a_nested_call_does_not_wait_behind_what_waits_for_its_own_worker() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def nested(call: HostCall) -> Any:
        entered.set()
        await go_on.wait()
        return await pool.execute("add", {"x": 1}, session_id="b")

    async with Pool(adapter(), size=2, host_functions={"nested": nested}) as pool:
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


async def test_50_the_total_limit_counts_waiting_and_the_error_tells_where_the_time_went() -> None:
    async with gated_pool(cancel_grace=0.1) as (pool, gate):
        (holding,) = await hold_all(pool, gate)
        late = asyncio.create_task(pool.execute("spin", timeout=0.6))
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
    assert error.queued_s + error.ran_s == pytest.approx(0.6, abs=0.3)
    assert (error.limit, error.outcome) == ("total", Outcome.UNKNOWN)


async def test_the_time_left_is_visible_in_the_worker_and_bounds_nested_calls() -> None:
    left: list[float | None] = []

    async def nested(call: HostCall) -> Any:
        left.append(call.remaining())
        return await pool.execute("remaining", session_id=call.session_id, timeout=None)

    async with Pool(adapter(), size=1, host_functions={"nested": nested}) as pool:
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


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("affinity", "strict"), ("queue_timeout", 0), ("session_limit", 0), ("affinity", None)],
)
def test_a_pool_refuses_impossible_options(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Pool(adapter(), **{option: value})


@pytest.mark.parametrize(
    ("option", "value"), [("affinity", "strict"), ("queue_timeout", -1), ("priority", 5)]
)
async def test_a_call_refuses_impossible_options(option: str, value: Any) -> None:
    async with Pool(adapter(), size=1) as pool:
        with pytest.raises(ConfigurationError, match=option):
            await pool.execute("add", {"x": 1}, **{option: value})
        assert pool.stats().submitted == 0


async def test_no_more_sessions_are_remembered_than_allowed() -> None:
    async with Pool(adapter(), size=1, session_limit=10) as pool:
        for number in range(30):
            await pool.execute("add", {"x": 1}, session_id=str(number))
        assert pool.stats().sessions == 10
        assert pool.worker_of_session("19") is None
        assert pool.worker_of_session("20") is not None


# --- readiness and names -------------------------------------------------------------------------


async def test_await_ready_waits_for_all_or_for_some() -> None:
    async with Pool(adapter(), size=2) as pool:
        await pool.await_ready(20.0)
        first, second = pool.workers()
        send_signal(first, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "a death is noticed")
        await pool.await_ready(20.0)
        assert second in pool.workers()
        assert len(pool.workers()) == 2
        await pool.await_ready(20.0, workers=1)
        with pytest.raises(ConfigurationError, match="only 2"):
            await pool.await_ready(workers=3)
    with pytest.raises(PoolClosed, match="is closed"):
        await pool.await_ready(1.0)


class Reluctant:
    """An adapter whose second worker fails to start, and whose third waits for the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.starts = 0

    async def start_worker(self, spec: WorkerSpec) -> object:
        self.starts += 1
        if self.starts == 2:
            raise RuntimeError("not yet")
        if self.starts > 2:
            await self.gate.wait()
        return object()

    async def execute(
        self, worker: object, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> None:
        return None


async def test_await_ready_says_how_many_are_ready_when_its_time_is_over() -> None:
    reluctant = Reluctant()
    async with Pool(reluctant, size=2) as pool:
        await pool.await_ready(workers=1)
        await until(lambda: reluctant.starts == 3, "the start is tried again")
        with pytest.raises(PoolNotReady, match="1 of 2 workers") as caught:
            await pool.await_ready(0.01)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.details == {"ready": 1, "wanted": 2, "starting": 1}
        waiting = asyncio.create_task(pool.await_ready())
        reluctant.gate.set()
        await waiting


async def test_await_ready_ends_when_the_pool_is_closed() -> None:
    reluctant = Reluctant()
    async with Pool(reluctant, size=2) as pool:
        await until(lambda: reluctant.starts == 3, "the start is tried again")
        waiting = asyncio.create_task(pool.await_ready())
        await asyncio.sleep(0)
    with pytest.raises(PoolClosed):
        await waiting


@pytest.mark.slow
async def test_await_ready_fails_when_the_workers_keep_dying() -> None:
    async with Pool(adapter(), size=1) as pool:
        for _ in range(8):
            with pytest.raises((WorkerLost, PoolBroken)):
                await pool.execute("die", {"number": int(signal.SIGKILL)})
        with pytest.raises(PoolBroken):
            await pool.await_ready(30.0)


async def test_pools_of_one_name_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="snakepit")
    async with (
        Pool(adapter(), size=1, name="twin") as one,
        Pool(adapter(), size=1, name="twin") as two,
    ):
        assert (one.name, two.name) == ("twin", "twin#2")
        ids = [pool.workers()[0].worker_id for pool in (one, two)]
        assert ids == ["twin-1", "twin#2-1"]
        with pytest.raises(WorkerLost, match="twin#2-1"):
            await two.execute("die", {"number": int(signal.SIGKILL)})
        assert await one.execute("add", {"x": 1}) == 12
        await two.await_ready(20.0)
        assert one.stats().workers_lost == 0
    assert any("pool twin#2: " in record.getMessage() for record in caplog.records)
    async with Pool(adapter(), size=1, name="twin") as again:
        assert again.name == "twin"


# --- explain -------------------------------------------------------------------------------------


async def test_explain_tells_what_would_become_of_a_call() -> None:
    async with gated_pool(size=2, queue_limit=3) as (pool, gate):
        explanation = pool.explain("add")
        assert isinstance(explanation, Explanation)
        assert explanation.runs_now
        assert "the least loaded worker" in explanation.reason
        await pool.execute("add", {"x": 1}, session_id="s")
        home = pool.worker_of_session("s")
        explanation = pool.explain("add", "s")
        assert (explanation.worker_id, explanation.session_worker) == (home, home)
        assert "served its session before" in explanation.reason

        calls = await hold_all(pool, gate, session_id="s")
        explanation = pool.explain("add", "s")
        assert explanation.runs_now
        assert explanation.worker_id != home
        assert "is busy" in explanation.reason
        explanation = pool.explain("add", "s", affinity="strict_queue")
        assert not explanation.runs_now
        assert (explanation.worker_id, explanation.position) == (home, 0)
        assert f"waits for {home}" in explanation.reason
        assert pool.explain("add", "s", affinity="strict_fail_fast").error == "worker_busy"

        calls += await hold_all(pool, gate)
        calls += [noting(pool, 1), noting(pool, 2, priority="low")]
        await until(lambda: pool.stats().queued == 2, "they wait")
        explanation = pool.explain("add", priority="high")
        assert (explanation.position, explanation.worker_id) == (0, None)
        assert "all 2 are busy" in explanation.reason
        assert pool.explain("add").position == 1
        calls.append(noting(pool, 3))
        await until(lambda: pool.stats().queued == 3, "the queue is full")
        assert pool.explain("add").error == "pool_saturated"
        assert pool.stats().submitted == 6
        gate.opened.set()
        await asyncio.gather(*calls)


async def test_explain_tells_of_a_lost_session_and_of_a_nested_call() -> None:
    seen: list[Explanation] = []

    async def look(call: HostCall) -> None:
        seen.append(pool.explain("add", call.session_id))

    async with Pool(adapter(), size=1, host_functions={"look": look}) as pool:
        await pool.execute("call_host", {"name": "look", "args": {}}, session_id="s")
        (worker,) = pool.workers()
        assert seen[0].runs_now
        assert seen[0].worker_id == worker.worker_id
        assert "in the slot of the call that waits for it" in seen[0].reason
        send_signal(worker, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "its death is noticed")
        lost = pool.explain("add", "s", affinity="strict_queue")
        assert (lost.error, lost.session_worker) == ("session_worker_unavailable", worker.worker_id)
    with pytest.raises(PoolClosed):
        pool.explain("add")
    assert snakepit.Explanation is Explanation
