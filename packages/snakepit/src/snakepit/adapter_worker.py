"""Runs an adapter's coroutines as calls of a pool: one task a call."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from snakepit.adapter import Adapter, CallOptions
from snakepit.calls import STREAM_CREDIT, Call
from snakepit.errors import (
    SnakepitError,
    StreamingNotSupported,
    error_from_wire,
    error_to_wire,
)
from snakepit.link.worker import WorkerEvents


class AdapterWorker:
    """A worker of an adapter that has only ``execute``; satisfies DirectWorker."""

    def __init__(self, adapter: Adapter, worker: Any, worker_id: str) -> None:
        self.worker_id = worker_id
        self.pid: int | None = getattr(worker, "pid", None)
        self._adapter = adapter
        self._worker = worker
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._credit: dict[Call, asyncio.Semaphore] = {}
        self._events: WorkerEvents | None = None

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._tasks)

    @property
    def wanted(self) -> int:
        """Calls whose callers still wait."""
        return sum(call.outcome is None for call in self._tasks)

    def attach(self, events: WorkerEvents) -> None:
        self._events = events

    def start_call(self, call: Call) -> None:
        timeout = None if call.deadline is None else call.deadline - time.monotonic()
        options = CallOptions(session_id=call.session_id, timeout=timeout)
        work = self._execute(call, options) if call.stream is None else self._stream(call, options)
        task = self._tasks[call] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: self._ended(call, done))

    async def _execute(self, call: Call, options: CallOptions) -> None:
        call.succeed(await self._adapter.execute(self._worker, call.command, call.args, options))

    async def _stream(self, call: Call, options: CallOptions) -> None:
        execute_stream = getattr(self._adapter, "execute_stream", None)
        if execute_stream is None or call.stream is None:
            raise StreamingNotSupported(f"{type(self._adapter).__qualname__} has no execute_stream")
        credit = self._credit[call] = asyncio.Semaphore(STREAM_CREDIT)
        async for item in execute_stream(self._worker, call.command, call.args, options):
            await credit.acquire()
            call.stream.push([item])
        call.succeed(None)

    def _ended(self, call: Call, task: asyncio.Task[None]) -> None:
        del self._tasks[call]
        self._credit.pop(call, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            call.fail(_as_typed(error))
        if self._events is not None:
            self._events.call_ended(self.worker_id, call, interrupted=False)

    def stop_call(self, call: Call) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    def grant(self, call: Call, items: int) -> None:
        credit = self._credit.get(call)
        for _ in range(items if credit is not None else 0):
            credit.release()  # type: ignore[union-attr]

    def kill(self, reason: str) -> None:
        kill = getattr(self._worker, "kill", None)
        if kill is not None:
            kill()

    async def stop(self, grace: float) -> None:
        for task in tuple(self._tasks.values()):
            task.cancel()
        stop = getattr(self._worker, "stop", None)
        if stop is not None:
            await asyncio.wait_for(stop(), grace)


def _as_typed(error: BaseException) -> SnakepitError:
    if isinstance(error, SnakepitError):
        return error
    typed = error_from_wire(error_to_wire(error))
    typed.__cause__ = error
    return typed
