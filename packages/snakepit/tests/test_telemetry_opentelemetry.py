"""Spans and metrics, seen by the exporters of OpenTelemetry's own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer
from processes import until

from snakepit import Heartbeat, HostCall, Pool, PythonAdapter
from snakepit.errors import CallTimeout, RemoteError, WorkerLost
from snakepit.telemetry import bus
from snakepit.telemetry.opentelemetry import Instrumentation, instrument
from snakepit.testing import Reply, ScriptedAdapter


class Observed(NamedTuple):
    """What the SDK has got in this process."""

    tracer: Tracer
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    instrumentation: Instrumentation

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The data points of a metric by their attributes."""
        data = self.reader.get_metrics_data()
        assert data is not None
        (scope,) = data.resource_metrics[0].scope_metrics
        (metric,) = [metric for metric in scope.metrics if metric.name == name]
        return {frozenset((p.attributes or {}).items()): p for p in metric.data.data_points}


@pytest.fixture
def observed() -> Iterator[Observed]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrumentation = instrument(tracer_provider=tracers, meter_provider=meters)
    yield Observed(tracers.get_tracer("host"), exporter, reader, instrumentation)
    instrumentation.close()
    tracers.shutdown()
    meters.shutdown()
    assert not bus.listening


def new_pool(**options: Any) -> Pool:
    return Pool(PythonAdapter("traced_worker:Worker"), **{"size": 1, "name": "shop", **options})


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


# --- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ask", "ask_async"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_one_trace_leads_through_host_and_worker_and_back(
    observed: Observed, command: str, concurrency: int
) -> None:
    async def order(call: HostCall) -> str:
        with observed.tracer.start_as_current_span("ordering"):
            await pool.execute("work")
        return "done"

    pool = new_pool(concurrency=concurrency, host_functions={"order": order})
    async with pool:
        with observed.tracer.start_as_current_span("caller"):
            assert await pool.execute(command, {"name": "order"}) == "done"
        in_worker = await pool.execute("spans")
    there = {span["name"]: span for span in in_worker}
    caller, outer, inner = (observed.span(name) for name in ("caller", command, "work"))
    steps = [
        (parent_of(outer), caller.context.span_id),
        (there[command]["parent"], outer.context.span_id),
        (there["thinking"]["parent"], there[command]["id"]),
        (parent_of(observed.span("order")), there["thinking"]["id"]),
        (parent_of(observed.span("ordering")), observed.span("order").context.span_id),
        (parent_of(inner), observed.span("ordering").context.span_id),
        (there["work"]["parent"], inner.context.span_id),
        (there["working"]["parent"], there["work"]["id"]),
    ]
    assert [said for said, _ in steps] == [true for _, true in steps]
    traces = {span["trace"] for span in in_worker}
    assert traces == {caller.context.trace_id.to_bytes(16, "big")}


@pytest.mark.parametrize("command", ["count", "count_async"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_spans_in_streams_are_children_of_the_command(
    observed: Observed, command: str, concurrency: int
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        items = [item async for item in pool.execute_stream(command, {"n": 2})]
        in_worker = await pool.execute("spans")
    assert items == [0, 1]
    (outer,) = [span for span in in_worker if span["name"] == command]
    assert outer["parent"] == observed.span(command).context.span_id
    counting = [span["parent"] for span in in_worker if span["name"] == "counting"]
    assert counting == [outer["id"]] * 2


async def test_a_span_says_how_its_call_went(observed: Observed) -> None:
    async with new_pool() as pool:
        await pool.execute("work", session_id="ada")
    span = observed.span("work")
    attributes = dict(span.attributes or {})
    assert span.kind is SpanKind.CLIENT
    assert attributes.pop("snakepit.queued_s") >= 0.0  # type: ignore[operator]
    assert len(str(attributes.pop("snakepit.correlation_id"))) == 16
    assert attributes == {
        "snakepit.pool": "shop",
        "snakepit.session_id": "ada",
        "snakepit.priority": "normal",
        "snakepit.worker_id": "shop-1",
        "snakepit.outcome": "succeeded",
    }
    assert [event.name for event in span.events] == ["snakepit.call.dispatched"]


async def test_errors_are_told_by_their_kind_alone(observed: Observed) -> None:
    async with new_pool() as pool:
        with pytest.raises(RemoteError):
            await pool.execute("fail")
        with pytest.raises(CallTimeout):
            await pool.execute("wait", timeout=1.0)  # long enough for it to begin
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
        there = {span["name"]: span for span in await pool.execute("spans")}
    failed, late = observed.span("fail"), observed.span("wait")
    assert (failed.attributes or {})["error.type"] == "KeyError"
    assert (failed.status.is_ok, failed.status.description) == (False, "remote_error")
    assert (late.status.is_ok, late.status.description) == (False, "call_timeout")
    assert (there["fail"]["ok"], there["fail"]["error"]) == (False, "KeyError")
    # It did as it was told.
    assert (there["wait"]["ok"], there["wait"]["error"]) == (True, "CancelledError")
    assert "do not tell" not in "".join(map(str, observed.exporter.get_finished_spans()))


# --- metrics -------------------------------------------------------------------------------------


async def test_calls_are_measured(observed: Observed) -> None:
    async with new_pool() as pool:
        for _ in range(3):
            await pool.execute("work")
        with pytest.raises(RemoteError):
            await pool.execute("fail")
    work = {("snakepit.pool", "shop"), ("snakepit.command", "work")}
    failed = {("snakepit.pool", "shop"), ("snakepit.command", "fail")}
    durations = observed.points("snakepit.call.duration")
    assert durations[frozenset(work)].count == 3
    assert 0.0 < durations[frozenset(work)].sum < 60.0
    assert durations[frozenset(failed | {("error.type", "remote_error")})].count == 1
    queued = observed.points("snakepit.call.queued")
    assert {key: point.count for key, point in queued.items()} == {
        frozenset(work): 3,
        frozenset(failed): 1,
    }


async def test_what_happens_is_counted_and_gauges_follow_the_pool(observed: Observed) -> None:
    shop = ("snakepit.pool", "shop")
    async with new_pool(heartbeat=Heartbeat(interval=0.05)) as pool:
        with pytest.raises(WorkerLost):
            await pool.execute("die")
        await pool.execute("work")
        crashes = observed.points("snakepit.worker.crash")
        assert crashes[frozenset({shop, ("snakepit.exit_code", 3)})].value == 1
        assert observed.points("snakepit.worker.ready")[frozenset({shop})].value == 2
        await until(lambda: gauge(observed, "size") == 1, "the pool is looked at")
    assert gauge(observed, "size") == 0


def gauge(observed: Observed, name: str) -> float | None:
    try:
        (point,) = observed.points(f"snakepit.pool.{name}").values()
    except ValueError:
        return None
    return float(point.value)


# --- the end -------------------------------------------------------------------------------------


async def test_when_it_is_closed_there_are_no_more_spans(observed: Observed) -> None:
    async with Pool(ScriptedAdapter({"work": [Reply(), Reply()]}), size=1) as pool:
        await pool.execute("work")
        observed.instrumentation.close()
        await pool.execute("work")
    observed.span("work")  # one
    assert not bus.listening
