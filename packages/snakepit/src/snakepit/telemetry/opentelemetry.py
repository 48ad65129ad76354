"""Spans and metrics of OpenTelemetry, made of this library's events.

Needs the interface of OpenTelemetry, ``pip install 'snakepit-pool[opentelemetry]'``. Which SDK and
which exporters there are is the program's business, in the host and in each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from snakepit.telemetry import bus
from snakepit.telemetry.catalogue import POOL_GAUGES
from snakepit.telemetry.trace import CORRELATION_ID
from snakepit.version import __version__

_Metadata = Mapping[str, Any]
_Measurements = Mapping[str, float]
_Handler = Callable[[str, _Measurements, _Metadata], None]

#: Seconds. Short calls take some ten microseconds, those of models minutes.
_BOUNDARIES: Final = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 300.0,
]  # fmt: skip
#: Events that are counted, and the metadata by which. All have few values; ids would not.
_COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    "snakepit.call.refused": ("pool", "error"),
    "snakepit.call.recalled": ("pool",),
    "snakepit.worker.ready": ("pool",),
    "snakepit.worker.spawn_failed": ("pool", "error"),
    "snakepit.worker.crash": ("pool", "signal", "exit_code"),
    "snakepit.worker.tainted": ("pool",),
    "snakepit.worker.recycled": ("pool",),
    "snakepit.worker.hung": ("pool", "verdict"),
    "snakepit.limit.exceeded": ("pool", "limit"),
    "snakepit.quarantine.entered": ("pool", "command"),
    "snakepit.retry.attempt": ("command", "error"),
    "snakepit.retry.exhausted": ("command", "error"),
    "snakepit.circuit_breaker.opened": ("breaker",),
    "snakepit.circuit_breaker.rejected": ("breaker",),
    "snakepit.telemetry.dropped": ("pool", "by"),
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Instrumentation:
    """What :func:`instrument` returns. One is enough for a process."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        tracer = trace.get_tracer("snakepit", __version__, tracer_provider)
        meter = metrics.get_meter("snakepit", __version__, meter_provider)
        self._calls = _CallSpans(tracer)
        measures = _Measures(meter)
        functions, commands = _InnerSpans(tracer, "function"), _InnerSpans(tracer, "command")
        ends = ["snakepit.call.stop", "snakepit.call.exception"]
        handlers: list[tuple[list[str], _Handler]] = [
            (["snakepit.call.start", *ends], self._calls.handle),
            (["snakepit.call.dispatched", "snakepit.call.recalled"], self._calls.note),
            (["snakepit.host_call.*"], functions.handle),
            (["snakepit.command.*"], commands.handle),
            (ends, measures.call_ended),
            (["snakepit.pool.status", "snakepit.pool.closed"], measures.pool_seen),
            (list(_COUNTED), measures.count),
        ]
        self._handler_ids = [bus.attach(events, handler) for events, handler in handlers]
        bus.set_trace_source(self._calls.trace_context)

    def close(self) -> None:
        """Make no spans and metrics any more. Those of running calls are not ended."""
        bus.set_trace_source(None)
        for handler_id in self._handler_ids:
            bus.detach(handler_id)


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Instrumentation:
    """Make spans and metrics of what happens from now on in this process.

    In the host each call has a span, a child of whatever span its caller is in, and so has each
    call to a function of the host. Called in a worker, in the constructor of its class, it makes a
    span of each command, a child of that of the call. Spans of the code itself fit in between.
    The context travels as the W3C's ``traceparent``; it takes the place of a trace source.

    Args:
        tracer_provider: the SDK's; by default the one that is set for the process.
        meter_provider: the same, for metrics.

    Raises:
        ImportError: OpenTelemetry's interface is not installed.

    Example::

        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from snakepit.telemetry.opentelemetry import instrument

        trace.set_tracer_provider(TracerProvider())
        instrumentation = instrument()
    """
    return Instrumentation(tracer_provider, meter_provider)


