"""The engine of a worker that runs one call at a time.

Sync commands run on the main thread, async ones on a loop of their own thread while the main thread
waits for them.

Reading is shared: whichever thread waits for the host reads for all of them, because while a
command runs no thread is free to do nothing but read. A command that waits for a host function
therefore receives the calls that this function makes back into the worker, and runs them on top of
itself.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
)
from typing import Any, Final, TypeVar

from snakepit.calls.windows import AsyncSendWindow
from snakepit.errors import ConfigurationError, HostCallCancelled, SnakepitError
from snakepit.loops.threads import call_in_thread, iterate_in_thread
from snakepit.telemetry import bus
from snakepit.wire.frames import FLAG_NESTED, FLAG_SEGMENTS, Frame, FrameType
from snakepit.wire.messages import read_call, read_credit
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
from snakepit.worker.command_events import observed
from snakepit.worker.context import CallContext, enter_call, leave_call, serve_with
from snakepit.worker.fatal import end_process
from snakepit.worker.loops import run_loop, running_loop
from snakepit.worker.outgoing import AsyncOutgoing, Outgoing, OutgoingCalls
from snakepit.worker.port import Port
from snakepit.worker.registry import Command, CommandKind
from snakepit.worker.running import Running
from snakepit.worker.streams import send_item

_T = TypeVar("_T")
# Used by nothing else by default, and ignored by processes that do not handle it.
_INTERRUPT_SIGNAL = signal.SIGURG
_END: Any = object()
# Reading an enumeration's member takes ten times as long as reading a name.
_CALL: Final = FrameType.CALL.value
_RESULT: Final = FrameType.RESULT.value
_START: Final = Turn.START
_SYNC: Final = CommandKind.SYNC
_ASYNC: Final = CommandKind.ASYNC


class Interrupted(BaseException):
    """Raised in a running command to break it off; no ordinary handler may catch it."""


class _Unbreakable:
    """Lets no signal break off what the main thread does in a ``with`` block."""

    __slots__ = ("_breakable", "_engine")

    def __init__(self, engine: SerialEngine) -> None:
        self._engine = engine
        self._breakable: Running | None = None

    def __enter__(self) -> None:
        engine = self._engine
        if engine.breakable is not None and threading.get_ident() == engine.main_thread:
            self._breakable, engine.breakable = engine.breakable, None

    def __exit__(self, *_: object) -> None:
        if self._breakable is not None:
            self._engine.breakable = self._breakable


class SerialEngine:
    """Runs the calls of one worker, one after the other, and the nested ones on top.

    ``on_listen`` handles a ``LISTEN``, before the calls that come after it are started.
    """

    worker_id = ""
    on_listen: Callable[[Frame], object] = bool

    def __init__(self, port: Port, commands: Mapping[str, Command]) -> None:
        self._port = port
        self._commands = commands
        self._incoming = IncomingCalls()
        self._backlog: deque[Frame] = deque()
        self._nested: deque[Frame] = deque()
        self._stack: list[Running] = []
        self._outgoing = OutgoingCalls(port)
        self._lock = threading.Lock()
        # Of those who wait for frames; its lock guards who reads and what was delivered.
        self._turn = threading.Condition(self._lock)
        self._reading = False
        self._waiting = 0
        self._shutdown = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.main_thread = threading.get_ident()
        # The call that a signal would break off; None while no user code runs on the main thread.
        self.breakable: Running | None = None
        # Whether code was broken off: then no further call starts here, and the host takes those
        # that wait elsewhere.
        self._suspect = False

    def serve(self) -> None:
        """Run calls until the host says ``SHUTDOWN``. Main thread."""
        serve_with(self)
        signal.signal(_INTERRUPT_SIGNAL, self._on_interrupt)
        while True:
            if self._backlog and not self._suspect:
                self._run(self._backlog.popleft())
            elif self._shutdown:
                break
            else:
                with self._lock:
                    self._read_or_wait()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def running_call(self) -> CallContext | None:
        """The call at the top of the stack: in this engine it is the only one that runs."""
        return self._stack[-1].context if self._stack else None

    # --- one call --------------------------------------------------------------------------

    def _run(self, frame: Frame) -> None:
        call_id = frame.call_id
        try:
            request = read_call(frame)
            command = select_command(self._commands, request)
        except SnakepitError as error:
            if self._begins(call_id, self._incoming.refuse(call_id)):
                self._port.send(error_frame(call_id, error))
            return
        running = Running(CallContext(self, call_id, request), command, request.credit)
        turn = self._incoming.start(call_id, self._stack.append, running)
        if turn is not _START and not self._begins(call_id, turn):
            return
        entered = enter_call(running.context)
        try:
            if bus.listening:
                reply = observed(running.context, self._reply_of, running, request.args)
            else:
                reply = self._reply_of(running, request.args)
        finally:
            self._stack.remove(running)
            leave_call(entered)
        if frame.flags & FLAG_SEGMENTS:
            # Before the answer: the next call finds the segments of this one's arguments free.
            request.args.clear()
            self._port.release()
        self._port.send(reply)

    def _begins(self, call_id: int, turn: Turn) -> bool:
        if turn is Turn.REFUSE:
            self._port.send(cancelled_frame(call_id, interrupted=False))
        return turn is Turn.START

    def _reply_of(self, running: Running, args: dict[str, Any]) -> bytes:
        """Run the command; return its final frame."""
        # Two layers: in CPython 3.11 an exception from a signal handler in a loop that is the first
        # statement of a `try` can skip the handlers of that `try`.
        try:
            try:
                reply = self._call(running, args)
            except (Interrupted, asyncio.CancelledError, HostCallCancelled):
                if not running.context.cancelled:
                    raise
                reply = self._stopped(running)
            except BaseException as error:
                # SystemExit and KeyboardInterrupt too: they end the call, not the worker.
                reply = raised_frame(running.context.call_id, error)
        except BaseException as error:
            if running.context.cancelled:
                reply = self._stopped(running)
            else:
                reply = raised_frame(running.context.call_id, error)
        # What the code made of the interruption does not count: it was broken off at an arbitrary
        # place, so the worker has to be replaced.
        if running.forced:
            self._suspect = True
            return self._stopped(running)
        return reply

    def _stopped(self, running: Running) -> bytes:
        return cancelled_frame(running.context.call_id, interrupted=running.forced)

    def _call(self, running: Running, args: dict[str, Any]) -> bytes:
        command = running.command
        if command.kind is _SYNC:
            result = self._call_sync(running, args)
        elif command.kind is _ASYNC:
            result = self._run_async(running, command.function(**args))
        else:
            return self._stream(running, command.function(**args))
        return result_frame(running.context.call_id, result, self._port.segments)

    def _call_sync(self, running: Running, args: dict[str, Any]) -> Any:
        command = running.command
        if not command.interruptible or threading.get_ident() != self.main_thread:
            return command.function(**args)
        outer, self.breakable = self.breakable, running
        try:
            if running.context.cancelled:
                raise Interrupted  # a cancellation up to here sent no signal
            return command.function(**args)
        finally:
            self.breakable = outer

    def _on_interrupt(self, *_: object) -> None:
        # A late signal must not hit the next call, so the handler looks whose turn it is.
        running = self.breakable
        if running is not None and running.context.cancelled:
            running.forced = True
            raise Interrupted

    # --- streams and async commands ---------------------------------------------------------

    def _stream(self, running: Running, generator: Any) -> bytes:
        window = running.window
        assert window is not None, "a call without credit does not reach a command that streams"
        if running.command.kind is CommandKind.SYNC_STREAM:
            return self._stream_sync(running, window, generator)
        return self._run_async(running, self._stream_async(running, window, generator))

    def _stream_sync(
        self, running: Running, window: AsyncSendWindow, generator: Generator[Any]
    ) -> bytes:
        call_id = running.context.call_id
        try:
            while (item := self._step(running, next, generator, _END)) is not _END:
                if not window.is_open:
                    self._wait_for(lambda: window.is_open or running.context.cancelled)
                if running.context.cancelled:
                    return cancelled_frame(call_id, interrupted=False)
                send_item(self._port, call_id, item, window)
        finally:
            self._step(running, generator.close)
        return end_frame(call_id)

    def _step(self, running: Running, function: Callable[..., _T], *args: Any) -> _T:
        """Run code of a generator, which may be broken off when the host insists."""
        if not running.command.interruptible or threading.get_ident() != self.main_thread:
            return function(*args)
        outer, self.breakable = self.breakable, running
        try:
            return function(*args)
        finally:
            self.breakable = outer

    async def _stream_async(
        self, running: Running, window: AsyncSendWindow, generator: AsyncGenerator[Any]
    ) -> bytes:
        call_id = running.context.call_id
        try:
            async for item in generator:
                await window.opened()
                send_item(self._port, call_id, item, window)
        finally:
            await generator.aclose()
        return end_frame(call_id)

    def _run_async(self, running: Running, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run ``coroutine`` on the loop thread, and meanwhile the calls nested in it here."""
        loop = self._async_loop()
        if running_loop() is loop:
            coroutine.close()
            raise ConfigurationError(
                "an async command was called from within a blocking call_host() of another one,"
                " which holds the event loop; use `await call.acall_host(...)` there"
            )
        running.on_loop = True
        loop.call_soon_threadsafe(self._start_task, running, coroutine)
        # Only the task's own end counts, not that it was told to stop: until then the call holds
        # its slot, and the host kills the worker when that takes too long.
        while True:
            self._wait_for(lambda: running.task_done() or bool(self._nested))
            if running.task is not None and running.task.done():
                result: _T = running.task.result()
                return result
            self._run(self._nested.popleft())

    def _start_task(self, running: Running, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Loop thread."""
        running.task = asyncio.get_running_loop().create_task(coroutine)
        running.task.add_done_callback(lambda _: self._poke())
        if running.context.cancelled:
            self._cancel_task(running)

    def _cancel_task(self, running: Running) -> None:
        """Loop thread. Cancel once: a second time would break off the task's cleaning up."""
        if running.task is not None and not running.task_cancelled:
            running.task_cancelled = True
            running.task.cancel()

    def _async_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=run_loop, args=(self._loop,), name="snakepit-loop", daemon=True
            ).start()
        return self._loop

    # --- reading ---------------------------------------------------------------------------

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Block until ``ready()``, reading for everybody when nobody else does."""
        # No signal may break this off half-way: what it waits for includes the cancellation.
        with _Unbreakable(self), self._turn:
            while not ready():
                self._read_or_wait()

    def _read_or_wait(self) -> None:
        """Have frames delivered: by this thread, or by the one that reads. Holds the lock."""
        if self._reading:
            self._waiting += 1
            try:
                self._turn.wait()
            finally:
                self._waiting -= 1
            return
        self._reading = True
        self._lock.release()
        try:
            try:
                frames = self._port.read()
            finally:
                self._lock.acquire()
                self._reading = False
            for frame in frames:
                if frame.type == _CALL:
                    self._deliver_call(frame)
                elif frame.type == _RESULT:
                    self._outgoing.deliver(frame)
                else:
                    self._deliver(frame)
        except SnakepitError as violation:
            # By the host. No call that waits here may take it for an error of its own.
            end_process(violation)
        if self._waiting:
            self._turn.notify_all()

    def _poke(self) -> None:
        """Have every waiting thread look again at what it waits for."""
        with self._turn:
            self._turn.notify_all()
        self._port.wake()

    def _deliver(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.CREDIT:
                self._grant(frame)
            case FrameType.SHUTDOWN:
                self._shutdown = True
            case FrameType.LISTEN:
                self.on_listen(frame)
            case _:
                self._outgoing.deliver(frame)

    def _deliver_call(self, frame: Frame) -> None:
        self._incoming.received(frame.call_id)
        parent = self._outgoing.parent_of(frame) if frame.flags & FLAG_NESTED else None
        if parent is None:
            self._backlog.append(frame)
        elif isinstance(parent, AsyncOutgoing):
            self._nested.append(frame)
        else:
            parent.inbox.append(frame)

    def _grant(self, frame: Frame) -> None:
        for running in self._stack:
            window = running.window
            if running.context.call_id == frame.call_id and window is not None:
                credit = read_credit(frame)
                if running.on_loop:
                    self._async_loop().call_soon_threadsafe(window.grant, credit)
                else:
                    window.grant(credit)

    # --- asked by the host (control thread) ---------------------------------------------------

    @property
    def tasks_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of async commands, once there is one."""
        return self._loop

    def cancel(self, call_id: int) -> None:
        """Stop a call, or see to it that it never starts."""
        # Behind a running call it may wait for long. Otherwise it is about to arrive; if it does
        # not, something is wrong with this worker, which must not be hidden by an answer.
        waits = bool(self._stack)
        if self._incoming.withdraw(call_id, Turn.DROP if waits else Turn.REFUSE):
            if waits:
                self._port.send(cancelled_frame(call_id, interrupted=False))
            return
        for running in tuple(self._stack):
            if running.context.call_id == call_id:
                # Leaving a stream early is normal use, and no reason to break off its code and lose
                # the worker, unless it has had time to come to its next item.
                by_force = running.context.cancelled or not running.command.streams
                running.context.cancelled = True
                if running.on_loop:
                    self._async_loop().call_soon_threadsafe(self._cancel_task, running)
                elif running is self.breakable and by_force:
                    signal.pthread_kill(self.main_thread, _INTERRUPT_SIGNAL)
                self._poke()

    def withdraw(self, call_id: int) -> bool:
        """See to it that a call never starts, without an answer; False if it has started."""
        return self._incoming.withdraw(call_id)

    # --- calling the host ----------------------------------------------------------------------

    def call_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        # Nor may it be broken off while it sends: the host answers what has been sent in part.
        with _Unbreakable(self), self._outgoing.open(Outgoing, context, name, args) as call:
            while not call.finished:
                self._next_reply(context, call)
        if context.cancelled:
            raise Interrupted  # a cancellation up to here sent no signal
        return call.value

    def call_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> Generator[Any]:
        with self._outgoing.open(Outgoing, context, name, args, stream=True) as call:
            while not call.finished:
                with _Unbreakable(self):
                    items = self._next_reply(context, call)
                yield from items
                call.consumed()

    def _next_reply(self, context: CallContext, call: Outgoing) -> list[Any]:
        """Handle the next frame for ``call``: a nested call is run, items are returned. The caller
        sees to it that nothing breaks this off.
        """
        with self._lock:
            while not call.inbox and not context.cancelled:
                self._read_or_wait()
        if context.cancelled:
            raise Interrupted
        frame = call.inbox.popleft()
        if frame.type == FrameType.CALL:
            self._run(frame)
            return []
        return call.take(frame)

    async def acall_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        if asyncio.get_running_loop() is not self._loop:
            # A loop that the command runs itself: nobody else reads while its thread waits in it.
            return await call_in_thread(self.call_host, context, name, args)
        with self._outgoing.open(AsyncOutgoing, context, name, args) as call:
            while not call.finished:
                call.take(await call.next_frame())
            return call.value

    async def acall_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        if asyncio.get_running_loop() is not self._loop:
            async for item in iterate_in_thread(self.call_host_stream(context, name, args)):
                yield item
            return
        with self._outgoing.open(AsyncOutgoing, context, name, args, stream=True) as call:
            while not call.finished:
                for item in await call.next_items():
                    yield item
                call.consumed()
