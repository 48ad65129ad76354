"""Events of policies, of calls that are sent in batches, and of inline mode."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from told_events import proves, told

from snakepit import (
    CircuitBreaker,
    HostCall,
    InlineAdapter,
    Pool,
    PythonAdapter,
    RetryPolicy,
    telemetry,
    with_policies,
)
from snakepit.errors import CircuitOpen, RemoteError, WorkerLost
from snakepit.testing import Die, ManualClock, Reply, ScriptedAdapter

# --- retry and circuit breaker -------------------------------------------------------------------


@proves("retry.attempt", "retry.success")
async def test_a_call_that_is_made_again_and_succeeds() -> None:
    script = ScriptedAdapter({"work": [Die(), Die(), Reply("done")]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, RetryPolicy(first_delay=0.01))
        with told() as events:
            assert await calls.execute("work", idempotent=True) == "done"
    attempts = events.told("snakepit.retry.attempt", command="work", error="worker_lost")
    assert [each.measurements["attempt"] for each in attempts] == [1, 2]
    assert all(0.0 <= each.measurements["delay_s"] <= 0.02 for each in attempts)
    success = events.assert_told("snakepit.retry.success", command="work")
    assert success.measurements == {"attempts": 3}
    assert events.told("snakepit.retry.exhausted") == []


@proves("retry.exhausted")
async def test_a_call_that_is_not_made_again() -> None:
    script = ScriptedAdapter({"work": [Die(), Die(), Die()]})
    async with Pool(script, size=1) as pool:
        calls = with_policies(pool, RetryPolicy(attempts=2, first_delay=0.01))
        with told() as events, pytest.raises(WorkerLost):
            await calls.execute("work", idempotent=True)
        exhausted = events.assert_told("snakepit.retry.exhausted", error="worker_lost")
        assert exhausted.measurements == {"attempts": 2}
        # What must not be repeated was never going to be.
        with told() as events, pytest.raises(WorkerLost):
            await calls.execute("work")
        assert [name for name in events.names if ".retry." in name] == []


@proves(
    "circuit_breaker.opened",
    "circuit_breaker.rejected",
    "circuit_breaker.half_opened",
    "circuit_breaker.closed",
)
def test_a_circuit_that_opens_and_closes() -> None:
    async def scenario(clock: ManualClock) -> None:
        script = ScriptedAdapter({"work": [Die(), Reply("well")]})
        breaker = CircuitBreaker(failures=1, open_time=30.0, name="shop")
        async with Pool(script, size=1) as pool:
            calls = with_policies(pool, breaker)
            with told() as events:
                with pytest.raises(WorkerLost):
                    await calls.execute("work")
                await clock.advance(10.0)
                with pytest.raises(CircuitOpen):
                    await calls.execute("work")
                await clock.advance(20.0)
                await calls.execute("work")
        of_circuits = [event for event in events.events if ".circuit_breaker." in event.name]
        assert [event.name.rpartition(".")[2] for event in of_circuits] == [
            "opened", "rejected", "half_opened", "closed"
        ]  # fmt: skip
        assert of_circuits[1].measurements == {"retry_after_s": 20.0}
        assert all(e.metadata == {"breaker": "shop", "command": "work"} for e in of_circuits)

    clock = ManualClock()
    clock.run(scenario(clock))


async def test_a_circuit_that_is_reset_tells_no_command() -> None:
    script = ScriptedAdapter({"work": [Die()]})
    breaker = CircuitBreaker(failures=1)
    async with Pool(script, size=1) as pool:
        with pytest.raises(WorkerLost):
            await with_policies(pool, breaker).execute("work")
    with told() as events:
        breaker.reset()
    assert events.assert_told("snakepit.circuit_breaker.closed").metadata["command"] is None


# --- batches -------------------------------------------------------------------------------------


@proves("batch.dispatched")
@pytest.mark.parametrize("adapter", [PythonAdapter, InlineAdapter])
async def test_calls_of_a_batch_are_calls_and_what_carries_them_is_none(adapter: Any) -> None:
    async with Pool(adapter("batch_worker:Worker"), size=1) as pool:
        with told() as events:
            await asyncio.gather(*(pool.execute("double", {"x": x}) for x in range(3)))
    batch = events.assert_told("snakepit.batch.dispatched", command="double")
    assert batch.measurements["calls"] == 3
    started = events.told("snakepit.call.start")
    stopped = events.told("snakepit.call.stop", command="double", success=True)
    ids = {event.metadata["correlation_id"] for event in started}
    assert len(ids) == len(started) == len(stopped) == 3
    assert {event.metadata["correlation_id"] for event in stopped} == ids
    assert all(event.metadata["worker_id"] == "default-1" for event in stopped)
    sent = events.told("snakepit.call.dispatched", batch_id=batch.metadata["correlation_id"])
    assert {event.metadata["correlation_id"] for event in sent} == ids
    assert batch.metadata["correlation_id"] not in ids


async def test_errors_of_a_batch_name_the_call_and_the_batch() -> None:
    async with Pool(PythonAdapter("batch_worker:Worker"), size=1) as pool:
        with told() as events:
            calls = [pool.execute("wrong", {"what": "raise"}) for _ in range(2)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
    batch = events.assert_told("snakepit.batch.dispatched").metadata["correlation_id"]
    failed = events.told("snakepit.call.exception", command="wrong", success=False)
    assert all(isinstance(error, RemoteError) for error in errors)
    details = [error.details for error in errors if isinstance(error, RemoteError)]
    assert {each["batch_id"] for each in details} == {batch}
    assert {each["correlation_id"] for each in details} == {
        event.metadata["correlation_id"] for event in failed
    }


# --- inline mode ---------------------------------------------------------------------------------


@proves("host_call.start", "host_call.stop", "host_call.exception")
async def test_inline_calls_to_the_host_are_told_too() -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def where(call: HostCall, traceparent: str | None = None) -> str:
        return call.trace_context["traceparent"]

    def fail(call: HostCall) -> None:
        raise ValueError("do not tell")

    functions: dict[str, Any] = {"where": where, "fail": fail}
    adapter = InlineAdapter("telemetry_worker:Worker")
    async with Pool(adapter, size=1, name="shop", host_functions=functions) as pool:
        telemetry.set_trace_source(lambda _: {"traceparent": traceparent})
        try:
            with told() as events:
                assert await pool.execute("call_host", {"name": "where"}) == traceparent
                with pytest.raises(RemoteError):
                    await pool.execute("call_host", {"name": "fail"})
        finally:
            telemetry.set_trace_source(None)
    (first, second) = events.told("snakepit.call.start")
    stop = events.assert_told("snakepit.host_call.stop", function="where", pool="shop")
    failed = events.assert_told("snakepit.host_call.exception", error_type="ValueError")
    assert stop.metadata["correlation_id"] == first.metadata["correlation_id"]
    assert failed.metadata["correlation_id"] == second.metadata["correlation_id"]


async def test_an_inline_command_knows_its_call() -> None:
    async with Pool(InlineAdapter("telemetry_worker:Worker"), size=1, name="shop") as pool:
        with told() as events:
            found = await pool.execute("context")
    call = events.assert_told("snakepit.call.stop").metadata
    assert found["correlation_id"] == call["correlation_id"]
    assert found["worker_id"] == call["worker_id"] == "shop-1"
