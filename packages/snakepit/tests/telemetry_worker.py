"""The class that the tests of telemetry run in workers."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import snakepit
from snakepit import telemetry
from snakepit.telemetry.logs import CorrelationFilter

NAN = float("nan")


class Worker:
    """Commands that tell events, and show what they are told."""

    def __init__(self, told_at_birth: int = 0) -> None:
        for number in range(told_at_birth):
            telemetry.execute("shop.born", {"number": number})
        self.told: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.logged = io.StringIO()
        handler = logging.StreamHandler(self.logged)
        handler.addFilter(CorrelationFilter())
        handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
        logging.getLogger("shop").addHandler(handler)

    @snakepit.command
    def tell(self, name: str, measurements: Any = None, metadata: Any = None) -> str:
        telemetry.execute(name, measurements or {}, metadata or {})
        return snakepit.current_call().correlation_id

    @snakepit.command
    async def tell_async(self, name: str) -> str:
        await asyncio.sleep(0)
        telemetry.execute(name)
        return snakepit.current_call().correlation_id

    @snakepit.command
    def tell_many(self, count: int, padding: int = 0) -> None:
        for number in range(count):
            telemetry.execute("shop.order", {"number": number}, {"padding": "x" * padding})

    @snakepit.command
    def tell_in_threads(self, threads: int, count: int) -> None:
        def work(thread: int) -> None:
            for number in range(count):
                telemetry.execute("shop.order", {"number": number}, {"thread": thread})

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    @snakepit.command
    def tell_later(self, gate: str) -> None:
        """From a thread that goes on when the call has ended."""
        from snakepit.testing import pass_gate

        def work() -> None:
            pass_gate(gate)
            telemetry.execute("shop.late")

        threading.Thread(target=work, daemon=True).start()

    @snakepit.command
    def spin(self) -> None:
        while True:
            pass

    @snakepit.command
    def tell_what_can_not_travel(self) -> str:
        telemetry.execute("shop.order", {}, {"client": object()})
        telemetry.execute("shop.order", {}, {"text": "x" * 1025})
        telemetry.execute("shop.order", {str(number): number for number in range(33)})
        telemetry.execute("shop.order", {"items": "three"})  # type: ignore[dict-item]
        telemetry.execute("shop.order", {"items": 3, "ratio": NAN}, {"paid": True, "to": None})
        return snakepit.current_call().correlation_id

    @snakepit.command
    def span(self, fail: bool) -> None:
        with telemetry.span("shop.delivery", {"kind": "book"}) as metadata:
            metadata["parcels"] = 2
            if fail:
                raise ValueError("do not tell")

    @snakepit.command
    def listens(self) -> bool:
        from snakepit.telemetry import bus

        return bus.listening

    @snakepit.command
    def context(self) -> dict[str, Any]:
        call = snakepit.current_call()
        return {
            "correlation_id": call.correlation_id,
            "trace": dict(call.trace_context),
            "call_id": call.call_id,
            "worker_id": call.worker_id,
        }

    @snakepit.command
    async def async_context(self) -> dict[str, Any]:
        return self.context()

    @snakepit.command
    def context_stream(self) -> Iterator[dict[str, Any]]:
        yield self.context()

    @snakepit.command
    async def async_context_stream(self) -> AsyncIterator[dict[str, Any]]:
        yield self.context()

    @snakepit.command
    def call_host(self, name: str, traceparent: str | None = None) -> Any:
        if traceparent is not None:
            telemetry.set_trace_source(lambda _: {"traceparent": traceparent})
        try:
            return snakepit.current_call().call_host(name)
        finally:
            telemetry.set_trace_source(None)

    @snakepit.command
    def log(self, text: str) -> str:
        logging.getLogger("shop").warning(text)
        return self.logged.getvalue()

    @snakepit.command
    def listen_here(self, pattern: str) -> None:
        def record(name: str, measurements: Any, metadata: Any) -> None:
            self.told.append((name, dict(measurements), {**metadata, "trace_context": {}}))

        telemetry.attach(pattern, record)

    @snakepit.command
    def told_here(self) -> list[Any]:
        return list(self.told)

    @snakepit.command
    def fail(self, message: str) -> None:
        raise KeyError(message)

    @snakepit.command
    async def wait_for_ever(self, started: str) -> None:
        Path(started).touch()  # noqa: ASYNC240 - the test waits for it
        await asyncio.Event().wait()

    @snakepit.command
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)
