"""snakepit with somebody who listens: what telemetry costs once it is used."""

from __future__ import annotations

from benchmarks.pool.contenders.base import Setup
from benchmarks.pool.contenders.snakepit_pool import SnakepitContender, SnakepitPool
from snakepit import telemetry


def _ignore(*_event: object) -> None:
    """A handler."""


class HandlerContender(SnakepitContender):
    """A handler for all events, which does nothing."""

    async def open(self, setup: Setup) -> SnakepitPool:
        telemetry.attach("snakepit.*", _ignore)
        return await super().open(setup)


class OpenTelemetryContender(SnakepitContender):
    """Spans and metrics, made by the SDK and exported to memory."""

    async def open(self, setup: Setup) -> SnakepitPool:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from snakepit.telemetry.opentelemetry import instrument

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        instrument(tracer_provider=tracers, meter_provider=MeterProvider([InMemoryMetricReader()]))
        return await super().open(setup)
