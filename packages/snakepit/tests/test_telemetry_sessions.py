"""The events of streams, sessions, functions of the host and quarantine, provoked in real pools."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from gated_pool import gated_pool, hold_all
from processes import until
from told_events import proves, told

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import RemoteError, SessionWorkerUnavailable, WorkerBusy, WorkerLost
from snakepit.testing import ScriptedAdapter, kill_worker
from snakepit.testing import Stream as ScriptedStream

SECRET = "do not tell"


def new_pool(**options: Any) -> Pool:
    adapter = PythonAdapter("pool_worker:Worker", config={"base": 10})
    return Pool(adapter, **{"size": 1, "name": "shop", "start_timeout": 20.0, **options})


# --- streams -------------------------------------------------------------------------------------


@proves("stream.opened", "stream.message", "stream.closed")
async def test_a_stream_tells_its_opening_its_items_and_its_end() -> None:
    async with new_pool() as pool:
        with told() as events:
            items = [item async for item in pool.execute_stream("count", {"n": 3})]
    opened = events.assert_told("snakepit.stream.opened", command="count", worker_id="shop-1")
    messages = events.told("snakepit.stream.message", command="count")
    closed = events.assert_told("snakepit.stream.closed", success=True, outcome="succeeded")
    assert sum(event.measurements["items"] for event in messages) == len(items) == 3
    assert messages[-1].measurements["delivered"] == closed.measurements["items"] == 3
    assert all(event.measurements["bytes"] > 0 for event in messages)
    assert opened.metadata["streaming"]
    events.assert_told("snakepit.call.stop", streaming=True)


async def test_a_stream_that_is_left_is_told_as_cancelled() -> None:
    async with new_pool() as pool:
        with told() as events:
            async with aclosing(pool.execute_stream("count", {"n": 10**6})) as stream:
                assert await anext(stream) == 0
            await events.wait_for("snakepit.call.released", command="count")
    events.assert_told("snakepit.stream.closed", outcome="cancelled", success=False)
    events.assert_told("snakepit.call.exception", outcome="cancelled")


async def test_a_stream_that_fails_is_told_with_the_items_before() -> None:
    async with new_pool() as pool:
        with told() as events, pytest.raises(RemoteError):
            async for _ in pool.execute_stream("count", {"n": 5, "fail_at": 2}):
                pass
    closed = events.assert_told("snakepit.stream.closed", outcome="failed")
    assert closed.measurements["items"] == 2


async def test_streams_of_an_adapter_without_processes_are_told_too() -> None:
    script = ScriptedAdapter({"count": [ScriptedStream([1, 2, 3])]})
    async with Pool(script, size=1) as pool:
        with told() as events:
            assert [item async for item in pool.execute_stream("count")] == [1, 2, 3]
    assert events.assert_told("snakepit.stream.closed").measurements["items"] == 3


# --- sessions ------------------------------------------------------------------------------------


@proves("affinity.assigned", "affinity.broken")
async def test_a_session_that_moves_from_a_busy_worker_is_told() -> None:
    async with gated_pool(size=2, name="shop") as (pool, gate):
        await pool.await_ready(20.0)
        with told() as events:
            await pool.execute("pid", session_id="ada")
            first = events.assert_told("snakepit.affinity.assigned").metadata["worker_id"]
            held = await hold_all(pool, gate, session_id="ada")
            await pool.execute("pid", session_id="ada")
            gate.opened.set()
            await asyncio.gather(*held)
    broken = events.assert_told("snakepit.affinity.broken")
    assert broken.metadata == {
        "pool": "shop", "session_id": "ada", "worker_id": first, "reason": "worker_busy"
    }  # fmt: skip
    moved = events.told("snakepit.affinity.assigned")[1]
    assert moved.metadata["previous_worker_id"] == first
    assert moved.metadata["worker_id"] != first


async def test_a_session_whose_worker_has_left_is_told_when_that_is_noticed() -> None:
    async with new_pool() as pool:
        await pool.execute("pid", session_id="ada")
        kill_worker(pool, "shop-1")
        await until(lambda: [info.worker_id for info in pool.workers()] == ["shop-2"], "replaced")
        with told() as events:
            with pytest.raises(SessionWorkerUnavailable):
                await pool.execute("pid", session_id="ada", affinity="strict_queue")
            await pool.execute("pid", session_id="ada")
    first, second = events.told("snakepit.affinity.broken", worker_id="shop-1")
    assert first.metadata["reason"] == second.metadata["reason"] == "worker_left"
    events.assert_told("snakepit.call.refused", error="session_worker_unavailable")
    events.assert_told("snakepit.affinity.assigned", previous_worker_id="shop-1")


async def test_strict_calls_that_wait_for_a_worker_that_dies_are_told() -> None:
    async with gated_pool(name="shop") as (pool, gate):
        held = await hold_all(pool, gate, session_id="ada")
        with told() as events:
            strict = pool.execute("pid", session_id="ada", affinity="strict_queue")
            waiting = asyncio.create_task(strict)
            await until(lambda: pool.stats().queued == 1, "it waits")
            kill_worker(pool, "shop-1")
            await asyncio.gather(*held, waiting, return_exceptions=True)
    events.assert_told("snakepit.affinity.broken", session_id="ada", reason="worker_left")
    events.assert_told("snakepit.queue.dequeued", reason="failed")


async def test_a_session_over_the_limit_is_told_as_forgotten() -> None:
    async with new_pool(session_limit=1) as pool:
        with told() as events:
            await pool.execute("pid", session_id="ada")
            await pool.execute("pid", session_id="bob")
    forgotten = events.assert_told("snakepit.affinity.broken")
    assert forgotten.metadata["session_id"] == "ada"
    assert forgotten.metadata["reason"] == "forgotten"


async def test_a_call_that_must_not_wait_is_told_as_refused() -> None:
    async with gated_pool() as (pool, gate):
        held = await hold_all(pool, gate, session_id="ada")
        with told() as events, pytest.raises(WorkerBusy):
            await pool.execute("pid", session_id="ada", affinity="strict_fail_fast")
        gate.opened.set()
        await asyncio.gather(*held)
    assert events.names == ["snakepit.call.refused"]
    assert events.events[0].metadata["error"] == "worker_busy"


# --- functions of the host -----------------------------------------------------------------------


@proves("host_call.start", "host_call.stop")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_call_to_the_host_is_told(concurrency: int) -> None:
    def double(call: HostCall, x: int) -> int:
        assert call.correlation_id == call.parent.correlation_id
        return 2 * x

    async with new_pool(concurrency=concurrency, host_functions={"double": double}) as pool:
        with told() as events:
            args = {"name": "double", "args": {"x": 4}}
            assert await pool.execute("call_host", args, session_id="ada") == 8
    outer = events.assert_told("snakepit.call.start").metadata["correlation_id"]
    labels = {
        "pool": "shop", "correlation_id": outer, "function": "double", "worker_id": "shop-1",
        "session_id": "ada", "call_id": 2, "trace_context": {},
    }  # fmt: skip
    assert events.assert_told("snakepit.host_call.start").metadata == labels
    stop = events.assert_told("snakepit.host_call.stop")
    assert stop.metadata == {**labels, "success": True}


@proves("host_call.exception")
async def test_a_call_to_the_host_that_fails_is_told_without_its_message() -> None:
    def fail(call: HostCall) -> None:
        raise KeyError(SECRET)

    async with new_pool(host_functions={"fail": fail}) as pool:
        with told() as events, pytest.raises(RemoteError):
            await pool.execute("call_host", {"name": "fail", "args": {}})
    failed = events.assert_told("snakepit.host_call.exception", success=False)
    assert failed.metadata["error_type"] == "KeyError"
    assert SECRET not in repr(events.events)


async def test_a_call_to_the_host_that_is_broken_off_is_told() -> None:
    async with gated_pool() as (pool, gate):
        with told() as events:
            (held,) = await hold_all(pool, gate)
            held.cancel()
            await events.wait_for("snakepit.host_call.exception", error="cancelled")
            await asyncio.wait([held])


# --- quarantine ----------------------------------------------------------------------------------


@proves("quarantine.entered")
async def test_a_call_that_is_refused_because_it_kills_is_told() -> None:
    async with new_pool(quarantine_after=1) as pool:
        with told() as events:
            with pytest.raises(WorkerLost):
                await pool.execute("leave", {"how": "os_exit"})
            with pytest.raises(Exception, match="leave"):
                await pool.execute("leave", {"how": "os_exit"})
    entered = events.assert_told("snakepit.quarantine.entered", command="leave", pool="shop")
    assert entered.metadata["worker_id"] == "shop-1"
    events.assert_told("snakepit.call.refused", error="poison_call")
