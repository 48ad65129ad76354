"""The events of pools, calls, streams, sessions and host functions, provoked in real pools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gated_pool import gated_pool, hold_all
from processes import until
from told_events import proves, told

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    EncodeError,
    PoolClosed,
    PoolSaturated,
    PoolStartFailed,
    QueueTimeout,
    RemoteError,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.testing import Fail, Gate, Reply, ScriptedAdapter

SECRET = "do not tell"


def new_pool(**options: Any) -> Pool:
    adapter = PythonAdapter("pool_worker:Worker", config={"base": 10})
    return Pool(adapter, **{"size": 1, "name": "shop", "start_timeout": 20.0, **options})


# --- the pool ------------------------------------------------------------------------------------


@proves("pool.init_started", "pool.initialized", "pool.closed")
async def test_a_pool_tells_its_start_and_its_end() -> None:
    with told() as events:
        async with new_pool(size=2):
            pass
    assert events.assert_told("snakepit.pool.init_started", pool="shop").measurements == {
        "workers": 2
    }
    opened = events.assert_told("snakepit.pool.initialized", pool="shop", success=True)
    assert opened.measurements["workers"] == 2
    assert opened.metadata["error"] is None
    events.assert_told("snakepit.pool.closed", pool="shop")
    assert events.names[0] == "snakepit.pool.init_started"
    assert events.names[-1] == "snakepit.pool.closed"


async def test_a_pool_that_does_not_start_tells_why() -> None:
    broken = Pool(PythonAdapter("pool_worker:Broken"), size=1, name="shop")
    with told() as events, pytest.raises(PoolStartFailed):
        await broken.start()
    failed = events.assert_told("snakepit.pool.initialized", success=False)
    assert failed.metadata["error"] == failed_code(PoolStartFailed)
    assert failed.measurements["workers"] == 0
    assert "snakepit.pool.closed" not in events.names


def failed_code(error: type[Any]) -> str:
    return str(error.code)


@proves("pool.saturated", "call.refused")
async def test_a_full_queue_is_told() -> None:
    async with gated_pool(queue_limit=0, name="shop") as (pool, gate):
        held = await hold_all(pool, gate)
        with told() as events, pytest.raises(PoolSaturated):
            await pool.execute("add", {"x": 1}, session_id="ada")
        gate.opened.set()
        await asyncio.gather(*held)
    full = events.assert_told("snakepit.pool.saturated", pool="shop")
    assert full.measurements == {"queued": 0, "queue_limit": 0}
    refused = events.assert_told("snakepit.call.refused")
    assert refused.metadata == {
        "pool": "shop", "command": "add", "session_id": "ada", "error": "pool_saturated"
    }  # fmt: skip
    assert "snakepit.call.start" not in events.names


@proves("pool.capacity_reached", "queue.enqueued", "queue.dequeued")
async def test_calls_that_wait_are_told_when_they_come_and_when_they_go() -> None:
    async with gated_pool(name="shop", look_ahead=0) as (pool, gate):
        held = await hold_all(pool, gate)
        with told() as events:
            calls = [asyncio.create_task(pool.execute("add", {"x": x})) for x in range(2)]
            await until(lambda: pool.stats().queued == 2, "both wait")
            gate.opened.set()
            await asyncio.gather(*held, *calls)
    assert [e.measurements for e in events.told("snakepit.queue.enqueued")] == [
        {"queued": 1},
        {"queued": 2},
    ]
    reached = events.assert_told("snakepit.pool.capacity_reached", pool="shop")
    assert reached.measurements == {"capacity": 1}
    left = events.told("snakepit.queue.dequeued", reason="started", command="add")
    assert [e.measurements["queued"] for e in left] == [1, 0]
    assert all(e.measurements["waited_s"] > 0.0 for e in left)
    waited = {e.metadata["correlation_id"] for e in left}
    assert waited == {e.metadata["correlation_id"] for e in events.told("snakepit.queue.enqueued")}


@proves("queue.timeout")
async def test_a_call_whose_time_is_over_while_it_waits_is_told() -> None:
    async with gated_pool() as (pool, gate):
        held = await hold_all(pool, gate)
        with told() as events, pytest.raises(QueueTimeout) as caught:
            await pool.execute("add", {"x": 1}, queue_timeout=0.01)
        gate.opened.set()
        await asyncio.gather(*held)
    waited = events.assert_told("snakepit.queue.timeout")
    assert waited.measurements["waited_s"] >= 0.01
    events.assert_told("snakepit.queue.dequeued", reason="timed_out")
    failed = events.assert_told("snakepit.call.exception", outcome="timed_out", worker_id=None)
    assert failed.metadata["error"] == "queue_timeout"
    assert failed.measurements["ran_s"] == 0.0
    assert caught.value.details["correlation_id"] == failed.metadata["correlation_id"]
    assert "snakepit.call.dispatched" not in events.names


async def test_a_call_whose_caller_goes_while_it_waits_is_told() -> None:
    async with gated_pool() as (pool, gate):
        held = await hold_all(pool, gate)
        with told() as events:
            call = asyncio.create_task(pool.execute("add", {"x": 1}))
            await until(lambda: pool.stats().queued == 1, "it waits")
            call.cancel()
            await asyncio.wait([call])
        gate.opened.set()
        await asyncio.gather(*held)
    events.assert_told("snakepit.queue.dequeued", reason="cancelled")
    events.assert_told("snakepit.call.exception", outcome="cancelled", error="cancelled")
    assert "snakepit.queue.timeout" not in events.names


@proves("pool.reloaded")
async def test_a_reload_is_told() -> None:
    async with new_pool() as pool:
        with told() as events:
            await pool.reload()
    reloaded = events.assert_told("snakepit.pool.reloaded", pool="shop", success=True)
    assert reloaded.measurements["workers"] == 1


async def test_a_reload_that_fails_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "edited_for_events.py"
    source = "import snakepit\nclass Worker:\n    @snakepit.command\n    def hello(self): ...\n"
    module.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    async with Pool(PythonAdapter("edited_for_events:Worker"), size=1) as pool:
        module.write_text(source + "raise ValueError\n")
        with told() as events, pytest.raises(WorkerStartFailed):
            await pool.reload()
    events.assert_told("snakepit.pool.reloaded", success=False, error="worker_start_failed")
    events.assert_told("snakepit.template.start_failed", error="worker_start_failed")


# --- calls ---------------------------------------------------------------------------------------


@proves("call.start", "call.dispatched", "call.stop")
async def test_a_call_tells_its_start_its_sending_and_its_result() -> None:
    async with new_pool() as pool:
        with told() as events:
            await pool.execute("add", {"x": 1}, session_id="ada", priority="high")
    assert events.names[:1] + events.names[-2:] == [
        "snakepit.call.start", "snakepit.call.dispatched", "snakepit.call.stop"
    ]  # fmt: skip
    start = events.assert_told("snakepit.call.start")
    correlation_id = start.metadata["correlation_id"]
    call = {
        "pool": "shop", "correlation_id": correlation_id, "command": "add", "session_id": "ada",
        "streaming": False,
    }  # fmt: skip
    assert start.metadata == {**call, "priority": "high", "parent_id": None}
    sent = events.assert_told("snakepit.call.dispatched")
    assert sent.metadata == {**call, "worker_id": "shop-1", "batch_id": None}
    assert sent.measurements == {"queued_s": 0.0, "queued": 0}
    stop = events.assert_told("snakepit.call.stop")
    assert stop.metadata == {
        **call, "worker_id": "shop-1", "outcome": "succeeded", "success": True
    }  # fmt: skip
    assert stop.measurements["duration_s"] >= stop.measurements["ran_s"] > 0.0
    assert stop.measurements["queued_s"] == 0.0


@proves("call.exception")
async def test_a_call_that_fails_tells_the_kind_of_its_error_and_nothing_else() -> None:
    async with new_pool() as pool:
        with told() as events, pytest.raises(RemoteError) as caught:
            await pool.execute("fail", {"message": SECRET})
    failed = events.assert_told("snakepit.call.exception", outcome="failed", success=False)
    assert (failed.metadata["error"], failed.metadata["error_type"]) == (
        "remote_error",
        "ValueError",
    )
    assert failed.metadata["worker_id"] == "shop-1"
    assert caught.value.details["correlation_id"] == failed.metadata["correlation_id"]
    assert SECRET not in repr(events.events)
    assert "snakepit.call.stop" not in events.names


async def test_a_call_that_can_not_be_sent_is_told_from_start_to_end() -> None:
    async with new_pool() as pool:
        with told() as events, pytest.raises(EncodeError):
            await pool.execute("echo", {"value": object()})
    assert events.names == ["snakepit.call.start", "snakepit.call.exception"]
    start, failed = events.events
    assert failed.metadata["error"] == "encode_error"
    assert failed.metadata["correlation_id"] == start.metadata["correlation_id"]


async def test_a_call_whose_worker_dies_is_told() -> None:
    async with new_pool() as pool:
        with told() as events, pytest.raises(WorkerLost):
            await pool.execute("leave", {"how": "os_exit"})
        events.assert_told("snakepit.call.exception", error="worker_lost", outcome="failed")


@proves("call.released")
async def test_a_late_call_is_told_at_its_deadline_and_when_its_worker_has_stopped() -> None:
    async with new_pool(cancel_grace=5.0) as pool:
        with told() as events:
            with pytest.raises(CallTimeout):
                await pool.execute("polite", timeout=0.05)
            events.assert_told("snakepit.call.exception", outcome="timed_out", worker_id="shop-1")
            await events.wait_for("snakepit.call.released", worker_id="shop-1", command="polite")
    late = events.assert_told("snakepit.call.exception")
    released = events.assert_told("snakepit.call.released")
    assert late.measurements["ran_s"] >= 0.05
    assert released.measurements["ran_s"] >= late.measurements["ran_s"]
    assert released.metadata["correlation_id"] == late.metadata["correlation_id"]


@proves("call.recalled")
async def test_a_call_that_is_called_back_is_told_and_keeps_its_id() -> None:
    adapter = PythonAdapter("look_ahead_worker:Worker")
    async with Pool(adapter, size=1, spin=0, name="shop") as pool:
        for command in ("nap", "pid"):
            await pool.execute(command)
            while not pool._dispatcher._times.is_short(command):
                await pool.execute(command)
        with told() as events:
            with Gate() as gate:
                # The second is sent ahead, for the first is believed to be short as well.
                slow = asyncio.create_task(pool.execute("nap", {"gate": gate.key}))
                behind = asyncio.create_task(pool.execute("pid"))
                await events.wait_for("snakepit.call.recalled")
            await asyncio.gather(slow, behind)
    recalled = events.assert_told("snakepit.call.recalled", command="pid")
    own = [event for event in events.events if event.metadata.get("command") == "pid"]
    assert {e.metadata["correlation_id"] for e in own} == {recalled.metadata["correlation_id"]}
    assert [event.name.removeprefix("snakepit.") for event in own] == [
        "call.start", "call.dispatched", "call.recalled", "queue.dequeued", "call.dispatched",
        "call.stop",
    ]  # fmt: skip


async def test_calls_inside_calls_tell_which_one_they_are_made_for() -> None:
    async def add(call: HostCall, x: int) -> Any:
        return await pool.execute("add", {"x": x})

    async with new_pool(host_functions={"add": add}) as pool:
        with told() as events:
            assert await pool.execute("call_host", {"name": "add", "args": {"x": 1}}) == 12
    outer = events.assert_told("snakepit.call.start", command="call_host")
    inner = events.assert_told("snakepit.call.start", command="add")
    assert outer.metadata["parent_id"] is None
    assert inner.metadata["parent_id"] == outer.metadata["correlation_id"]
    assert inner.metadata["correlation_id"] != outer.metadata["correlation_id"]


async def test_calls_of_an_adapter_without_processes_are_told_too() -> None:
    script = ScriptedAdapter({"greet": [Reply("hello"), Fail(ValueError(SECRET)), Reply(1)]})
    with told() as events:
        async with Pool(script, size=1, name="shop") as pool:
            await pool.execute("greet")
            with pytest.raises(ValueError, match=SECRET):
                await pool.execute("greet")
            await pool.execute("greet")
    starts = events.told("snakepit.call.start")
    ends = [e for e in events.events if e.name in ("snakepit.call.stop", "snakepit.call.exception")]
    ids = [event.metadata["correlation_id"] for event in starts]
    assert len(set(ids)) == 3
    assert ids == [event.metadata["correlation_id"] for event in ends]
    assert SECRET not in repr(events.events)
    events.assert_told("snakepit.worker.ready", worker_id="shop-1", pid=None)


async def test_every_call_of_a_storm_is_told_from_start_to_end_and_gauges_return_to_zero() -> None:
    with told() as events:
        async with new_pool(size=2, cancel_grace=0.05) as pool:
            kinds: list[tuple[str, dict[str, Any], float | None]] = [
                ("add", {"x": 1}, None),
                ("fail", {"message": "no"}, None),
                ("spin", {}, 0.02),
                ("leave", {"how": "os_exit"}, None),
                ("async_add", {"x": 1}, 5.0),
                ("echo", {"value": object()}, None),
            ]
            calls = [
                asyncio.create_task(pool.execute(command, args, timeout=timeout))
                for command, args, timeout in kinds * 5
            ]
            for call in calls[::7]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: pool.stats().stopping == 0, "all have stopped")
    starts = [e.metadata["correlation_id"] for e in events.told("snakepit.call.start")]
    ends = [
        event.metadata["correlation_id"]
        for name in ("snakepit.call.stop", "snakepit.call.exception")
        for event in events.told(name)
    ]
    assert sorted(starts) == sorted(ends)
    assert len(set(starts)) == len(starts) == pool.stats().submitted
    waiting: set[str] = set()
    running: set[str] = set()
    for name, _, metadata in events.events:
        correlation_id = metadata.get("correlation_id", "")
        match name.removeprefix("snakepit."):
            case "queue.enqueued":
                waiting.add(correlation_id)
            case "queue.dequeued":
                waiting.remove(correlation_id)
            case "call.dispatched":
                running.add(correlation_id)
            case "call.recalled":
                running.remove(correlation_id)
                waiting.add(correlation_id)
            case "call.stop" | "call.exception":
                running.discard(correlation_id)
                assert correlation_id not in waiting
    assert waiting == running == set()


# --- handlers in the middle of a pool's work -----------------------------------------------------


async def test_a_handler_that_raises_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    from snakepit import telemetry

    def failing(*_: Any) -> None:
        raise asyncio.CancelledError(SECRET)

    async with new_pool() as pool:
        telemetry.attach("snakepit.*", failing)
        assert await pool.execute("add", {"x": 1}) == 12
        assert await pool.execute("add", {"x": 2}) == 13
        stats = pool.stats()
        assert (stats.succeeded, stats.running, stats.queued) == (2, 0, 0)
    (record,) = [each for each in caplog.records if each.name == "snakepit.telemetry"]
    assert "failing" in record.getMessage()


async def test_a_handler_may_use_the_pool() -> None:
    from snakepit import telemetry

    seen: list[Any] = []
    more: list[asyncio.Task[Any]] = []

    def handler(event: str, *_: Any) -> None:
        seen.append((pool.stats().running, pool.workers(), pool.explain("add").reason))
        pool.release_session("ada")
        if event == "snakepit.call.stop" and not more:
            more.append(asyncio.create_task(pool.execute("add", {"x": 5}, session_id="ada")))

    async with new_pool() as pool:
        handler_id = telemetry.attach(["snakepit.call.*", "snakepit.queue.*"], handler)
        try:
            calls = (pool.execute("add", {"x": x}, session_id="ada") for x in range(4))
            assert await asyncio.gather(*calls) == [11, 12, 13, 14]
            assert await asyncio.gather(*more) == [16]
        finally:
            telemetry.detach(handler_id)
    assert len(seen) >= 3 * 5


async def test_nothing_is_told_of_a_closed_pool() -> None:
    async with new_pool() as pool:
        pass
    with told() as events, pytest.raises(PoolClosed):
        await pool.execute("add", {"x": 1})
    assert events.events == []


async def test_a_gate_is_no_event() -> None:
    """What a test's own tools do in workers is not told either."""
    async with new_pool() as pool:
        with told() as events, Gate() as gate:
            call = asyncio.create_task(pool.execute("wait_at_gate", {"gate": gate.key}))
            await gate.reached()
            gate.open()
            await call
    assert events.names == [
        "snakepit.call.start", "snakepit.call.dispatched", "snakepit.call.stop"
    ]  # fmt: skip
