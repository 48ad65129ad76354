"""Host and worker name a call alike, and the trace context of its caller travels with it."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from processes import until
from told_events import told

from snakepit import HostCall, Pool, PythonAdapter, telemetry
from snakepit.errors import CallTimeout, RemoteError
from snakepit.telemetry.logs import CorrelationFilter

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHILD = TRACEPARENT.replace("00f067aa0ba902b7", "1111111111111111")
OTHER = CHILD.replace("4bf9", "5bf9")


def new_pool(**options: Any) -> Pool:
    return Pool(PythonAdapter("telemetry_worker:Worker"), **{"size": 1, "name": "shop", **options})


@pytest.fixture
def traced() -> Iterator[None]:
    """Every call of the test carries a trace context."""
    telemetry.set_trace_source(lambda _: {"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    yield
    telemetry.set_trace_source(None)


# --- correlation ids -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["context", "async_context"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_host_and_worker_name_a_call_alike(command: str, concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        unheard = await pool.execute(command)
        with told() as events:
            heard = await pool.execute(command)
    assert unheard["correlation_id"] == f"{unheard['worker_id']}/{unheard['call_id']}"
    assert (
        events.assert_told("snakepit.call.stop").metadata["correlation_id"]
        == (heard["correlation_id"])
    )


@pytest.mark.parametrize("command", ["context_stream", "async_context_stream"])
async def test_streams_are_named_alike_too(command: str) -> None:
    async with new_pool() as pool:
        with told() as events:
            (found,) = [item async for item in pool.execute_stream(command)]
    closed = events.assert_told("snakepit.stream.closed")
    assert closed.metadata["correlation_id"] == found["correlation_id"]


async def test_errors_name_their_call_whether_anybody_listens_or_not() -> None:
    async with new_pool() as pool:
        ids = set()
        for _ in range(2):
            with pytest.raises(RemoteError) as caught:
                await pool.execute("fail", {"message": "no"})
            ids.add(caught.value.details["correlation_id"])
        assert ids == {"shop-1/1", "shop-1/3"}
        with told() as events, pytest.raises(RemoteError) as caught:
            await pool.execute("fail", {"message": "no"})
    failed = events.assert_told("snakepit.call.exception")
    assert caught.value.details["correlation_id"] == failed.metadata["correlation_id"]


async def test_log_records_in_workers_name_their_call() -> None:
    async with new_pool() as pool:
        with told() as events:
            logged = await pool.execute("log", {"text": "packed"})
    correlation_id = events.assert_told("snakepit.call.stop").metadata["correlation_id"]
    assert logged == f"{correlation_id} packed\n"


async def test_log_records_in_functions_of_the_host_name_the_call_they_serve() -> None:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.addFilter(CorrelationFilter())
    handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
    logger = logging.getLogger("shop.host")
    logger.addHandler(handler)

    def in_thread(call: HostCall) -> str:
        logger.warning("sync")
        return call.correlation_id

    async def in_loop(call: HostCall) -> str:
        logger.warning("async")
        return call.correlation_id

    try:
        functions = {"in_thread": in_thread, "in_loop": in_loop}
        async with new_pool(host_functions=functions) as pool:
            first = await pool.execute("call_host", {"name": "in_thread"})
            second = await pool.execute("call_host", {"name": "in_loop"})
            logger.warning("alone")
    finally:
        logger.removeHandler(handler)
    assert output.getvalue().splitlines() == [f"{first} sync", f"{second} async", "- alone"]


async def test_a_call_keeps_its_name_when_it_is_late() -> None:
    async with new_pool() as pool:
        with told() as events, pytest.raises(CallTimeout) as caught:
            await pool.execute("spin", timeout=0.05)
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
    failed = events.assert_told("snakepit.call.exception")
    assert caught.value.details["correlation_id"] == failed.metadata["correlation_id"]


# --- trace contexts ------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.usefixtures("traced")
async def test_the_trace_context_of_the_caller_arrives_in_the_worker(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        for command in ("context", "async_context"):
            found = await pool.execute(command)
            assert found["trace"] == {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
        for command in ("context_stream", "async_context_stream"):
            (found,) = [item async for item in pool.execute_stream(command)]
            assert found["trace"]["traceparent"] == TRACEPARENT


async def test_the_source_is_asked_in_the_callers_context_after_the_start_was_told() -> None:
    asked: list[str] = []

    def source(correlation_id: str) -> dict[str, str]:
        assert events.assert_told("snakepit.call.start").metadata["correlation_id"] == (
            correlation_id
        )
        task = asyncio.current_task()
        asked.append(task.get_name() if task is not None else "")
        return {"traceparent": TRACEPARENT}

    async with new_pool() as pool:
        with told() as events:
            telemetry.set_trace_source(source)
            try:
                found = await asyncio.create_task(pool.execute("context"), name="the caller")
            finally:
                telemetry.set_trace_source(None)
    assert asked == ["the caller"]
    assert found["trace"] == {"traceparent": TRACEPARENT}


async def test_without_a_source_there_is_no_trace_context() -> None:
    async with new_pool() as pool:
        assert (await pool.execute("context"))["trace"] == {}
        with told():
            assert (await pool.execute("context"))["trace"] == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, TRACEPARENT), (CHILD, CHILD), (OTHER, TRACEPARENT), ("nonsense", TRACEPARENT)],
)
@pytest.mark.usefixtures("traced")
async def test_a_function_of_the_host_gets_the_trace_context_of_the_code_that_calls_it(
    said: str | None, expected: str
) -> None:
    def where(call: HostCall) -> str:
        return call.trace_context["traceparent"]

    async with new_pool(host_functions={"where": where}) as pool:
        args = {"name": "where", "traceparent": said}
        assert await pool.execute("call_host", args) == expected


async def test_a_worker_can_not_bring_up_a_trace_where_there_is_none() -> None:
    def where(call: HostCall) -> dict[str, str]:
        return dict(call.trace_context)

    async with new_pool(host_functions={"where": where}) as pool:
        assert await pool.execute("call_host", {"name": "where", "traceparent": OTHER}) == {}
