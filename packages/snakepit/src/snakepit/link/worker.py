"""The host's end of one worker process: its calls, its streams, its end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from snakepit._logs import steady_logger
from snakepit.calls import call_events
from snakepit.calls.call import Call, CallState
from snakepit.errors import (
    ProtocolError,
    SnakepitError,
    VersionMismatch,
    WorkerStartFailed,
    error_from_wire,
)
from snakepit.link.channels import HostEnds
from snakepit.link.connection import FrameConnection
from snakepit.link.control import ControlConnection
from snakepit.link.death import Death, Kill, ran_out_of_memory, spoils_its_worker
from snakepit.link.handshake import Hello, WorkerConfig, progress_of, read_hello, welcome_frame
from snakepit.link.host_calls import HostCalls, HostFunction
from snakepit.link.owner import WorkerEvents
from snakepit.link.pings import Pings
from snakepit.link.recalls import Recalls
from snakepit.link.remote_events import RemoteEvents
from snakepit.link.stacks import Stacks
from snakepit.processes.linux import count_oom_kills
from snakepit.processes.output import OutputTail
from snakepit.processes.stacks import StacksUnavailable
from snakepit.processes.tree import ExitReport, ProcessTree
from snakepit.telemetry import bus
from snakepit.wire.credit import WINDOW, Credit
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import (
    bare_frame,
    call_frame,
    credit_frame,
    items_size,
    read_items,
    read_mapping,
    read_value,
    value_frame,
)
from snakepit.worker.batches import Batch, read_batches
from snakepit.worker.target import advice_on

logger = steady_logger("snakepit.worker")
# Reading an enumeration's member takes ten times as long as reading a name.
_RESULT: Final = FrameType.RESULT.value
_SEVERAL: Final = object()


class WorkerProcess:
    """A worker process as its pool sees it. Belongs to one event loop."""

    def __init__(
        self,
        worker_id: str,
        ends: HostEnds,
        config: WorkerConfig,
        functions: Mapping[str, HostFunction],
    ) -> None:
        self.worker_id = worker_id
        self._config = config
        self.pid: int | None = None
        self.devices = config.devices
        self.commands: Mapping[str, Any] = {}
        #: Those of them that take batches.
        self.batches: Mapping[str, Batch] = {}
        self._loop = asyncio.get_running_loop()
        self._tree: ProcessTree | None = None
        self._events: WorkerEvents | None = None
        self._calls: dict[int, Call] = {}
        self._ids = itertools.count(1, 2)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        #: Done when the process has ended, and with it all its calls.
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._hello: Hello | None = None
        self._kill: Kill | None = None
        self._oom_kills = count_oom_kills()
        self._output = OutputTail(ends.output, f"worker {worker_id}")
        self._data = FrameConnection(ends.data, self._on_frame, self._on_closed)
        self._control = ControlConnection(ends.control, self._on_control_frame, self._on_closed)
        self._host_calls = HostCalls(functions, worker_id, self._data)
        channels = (self._control, self._data)
        self._remote_events = RemoteEvents(worker_id, self._calls, channels)
        self._pings = Pings(self._control)
        self._stacks = Stacks(self._control, config.concurrency)
        self._dying: asyncio.Task[None] | None = None
        # When it became free for the oldest call it has.
        self._free_at = 0.0
        self._recalls = Recalls()
        # Whose output it may have printed.
        self._session_id: object = None
        # Whether running code was broken off: it starts no call after that.
        self._suspect = False
        self._handlers: Mapping[int, Callable[[Frame], None]] = {
            FrameType.ERROR: self._on_error,
            FrameType.CANCELLED: self._on_cancelled,
            FrameType.END: self._on_end,
            FrameType.ITEM: self._on_items,
            FrameType.CALL: lambda frame: self._host_calls.start(frame, self._calls.get),
            FrameType.CREDIT: self._host_calls.grant,
            FrameType.CANCEL: lambda frame: self._host_calls.cancel(frame.call_id),
            FrameType.HELLO: self._on_hello,
            FrameType.READY: self._on_ready,
            FrameType.FAILED: self._on_failed,
        }

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.worker_id} pid={self.pid} calls={len(self._calls)}>"

    @property
    def queues(self) -> bool:
        """Whether calls may be sent to it beyond its concurrency, to wait there."""
        hello = self._hello
        return self._config.concurrency == 1 and hello is not None and hello.gives_back_calls

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    @property
    def wanted(self) -> int:
        """Calls that would be lost with the process: they may have started, and their callers wait.
        What it can't have started is called back at its end.
        """
        waited_for = sum(call.outcome is None for call in self._calls.values())
        return waited_for - len(self._unstarted())

    @property
    def shared_memory_bytes(self) -> int:
        """Shared memory that carries large buffers to and from the process."""
        return self._control.exchange.total_bytes

    # --- start and end -----------------------------------------------------------------------

    async def start(self, tree: ProcessTree, pid: int) -> None:
        """Take over the process ``pid``; return when it has said that it is ready.

        Raises:
            WorkerStartFailed: it died first, or its class raised; the cause or its output says why.
            VersionMismatch: it speaks no version that this host speaks.
        """
        self._tree = tree
        self.pid = pid
        tree.watch(pid).add_done_callback(lambda _: self._on_closed(None))
        try:
            await self._ready
        except asyncio.CancelledError as cut_off:
            cut_off.add_note(progress_of(self._hello, self._output.text()))
            raise

    def attach(self, events: WorkerEvents) -> None:
        """Report to ``events`` from now on.

        Raises:
            WorkerStartFailed: it died since it became ready.
        """
        if self._dying is not None:
            raise WorkerStartFailed(f"worker {self.worker_id} died as soon as it was ready")
        self._events = events
        self._data.wakeups = events.wakeups
        self._host_calls.pool = self._remote_events.pool = events.name
        self._host_calls.on_all_answered = partial(events.worker_answered, self.worker_id)
        self._control.exchange.label(events.name, self.worker_id)

    def kill(self, reason: str) -> None:
        """End the process and all it started; ``reason`` goes into the errors of its calls."""
        self._kill_as(Kill(reason))

    def kill_hung(self, reason: str, stacks: str) -> None:
        """As ``kill``; its calls fail with WorkerHung, which has the ``stacks``."""
        self._kill_as(Kill(reason, hung=True, stacks=stacks))

    def _kill_as(self, kill: Kill) -> None:
        self._kill = self._kill or kill
        if self._tree is not None and self.pid is not None:
            self._tree.kill(self.pid)

    async def stop(self, grace: float) -> None:
        """Let the process finish and exit; kill it after ``grace`` seconds."""
        self._kill = Kill("stopped")
        self._data.send(bare_frame(FrameType.SHUTDOWN))
        done, _ = await asyncio.wait([self.gone], timeout=grace)
        if not done:
            await self._end("stopped")

    async def _end(self, reason: str) -> None:
        """Kill the process and wait for its end."""
        self.kill(reason)
        # Not awaited itself: a cancelled waiter would cancel the future for everybody.
        await asyncio.wait([self.gone])

    async def discard(self) -> None:
        """Get rid of a worker that did not start, wherever it is in its start."""
        self._ready.cancel()
        self._on_closed(None)
        await self._end("did not start")

    def _on_closed(self, error: Exception | None) -> None:
        if self._dying is None:
            if self._events is not None:
                self._events.worker_dying(self.worker_id)
            if error is not None:
                logger.error("worker %s broke the protocol: %s", self.worker_id, error)
                self.kill(f"broke the protocol: {error}")
            self._dying = self._loop.create_task(self._die())

    async def _die(self) -> None:
        report = ExitReport()
        try:
            if self._tree is not None and self.pid is not None:
                report = await self._tree.end_of(self.pid, self.kill)
        finally:  # also when all tasks of the loop are cancelled: who waits for the end gets it
            self._data.drain()  # replies that were on their way when it died
            self._data.close()
            self._control.close()
            self._settle_all(report)
            self._output.close()

    def _settle_all(self, report: ExitReport) -> None:
        death = Death(
            worker_id=self.worker_id,
            pid=self.pid,
            report=report,
            kill=self._kill,
            phase="call" if self._calls else "idle",
            last_output=self._output.text(self._first_start()),
            oom_kills=count_oom_kills() - self._oom_kills,
        )
        self._host_calls.cancel_all()
        unstarted = self._unstarted()
        for call in unstarted:
            del self._calls[call.wire_id]
        if self._events is not None and self._calls and death.was_a_crash:
            self._events.calls_crashed(tuple(self._calls.values()), death.error())
        for call in tuple(self._calls.values()):
            error = death.error()
            error.retryable = call.idempotent
            call.lose(error)
            self._end_call(call)
        self._pings.cancel_all()
        self._stacks.end_all()
        lost = death.error()
        self._fail_start("died before it was ready", lost, lost.details)
        if not self.gone.done():
            self.gone.set_result(None)
        if self._events is not None:
            self._events.calls_recalled(self.worker_id, unstarted)
            self._events.worker_lost(self.worker_id, lost)

    def _first_start(self) -> float:
        """When the oldest call in flight started: what came before is another call's output."""
        starts = (call.started_at for call in self._calls.values() if call.started_at is not None)
        return min(starts, default=0.0)

    def _fail_start(
        self, what: str, cause: Exception, details: Mapping[str, Any], advice: str = ""
    ) -> None:
        if not self._ready.done():
            message = f"worker {self.worker_id} {what}: {cause}{advice}"
            failure = WorkerStartFailed(message, details=details)
            failure.__cause__ = cause
            self._ready.set_exception(failure)

    # --- calls -------------------------------------------------------------------------------

    def start_call(self, call: Call) -> None:
        """Send a call to the process.

        Raises:
            EncodeError, PayloadTooLarge: its arguments can't travel; nothing was sent.
        """
        timeout = call.deadline
        if timeout is not None:
            timeout -= time.monotonic()
        args = call.args
        if type(args) is not dict:
            args = dict(args)
        credit = None if call.stream is None else WINDOW
        if call.session_id != self._session_id:
            self._enter_session(call.session_id)
        wire_id = call.wire_id = next(self._ids)
        data = self._data
        fields = (call.command, args, timeout, call.session_id, call.parent_id, credit)
        trace = call.trace
        if trace is not None:
            self._remote_events.note_call(call)
        frame = call_frame(wire_id, fields, data.segments, trace)
        # To a busy worker there is no hurry: calls to it share a system call.
        send = data.send_soon if self._calls else data.send
        self._calls[wire_id] = call
        send(frame)

    def _enter_session(self, session_id: str | None) -> None:
        """What was printed for one session must not be told in errors of another one's calls."""
        if self._calls:  # both may print now, and who prints what can't be told
            self._session_id = _SEVERAL
        else:
            self._session_id = session_id
            self._output.forget()

    def _unstarted(self) -> list[Call]:
        """The calls it can't have started: it runs one after the other, and answers each."""
        if not self.queues:
            return []
        queued = [call for call in self._calls.values() if call.parent_id is None]
        behind = queued if self._suspect else queued[1:]
        return [call for call in behind if call.state is CallState.RUNNING]

    def recall(self, patience: float) -> bool:
        """Call back what has not started, if what runs has taken ``patience`` seconds; whether it
        has.
        """
        unstarted = self._unstarted()
        if not unstarted or self._recalls.pending or time.monotonic() - self._free_at < patience:
            return False
        self._control.send(self._recalls.recall(unstarted))
        return True

    def _on_recalled(self, frame: Frame) -> None:
        recalled = []
        for call in self._recalls.given_back(frame, self._calls):
            del self._calls[call.wire_id]
            if call.state is CallState.RUNNING:
                recalled.append(call)
            elif self._events is not None:
                self._events.call_ended(self.worker_id, call, interrupted=False)
        if self._events is not None:
            self._events.calls_recalled(self.worker_id, recalled)

    def poll(self) -> bool:
        """Handle what the process has sent, if anything; whether there was something."""
        found = self._data.poll()
        if found and self._control.exchange.total_bytes:
            # What the answer's call has released may serve the next one.
            self._control.poll()
        return found

    def stop_call(self, call: Call) -> None:
        """Ask the process to stop a call; a stream, asked again, is broken off. Its end is reported
        as of any other.
        """
        self._host_calls.cancel_children_of(call)
        self._control.send(value_frame(FrameType.CANCEL, call.wire_id, "no longer wanted"))

    def grant(self, call: Call, credit: Credit) -> None:
        """Let a stream's producer send that much more."""
        if call.wire_id in self._calls:
            self._data.send(credit_frame(call.wire_id, credit))

    def ping(self) -> asyncio.Future[None]:
        """Ask the process for an answer on its control channel; the future is done when it comes,
        and cancelled when the process dies."""
        return self._pings.send()

    async def dump_stacks(self, patience: float, *, silent: bool = False) -> str:
        """The Python stacks of all the process's threads, also while C code holds the
        interpreter's lock. Raises as :meth:`Stacks.dump`.
        """
        if self.pid is None or self._hello is None:
            raise StacksUnavailable(f"worker {self.worker_id} is not up")
        return await self._stacks.dump(self.pid, self._hello, patience, silent=silent)

    def _end_call(self, call: Call, *, interrupted: bool = False) -> None:
        if self._calls.pop(call.wire_id, None) is None:
            return
        now = time.monotonic()
        started_at = call.started_at or now
        free_at = self._free_at
        call.ran_s = now - (free_at if free_at > started_at else started_at)
        if call.parent_id is None:
            self._free_at = now
        if self._session_id is _SEVERAL and self.queues:
            self._output.forget()  # a call of another session may have waited behind it
        if self._host_calls.parents:
            self._host_calls.cancel_children_of(call)
        if self._events is not None:
            self._events.call_ended(self.worker_id, call, interrupted=interrupted)

    # --- frames ------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if frame.type != _RESULT:
            handler = self._handlers.get(frame.type)
            if handler is None:
                raise ProtocolError(f"a worker may not send a frame of type {frame.type}")
            handler(frame)
            return
        # Results are what most frames are: in place, and by a short way.
        call = self._calls.get(frame.call_id) or self._answered_call(frame)
        try:
            call.succeed(read_value(frame))
        except SnakepitError as error:
            call.fail(error)
        self._end_call(call)

    def _answered_call(self, frame: Frame) -> Call:
        call = self._calls.get(frame.call_id)
        if call is None:
            raise ProtocolError(f"an answer to call {frame.call_id}, which is not open")
        return call

    def _on_end(self, frame: Frame) -> None:
        call = self._answered_call(frame)
        call.succeed(None)
        self._end_call(call)

    def _on_error(self, frame: Frame) -> None:
        call = self._answered_call(frame)
        try:
            error = error_from_wire(read_mapping(frame))
        except SnakepitError as unreadable:
            error = unreadable
        call.fail(error)
        if bus.listening and self._events is not None and ran_out_of_memory(error):
            call_events.ran_out_of_memory(self._events.name, call)
        self._end_call(call, interrupted=spoils_its_worker(error))

    def _on_cancelled(self, frame: Frame) -> None:
        call = self._answered_call(frame)
        try:
            interrupted = bool(read_value(frame))
            error: SnakepitError = ProtocolError(
                "the worker cancelled a call that nobody told it to cancel"
            )
        except SnakepitError as unreadable:
            interrupted, error = False, unreadable
        self._suspect = self._suspect or interrupted
        call.fail(error)
        self._end_call(call, interrupted=self._suspect)

    def _on_items(self, frame: Frame) -> None:
        call = self._calls.get(frame.call_id)
        if call is None or call.stream is None:
            raise ProtocolError(f"stream items for call {frame.call_id}, which is no open stream")
        try:
            items, size = read_items(frame), items_size(frame)
            call.stream.push(items, size)
        except SnakepitError as error:
            call.fail(error)
            self.stop_call(call)
        else:
            if bus.listening and self._events is not None:
                call_events.items_arrived(self._events.name, call, len(items), size)

    def _on_hello(self, frame: Frame) -> None:
        if self._ready.done() or self._hello is not None:
            raise ProtocolError("a worker says HELLO once")
        try:
            self._hello = hello = read_hello(frame)
        except VersionMismatch as error:
            self._ready.set_exception(error)
            return
        if hello.shares_segments:
            self._data.share(self._control.exchange)
        listen = self._remote_events.open() if hello.tells_events else []
        self._data.send(welcome_frame(hello, self.worker_id, self._config, listen))

    def _on_ready(self, frame: Frame) -> None:
        self.commands = read_mapping(frame)
        self.batches = read_batches(self.commands)
        if not self._ready.done():
            self._ready.set_result(None)

    def _on_failed(self, frame: Frame) -> None:
        cause = error_from_wire(read_mapping(frame))
        details = {"worker_id": self.worker_id, "last_output": self._output.text()}
        advice = advice_on(cause, host_path=self._config.sys_path is not None)
        self._fail_start("could not create its object", cause, details, advice)

    def _on_control_frame(self, frame: Frame) -> None:
        if frame.type == FrameType.RECALLED:
            self._on_recalled(frame)
            return
        if frame.type == FrameType.EVENTS:
            self._remote_events.arrived(frame)
            return
        if frame.type == FrameType.STACKS:
            self._stacks.answered(frame)
            return
        if frame.type != FrameType.PONG:
            raise ProtocolError(f"a worker may not send a frame of type {frame.type} on control")
        self._pings.answered(frame)
