"""The engine of a worker that runs many calls at a time.

Async commands are tasks of a loop on the main thread, which also reads; sync commands run in
threads. How many run at once is the host's decision: it sends no more than it was told the worker
takes.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final, TypeVar

from snakepit.calls.windows import AsyncSendWindow, ThreadSendWindow
from snakepit.errors import ConfigurationError, HostCallCancelled, SnakepitError
from snakepit.telemetry import bus
from snakepit.wire.credit import NO_CREDIT
from snakepit.wire.frames import FLAG_SEGMENTS, Frame, FrameType
from snakepit.wire.messages import CallRequest, read_call, read_credit
from snakepit.worker import command_events
from snakepit.worker.calls import (
    IncomingCalls,
    Turn,
    cancelled_frame,
    end_frame,
    error_frame,
    raised_frame,
    result_frame,
    select_command,
)
from snakepit.worker.context import CallContext, enter_call, leave_call
from snakepit.worker.fatal import end_process_if_failed, end_process_if_it_raises
from snakepit.worker.outgoing import AsyncOutgoing, OutgoingCalls
from snakepit.worker.port import Port
from snakepit.worker.registry import Command, CommandKind
from snakepit.worker.streams import send_item

_T = TypeVar("_T")
# Calls nested in one another each hold a thread while they wait, so there have to be more threads
# than slots.
_NESTING_RESERVE = 32
# Reading an enumeration's member takes ten times as long as reading a name.
_CALL: Final = FrameType.CALL.value
_START: Final = Turn.START
_ASYNC: Final = CommandKind.ASYNC


class _Running:
    """A call that has started."""

    __slots__ = ("context", "started", "task", "thread_waits", "window")

    def __init__(self, context: CallContext) -> None:
        self.context = context
        # A stream's.
        self.window: AsyncSendWindow | ThreadSendWindow | None = None
        self.task: asyncio.Task[None] | None = None
        # A task that is cancelled before its first step would answer nothing.
        self.started = False
        # What the call's thread is waiting for on the loop.
        self.thread_waits: set[Future[Any]] = set()


class ConcurrentEngine:
    """Runs the calls of one worker side by side.

    ``on_listen`` handles a ``LISTEN``, before the calls that come after it are started.
    """

    worker_id = ""
    tasks_loop: asyncio.AbstractEventLoop | None = None
    on_listen: Callable[[Frame], object] = bool

    def __init__(self, port: Port, commands: Mapping[str, Command], concurrency: int) -> None:
        self._port = port
        self._commands = commands
        self._incoming = IncomingCalls()
        self._outgoing = OutgoingCalls(port)
        self._running: dict[int, _Running] = {}
        self._threads = ThreadPoolExecutor(concurrency * _NESTING_RESERVE, "snakepit-call")
        self._stopping: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = threading.get_ident()

    def serve(self) -> None:
        """Run calls until the host says ``SHUTDOWN``. Main thread."""
        asyncio.run(self._serve())

    def running_call(self) -> CallContext | None:
        """Which of many calls a foreign thread works for can't be told."""
        return None

    async def _serve(self) -> None:
        self._loop = self.tasks_loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._loop.add_reader(self._port.fileno(), end_process_if_it_raises(self._read))
        await self._stopping.wait()
        tasks = [running.task for running in self._running.values() if running.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- frames ----------------------------------------------------------------------------

    def _read(self) -> None:
        for frame in self._port.read_available():
            if frame.type == _CALL:
                self._incoming.received(frame.call_id)
                self._start(frame)
            else:
                self._deliver(frame)

    def _deliver(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.CREDIT:
                self._grant(frame)
            case FrameType.SHUTDOWN:
                self._stopping.set()
            case FrameType.LISTEN:
                self.on_listen(frame)
            case _:
                self._outgoing.deliver(frame)

    def _grant(self, frame: Frame) -> None:
        running = self._running.get(frame.call_id)
        if running is not None and running.window is not None:
            running.window.grant(read_credit(frame))

    def _start(self, frame: Frame) -> None:
        call_id = frame.call_id
        try:
            request = read_call(frame)
            command = select_command(self._commands, request)
        except SnakepitError as error:
            if self._begins(call_id, self._incoming.refuse(call_id)):
                self._port.send(error_frame(call_id, error))
            return
        running = _Running(CallContext(self, call_id, request))
        turn = self._incoming.start(call_id, self._register, running)
        if turn is not _START and not self._begins(call_id, turn):
            return
        run = self._run(running, command, request, bool(frame.flags & FLAG_SEGMENTS))
        running.task = self._loop.create_task(run)
        running.task.add_done_callback(end_process_if_failed)

    def _register(self, running: _Running) -> None:
        self._running[running.context.call_id] = running

    def _begins(self, call_id: int, turn: Turn) -> bool:
        if turn is Turn.REFUSE:
            self._port.send(cancelled_frame(call_id, interrupted=False))
        return turn is Turn.START

    async def _run(
        self, running: _Running, command: Command, request: CallRequest, in_segments: bool
    ) -> None:
        call_id = running.context.call_id
        running.started = True
        token = enter_call(running.context)
        began_at = command_events.started(running.context) if bus.listening else 0.0
        try:
            if running.context.cancelled:
                raise asyncio.CancelledError
            reply = await self._call(running, command, request)
        except (asyncio.CancelledError, HostCallCancelled) as error:
            if running.context.cancelled:
                reply = cancelled_frame(call_id, interrupted=False)
            else:
                reply = raised_frame(call_id, error)
        except BaseException as error:
            reply = raised_frame(call_id, error)
        finally:
            leave_call(token)
            del self._running[call_id]
        if began_at:
            command_events.ended(running.context, reply, began_at)
        if in_segments:
            # Before the answer: the next call finds the segments of this one's arguments free.
            request.args.clear()
            self._port.release()
        self._port.send(reply)

    async def _call(self, running: _Running, command: Command, request: CallRequest) -> bytes:
        call_id = running.context.call_id
        function, args = command.function, request.args
        if command.kind is _ASYNC:
            result = await function(**args)
            return result_frame(call_id, result, self._port.segments)
        if command.kind is CommandKind.SYNC:
            result = await self._in_thread(lambda: function(**args))
            return result_frame(call_id, result, self._port.segments)
        credit = request.credit or NO_CREDIT
        if command.kind is CommandKind.ASYNC_STREAM:
            window = running.window = AsyncSendWindow(credit)
            return await self._stream_async(call_id, window, function(**args))
        ahead = running.window = ThreadSendWindow(credit)
        generator = function(**args)
        return await self._in_thread(lambda: self._stream_sync(call_id, ahead, generator))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in a thread; a cancellation is passed on only when the thread has ended."""
        context = contextvars.copy_context()
        future = self._loop.run_in_executor(
            self._threads, lambda: context.run(_without_stop_iteration, work)
        )
        while True:
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                # The slot is taken as long as the thread runs; the code can see `cancelled`.
                if future.done():
                    raise

    # --- streams ---------------------------------------------------------------------------

    async def _stream_async(
        self, call_id: int, window: AsyncSendWindow, generator: AsyncGenerator[Any]
    ) -> bytes:
        try:
            async for item in generator:
                await window.opened()
                send_item(self._port, call_id, item, window)
        finally:
            await generator.aclose()
        return end_frame(call_id)

    def _stream_sync(
        self, call_id: int, window: ThreadSendWindow, generator: Generator[Any]
    ) -> bytes:
        try:
            for item in generator:
                if not window.wait():
                    return cancelled_frame(call_id, interrupted=False)
                send_item(self._port, call_id, item, window)
        finally:
            generator.close()
        return end_frame(call_id)

    # --- cancelling (control thread) --------------------------------------------------------

    def cancel(self, call_id: int) -> None:
        """Stop a call, or see to it that it never starts."""
        if not self._incoming.withdraw(call_id, Turn.REFUSE):
            self._loop.call_soon_threadsafe(self._cancel_running, call_id)

    def withdraw(self, call_id: int) -> bool:
        """See to it that a call never starts, without an answer; False if it has started."""
        return self._incoming.withdraw(call_id)

    def _cancel_running(self, call_id: int) -> None:
        running = self._running.get(call_id)
        if running is None or running.task is None or running.context.cancelled:
            return  # cancelled twice, a task's cleaning up would be broken off
        running.context.cancelled = True
        if isinstance(running.window, ThreadSendWindow):
            running.window.end()
        if running.started:
            running.task.cancel()
        for wait in tuple(running.thread_waits):
            wait.cancel()

    # --- calling the host -------------------------------------------------------------------

    def call_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        return self._from_thread(context, self.acall_host(context, name, args))

    def call_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> Iterator[Any]:
        # All that has come at a time: for each turn the thread and the loop wait for one another.
        # When this is left early, asyncio closes what it leaves.
        batches = self._host_items(context, name, args)
        while items := self._from_thread(context, _next_or_none(batches)):
            yield from items

    def _from_thread(self, context: CallContext, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run ``coroutine`` on the loop and wait for it in this thread."""
        if threading.get_ident() == self._loop_thread:
            coroutine.close()
            raise ConfigurationError(
                "call_host() would block the event loop that all async commands share;"
                " await acall_host(), or iterate over acall_host_stream(), instead"
            )
        running = self._running.get(context.call_id)
        if running is None:
            coroutine.close()
            raise HostCallCancelled("the call that this thread was started for has ended")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        running.thread_waits.add(future)
        try:
            if context.cancelled:
                future.cancel()
            return future.result()
        except FutureCancelled as error:
            raise HostCallCancelled("this call is no longer wanted; end it") from error
        finally:
            running.thread_waits.discard(future)

    async def acall_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        with self._outgoing.open(AsyncOutgoing, context, name, args) as call:
            while not call.finished:
                call.take(await call.next_frame())
            return call.value

    async def acall_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        async with aclosing(self._host_items(context, name, args)) as batches:
            async for items in batches:
                for item in items:
                    yield item

    async def _host_items(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> AsyncGenerator[list[Any]]:
        with self._outgoing.open(AsyncOutgoing, context, name, args, stream=True) as call:
            while items := await call.next_items():
                yield items
                call.consumed()


async def _next_or_none(batches: AsyncGenerator[list[Any]]) -> list[Any]:
    return await anext(batches, [])


def _without_stop_iteration(work: Callable[[], _T]) -> _T:
    """The result of ``work``, which runs in a thread that a task waits for.

    Raises:
        RuntimeError: it raised StopIteration. An asyncio future takes none, so that whoever waits
            for it would wait for ever.
    """
    try:
        return work()
    except StopIteration as error:
        raise RuntimeError(f"the code raised StopIteration({error.value!r})") from error
