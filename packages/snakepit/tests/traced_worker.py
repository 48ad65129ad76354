"""The class that the tests of OpenTelemetry run in workers: it keeps the spans made there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import snakepit
from snakepit.telemetry.opentelemetry import instrument


class Worker:
    """Commands with spans of their own."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("shop")
        instrument(tracer_provider=provider)

    @snakepit.command
    def spans(self) -> list[dict[str, Any]]:
        """Those that have ended."""
        found = [
            {
                "name": span.name,
                "trace": span.context.trace_id.to_bytes(16, "big"),
                "id": span.context.span_id,
                "parent": span.parent.span_id if span.parent else None,
                "error": dict(span.attributes or {}).get("error.type"),
                "ok": span.status.is_ok,
            }
            for span in self.exporter.get_finished_spans()
        ]
        self.exporter.clear()
        return found

    @snakepit.command
    def ask(self, name: str) -> Any:
        with self.tracer.start_as_current_span("thinking"):
            return snakepit.current_call().call_host(name)

    @snakepit.command
    async def ask_async(self, name: str) -> Any:
        await asyncio.sleep(0)
        with self.tracer.start_as_current_span("thinking"):
            return await snakepit.current_call().acall_host(name)

    @snakepit.command
    def work(self) -> None:
        with self.tracer.start_as_current_span("working"):
            pass

    @snakepit.command
    def count(self, n: int) -> Iterator[int]:
        for number in range(n):
            with self.tracer.start_as_current_span("counting"):
                yield number

    @snakepit.command
    async def count_async(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            with self.tracer.start_as_current_span("counting"):
                yield number

    @snakepit.command
    def fail(self) -> None:
        raise KeyError("do not tell")

    @snakepit.command
    async def wait(self) -> None:
        await asyncio.Event().wait()

    @snakepit.command
    def die(self) -> None:
        os._exit(3)
