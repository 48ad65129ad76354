"""Runs an adapter's coroutines as calls of a pool: one task a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from snakepit._logs import steady_logger
from snakepit.adapters.adapter import Adapter, CallOptions
from snakepit.calls.call import Call
from snakepit.calls.nesting import enter_chain
from snakepit.calls.streams import StreamBuffer
from snakepit.calls.windows import AsyncSendWindow
from snakepit.errors import (
    Outcome,
    SnakepitError,
    StreamingNotSupported,
    WorkerLost,
    as_typed,
)
from snakepit.link.owner import WorkerEvents
from snakepit.wire.credit import WINDOW, Credit

logger = steady_logger("snakepit.worker")
# Cancelled code runs its `finally` blocks, so even an end at once takes a moment.
_LEAST_PATIENCE = 0.1


class AdapterWorker:
    """A worker of an adapter that has only ``execute``; satisfies DirectWorker."""

    def __init__(self, adapter: Adapter, worker: Any, worker_id: str) -> None:
        self.worker_id = worker_id
        self.pid: int | None = getattr(worker, "pid", None)
        self._adapter = adapter
        self._worker = worker
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._windows: dict[Call, AsyncSendWindow] = {}
        self._events: WorkerEvents | None = None
        self._gone = False

    @property
    def queues(self) -> bool:
        """It starts whatever it is given."""
        return False

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
        options = CallOptions(
            session_id=call.session_id, timeout=timeout, idempotency_key=call.idempotency_key
        )
        task = self._tasks[call] = asyncio.get_running_loop().create_task(self._run(call, options))
        # A task that is cancelled before its first step runs no code of its own.
        task.add_done_callback(lambda _: self._close(call))

    async def _run(self, call: Call, options: CallOptions) -> None:
        enter_chain(call.chain)
        try:
            if call.stream is None:
                call.succeed(await self._result(call, options))
            else:
                await self._run_stream(call, call.stream, options)
                call.succeed(None)
        except BaseException as error:
            call.fail(_as_typed(error))
            if not isinstance(error, Exception):
                raise
        finally:
            # In the same step as the answer: a caller's next call finds the slot free.
            self._close(call)

    async def _result(self, call: Call, options: CallOptions) -> Any:
        return await self._adapter.execute(self._worker, call.command, call.args, options)

    def _items(self, call: Call, options: CallOptions) -> AsyncIterator[Any]:
        execute_stream = getattr(self._adapter, "execute_stream", None)
        if execute_stream is None:
            raise StreamingNotSupported(f"{type(self._adapter).__qualname__} has no execute_stream")
        items: AsyncIterator[Any] = execute_stream(self._worker, call.command, call.args, options)
        return items

    async def _run_stream(self, call: Call, stream: StreamBuffer, options: CallOptions) -> None:
        window = self._windows[call] = AsyncSendWindow(WINDOW)
        items = self._items(call, options)
        try:
            async for item in items:
                await window.opened()
                # How large an item is nobody knows here: it stays in this process.
                window.spend(1, 0)
                stream.push([item], 0)
        finally:
            aclose = getattr(items, "aclose", None)
            if aclose is not None:
                await aclose()

    def _close(self, call: Call) -> None:
        """Report the end of a call, once; one that resisted has ended with its worker."""
        self._windows.pop(call, None)
        if self._tasks.pop(call, None) is not None and self._events is not None:
            self._events.call_ended(self.worker_id, call, interrupted=False)

    def stop_call(self, call: Call) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    def recall(self, patience: float) -> bool:
        """Nothing waits here."""
        return False

    def poll(self) -> bool:
        """Its answers come from tasks of the loop."""
        return False

    def grant(self, call: Call, credit: Credit) -> None:
        window = self._windows.get(call)
        if window is not None:
            window.grant(credit)

    def kill(self, reason: str) -> None:
        if self._gone:
            return
        kill = getattr(self._worker, "kill", None)
        if kill is not None:
            try:
                kill()
            except Exception:
                logger.exception("worker %s: its kill() failed", self.worker_id)
        self._end(reason)

    async def stop(self, grace: float) -> None:
        patience = max(grace, _LEAST_PATIENCE)
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        if await self._stop_in_order(patience):
            self._end("stopped")
        else:
            self.kill("stopped")

    async def _stop_in_order(self, patience: float) -> bool:
        stop = getattr(self._worker, "stop", None)
        if stop is None:
            return False
        try:
            await asyncio.wait_for(stop(), patience)
        except Exception:
            logger.warning("worker %s: its stop() failed", self.worker_id, exc_info=True)
            return False
        return True

    def _end(self, reason: str) -> None:
        """End with all calls, also those whose tasks resist their cancellation."""
        self._gone = True
        if self._events is None:
            return
        for call, task in tuple(self._tasks.items()):
            task.cancel()
            lost = self._lost_error(reason)
            lost.retryable = call.idempotent
            call.lose(lost)
            self._close(call)
        self._events.worker_lost(self.worker_id, self._lost_error(reason))

    def _lost_error(self, reason: str) -> WorkerLost:
        return WorkerLost.of(
            worker_id=self.worker_id,
            pid=self.pid,
            reason=f"killed: {reason}",
            phase="call" if self._tasks else "idle",
            outcome=Outcome.UNKNOWN,
        )


def _as_typed(error: BaseException) -> SnakepitError:
    if isinstance(error, asyncio.CancelledError) and not error.args:
        error = asyncio.CancelledError("the adapter's own code cancelled the call")
    return as_typed(error)
