"""A worker in the host's own process: the commands and the contract of one, not its isolation."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from snakepit._logs import steady_logger
from snakepit.adapters.adapter import Adapter, CallOptions, WorkerSpec
from snakepit.adapters.adapter_worker import AdapterWorker
from snakepit.calls.call import Call
from snakepit.errors import WorkerStartFailed
from snakepit.inline.calls import InlineHostCalls, Work
from snakepit.inline.values import travelled, travelled_error, travelled_result
from snakepit.loops.threads import Ended, WorkThread, ended_in_thread, start_thread
from snakepit.telemetry.trace import CORRELATION_ID
from snakepit.wire.credit import WINDOW
from snakepit.wire.messages import CallRequest
from snakepit.worker.batches import read_batches
from snakepit.worker.calls import select_command
from snakepit.worker.context import CallContext, enter_call
from snakepit.worker.registry import Command, CommandKind, commands_of, described
from snakepit.worker.target import load_target

logger = steady_logger("snakepit.worker")
_END: Final[Any] = object()


class InlineWorker(AdapterWorker):
    """Runs the commands of one object of a class: async ones in the host's event loop, sync ones in
    a thread of its own (or, with a concurrency above 1, in one for each call).
    """

    def __init__(self, adapter: Adapter, spec: WorkerSpec) -> None:
        super().__init__(adapter, None, spec.worker_id)
        self._host_calls = InlineHostCalls(spec.host_functions, spec.pool, spec.worker_id)
        # Where all sync code of the worker runs, its constructor included: what belongs to one
        # thread, such as a connection to SQLite, can be used as in a process.
        self._thread = WorkThread(spec.worker_id) if spec.concurrency == 1 else None
        self._ids = itertools.count(1, 2)
        self._contexts: dict[Call, CallContext] = {}
        self._ended: set[asyncio.Future[Ended]] = set()
        self._instance: Any = None
        self._commands: Mapping[str, Command] = {}
        self.batches = read_batches({})

    async def start(self, target: str, config: Mapping[str, Any]) -> None:
        """Construct the object.

        Raises:
            WorkerStartFailed: that raised; its cause says what.
        """

        def construct() -> Any:
            instance = load_target(target)(**config)
            return instance, commands_of(instance)

        built = error = None
        try:
            built, error = await ended_in_thread(self._put, construct)
        finally:
            if built is None:
                self._end_thread()
        if error is not None:
            cause = travelled_error(error)
            raise WorkerStartFailed(
                f"worker {self.worker_id} could not create its object: {cause}",
                details={"worker_id": self.worker_id},
            ) from cause
        self._instance, self._commands = built
        self.batches = read_batches(described(self._commands))

    # --- one call ----------------------------------------------------------------------------

    async def _result(self, call: Call, options: CallOptions) -> Any:
        command, args = self._begin(call, options)
        try:
            if command.kind is CommandKind.SYNC:
                return await self._in_thread(call, _run, command, args)
            return travelled_result(await command.function(**args))
        except BaseException as error:
            typed = self._as_told(call, error)
            raise typed from typed.__cause__
        finally:
            self._finish(call)

    async def _items(self, call: Call, options: CallOptions) -> AsyncIterator[Any]:
        command, args = self._begin(call, options)
        try:
            items = command.function(**args)
            if command.kind is CommandKind.SYNC_STREAM:
                items = self._steps(call, items)
            try:
                async for item in items:
                    yield travelled("item", item)
            finally:
                await items.aclose()
        except GeneratorExit:
            raise
        except BaseException as error:
            typed = self._as_told(call, error)
            raise typed from typed.__cause__
        finally:
            self._finish(call)

    async def _steps(self, call: Call, generator: Any) -> AsyncIterator[Any]:
        """The items of a sync generator, each made in the worker's thread."""
        try:
            while (item := await self._in_thread(call, next, generator, _END)) is not _END:
                yield item
        finally:
            if not self._gone:
                await self._in_thread(call, generator.close)

    def _begin(self, call: Call, options: CallOptions) -> tuple[Command, dict[str, Any]]:
        request = CallRequest(
            command=call.command,
            args=travelled("args", dict(call.args)),
            timeout=options.timeout,
            session=call.session_id,
            parent=call.parent_id,
            credit=None if call.stream is None else WINDOW,
            trace={CORRELATION_ID: call.correlation_id, **(call.trace or {})},
        )
        command = select_command(self._commands, request)
        context = self._contexts[call] = CallContext(self._host_calls, next(self._ids), request)
        self._host_calls.begin(context, call)
        enter_call(context)  # of the call's own task
        return command, request.args

    def _finish(self, call: Call) -> None:
        context = self._contexts.pop(call, None)
        if context is not None:
            self._host_calls.end(context)

    def _as_told(self, call: Call, error: BaseException) -> BaseException:
        """What a call ends with whose code let ``error`` through."""
        cancelled = self._contexts[call].cancelled or self._gone
        if isinstance(error, asyncio.CancelledError) and cancelled:
            return error
        return travelled_error(error)

    # --- threads -----------------------------------------------------------------------------

    def _put(self, work: Work) -> None:
        if self._thread is None:
            start_thread(work)
        else:
            self._thread.put(work)

    async def _in_thread(self, call: Call, function: Callable[..., Any], *args: Any) -> Any:
        """Run sync code of a call. A cancellation is passed on only when the code has ended."""
        inbox = self._host_calls.inbox_of(call.parent_id)
        # The thread that waits for a host function runs what that function asks of the worker.
        put = self._put if self._thread is None or inbox is None else inbox.put
        result, error = await self._end_of(ended_in_thread(put, function, *args))
        if error is not None:
            raise error
        return result

    async def _end_of(self, ended: asyncio.Future[Ended]) -> Ended:
        cancelled: asyncio.CancelledError | None = None
        self._ended.add(ended)
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:
                # The slot is taken as long as the thread runs; its code can see `cancelled`.
                cancelled = error
        self._ended.discard(ended)
        if cancelled is not None:
            raise cancelled
        return ended.result()

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.end()

    # --- stopping ----------------------------------------------------------------------------

    def stop_call(self, call: Call) -> None:
        context = self._contexts.get(call)
        if context is None:
            super().stop_call(call)
        elif not context.cancelled:  # cancelled twice, a task's cleaning up would be broken off
            context.cancelled = True
            self._host_calls.end(context)
            super().stop_call(call)

    async def _stop_in_order(self, patience: float) -> bool:
        close = getattr(self._instance, "close", None)
        if close is not None:
            try:
                _, error = await asyncio.wait_for(ended_in_thread(self._put, close), patience)
            except TimeoutError:
                logger.warning("worker %s: its close() does not end", self.worker_id)
                return False
            if error is not None:
                logger.warning("worker %s: its close() failed", self.worker_id, exc_info=error)
        return True

    def _end(self, reason: str) -> None:
        super()._end(reason)
        for ended in tuple(self._ended):
            ended.cancel()  # nobody waits any more for code that does not end
        self._end_thread()


def _run(command: Command, args: Mapping[str, Any]) -> Any:
    return travelled_result(command.function(**args))