class _CallSpans:
    """A span for each call, from its submission to its caller's answer."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, trace.Span] = {}

    def handle(self, event: str, measurements: _Measurements, metadata: _Metadata) -> None:
        correlation_id = metadata[CORRELATION_ID]
        if event == "snakepit.call.start":
            # Told where the call is made: the current span is the caller's.
            self._open[correlation_id] = self._tracer.start_span(
                metadata["command"],
                kind=trace.SpanKind.CLIENT,
                attributes=_attributes(metadata, "pool", "session_id", "priority", CORRELATION_ID),
            )
            return
        span = self._open.pop(correlation_id, None)
        if span is not None:
            span.set_attributes(_attributes(metadata, "worker_id", "outcome"))
            span.set_attribute("snakepit.queued_s", measurements["queued_s"])
            _end(span, metadata)

    def note(self, event: str, _: _Measurements, metadata: _Metadata) -> None:
        """Add to the span of a call what becomes of it on the way."""
        span = self._open.get(metadata[CORRELATION_ID])
        if span is not None:
            span.add_event(event, _attributes(metadata, "worker_id", "batch_id"))

    def trace_context(self, correlation_id: str) -> dict[str, str]:
        """That of a call's span; of the running code where it has none, or in a worker."""
        span = self._open.get(correlation_id)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, None if span is None else trace.set_span_in_context(span))
        return headers


class _InnerSpans:
    """A span around the code that serves a call, which runs inside of it."""

    def __init__(self, tracer: trace.Tracer, named_by: str) -> None:
        self._tracer = tracer
        self._named_by = named_by
        self._open: dict[Any, tuple[trace.Span, Context]] = {}

    def handle(self, event: str, _: _Measurements, metadata: _Metadata) -> None:
        # One command may call several functions at a time: their own numbers tell them apart.
        key = metadata[CORRELATION_ID], metadata.get("worker_id"), metadata.get("call_id")
        if event.endswith(".start"):
            span = self._tracer.start_span(
                metadata[self._named_by],
                _PROPAGATOR.extract(metadata["trace_context"], Context()),
                kind=trace.SpanKind.SERVER,
                attributes=_attributes(metadata, "pool", "worker_id", "session_id", CORRELATION_ID),
            )
            self._open[key] = span, contexts.get_current()
            contexts.attach(trace.set_span_in_context(span))
        elif key in self._open:
            span, before = self._open.pop(key)
            # Not by the token: a stream may end in another task than it began in.
            contexts.attach(before)
            _end(span, metadata)


class _Measures:
    """The metrics: how long calls take, how pools are, how often what happens."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "snakepit.call.duration", "s", "Calls, from their submission to their caller's answer",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )  # fmt: skip
        self._queued = meter.create_histogram(
            "snakepit.call.queued", "s", "How long of that they waited for a worker",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )  # fmt: skip
        self._gauges = {
            name: meter.create_gauge(f"snakepit.pool.{name}", description=f"Pool.stats().{name}")
            for name in POOL_GAUGES
        }
        self._counters = {name: meter.create_counter(name) for name in _COUNTED}

    def call_ended(self, _: str, measurements: _Measurements, metadata: _Metadata) -> None:
        labels = _attributes(metadata, "pool", "command")
        self._queued.record(measurements["queued_s"], labels)
        if not metadata["success"]:
            labels["error.type"] = metadata["error"]
        self._duration.record(measurements["duration_s"], labels)

    def pool_seen(self, _: str, measurements: _Measurements, metadata: _Metadata) -> None:
        labels = _attributes(metadata, "pool")
        for name, gauge in self._gauges.items():
            gauge.set(measurements.get(name, 0), labels)  # nothing is left of a closed one

    def count(self, event: str, measurements: _Measurements, metadata: _Metadata) -> None:
        amount = measurements.get("events", 1)  # an event may tell of several
        self._counters[event].add(amount, _attributes(metadata, *_COUNTED[event]))


def _end(span: trace.Span, metadata: _Metadata) -> None:
    if not metadata["success"]:
        span.set_attribute("error.type", metadata["error_type"])
        if metadata["error"] != "cancelled":  # which is what somebody wanted
            span.set_status(trace.StatusCode.ERROR, metadata["error"])
    span.end()


def _attributes(metadata: _Metadata, *names: str) -> dict[str, Any]:
    """Some of an event's metadata; OpenTelemetry takes no None."""
    found = ((name, metadata.get(name)) for name in names)
    return {f"snakepit.{name}": value for name, value in found if value is not None}
