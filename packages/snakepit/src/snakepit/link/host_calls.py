"""The functions of the host that worker code may call, and the serving of such calls."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any, Final

from snakepit.calls import call_events
from snakepit.calls.call import Call
from snakepit.calls.nesting import HostCall, enter_chain
from snakepit.calls.windows import AsyncSendWindow
from snakepit.errors import (
    ProtocolError,
    SnakepitError,
    StreamingNotSupported,
    UnknownCommand,
    error_to_wire,
    raised_to_wire,
)
from snakepit.link.connection import FrameConnection
from snakepit.link.items import ItemSender
from snakepit.loops.carriers import Carrier, Carriers
from snakepit.loops.threads import call_in_thread, iterate_in_thread
from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import (
    CallRequest,
    bare_frame,
    read_call,
    read_credit,
    value_frame,
)

HostFunction = Callable[..., Any]
# Reading an enumeration's member takes ten times as long as reading a name.
_RESULT: Final = FrameType.RESULT.value


class HostCalls:
    """Serves the calls of one worker, which come and are answered over ``connection``."""

    def __init__(
        self, functions: Mapping[str, HostFunction], worker_id: str, connection: FrameConnection
    ) -> None:
        #: The name of the worker's pool.
        self.pool = ""
        #: Called when none runs any more.
        self.on_all_answered: Callable[[], object] = bool
        self._functions = functions
        # Asking takes as long as finding the function.
        self._coroutine_functions = frozenset(
            name for name, each in functions.items() if inspect.iscoroutinefunction(each)
        )
        self._worker_id = worker_id
        self._connection = connection
        self._send = connection.send
        self._last_id = 0
        self._carriers = Carriers()
        self._running: dict[int, Carrier] = {}
        #: Whose commands make them.
        self.parents: dict[int, Call] = {}
        self._windows: dict[int, AsyncSendWindow] = {}
        self._items = ItemSender(connection)

    def start(self, frame: Frame, parent_of: Callable[[int], Call | None]) -> None:
        """Serve a ``CALL`` frame as soon as what came with it has been handled.

        Raises:
            ProtocolError: its id is not even, or does not ascend.
        """
        call_id = frame.call_id
        if call_id % 2 or call_id <= self._last_id:
            raise ProtocolError(f"the worker's call id {call_id} is not even and ascending")
        self._last_id = call_id
        try:
            request = read_call(frame)
            command = request.command
            function = self._functions.get(command) or find_function(self._functions, command)
        except SnakepitError as error:
            self._send_error(call_id, error)
            return
        parent = None if request.parent is None else parent_of(request.parent)
        if parent is None:
            # The command it is made for has ended, or its caller no longer wants it.
            self._send(value_frame(FrameType.CANCELLED, call_id, False))
            return
        call = HostCall(call_id, command, self._worker_id, parent, request.trace)
        if request.credit is not None:
            self._windows[call_id] = AsyncSendWindow(request.credit)
        self.parents[call_id] = parent
        self._running[call_id] = self._carriers.start(
            self._serve(call, function, request),
            partial(self._forget, call_id),
            self._connection.wakeups,
        )

    def _forget(self, call_id: int) -> None:
        del self._running[call_id], self.parents[call_id]
        if self._windows:
            self._windows.pop(call_id, None)
        if not self._running:
            self.on_all_answered()

    def grant(self, frame: Frame) -> None:
        """Handle a ``CREDIT`` frame."""
        credit = read_credit(frame)
        window = self._windows.get(frame.call_id)
        if window is not None:
            window.grant(credit)

    def cancel(self, call_id: int) -> None:
        """Handle a ``CANCEL`` frame."""
        carrier = self._running.get(call_id)
        if carrier is not None:
            carrier.stop()

    def cancel_children_of(self, parent: Call) -> None:
        """Stop the host calls of a command that has ended or is no longer wanted."""
        for call_id, owner in tuple(self.parents.items()):
            if owner is parent:
                self._running[call_id].stop()

    def cancel_all(self) -> None:
        """Stop all; the worker is gone."""
        for carrier in tuple(self._running.values()):
            carrier.stop()
        self._carriers.close()

    async def _serve(self, call: HostCall, function: HostFunction, request: CallRequest) -> None:
        enter_chain((*call.parent.chain, call))
        failure: Mapping[str, str] | None = None
        started_at = call_events.host_call_started(self.pool, call) if bus.listening else 0.0
        try:
            if request.credit is not None:
                await self._serve_stream(call, function, request)
                return
            if call.command in self._coroutine_functions:
                result = await function(call, **request.args)
            else:
                result = await call_function(function, call, request.args)
            self._send(value_frame(_RESULT, call.call_id, result, self._connection.segments))
        except asyncio.CancelledError as error:
            if bus.listening:
                failure = error_labels(error)
            self._send(value_frame(FrameType.CANCELLED, call.call_id, False))
        except BaseException as error:
            if bus.listening:
                failure = error_labels(error)
            # Whatever it is, the worker waits for an answer.
            self._send(value_frame(FrameType.ERROR, call.call_id, raised_to_wire(error)))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            call.ended = True
            if bus.listening:
                call_events.host_call_ended(self.pool, call, started_at, failure)

    async def _serve_stream(
        self, call: HostCall, function: HostFunction, request: CallRequest
    ) -> None:
        window = self._windows[call.call_id]
        items = iterate_function(function, call, request.args)
        try:
            async for item in items:
                await window.opened()
                self._items.send(call.call_id, item, window)
        finally:
            try:
                await items.aclose()
            finally:
                self._items.flush()  # what ends the stream comes after its items
        self._send(bare_frame(FrameType.END, call.call_id))

    def _send_error(self, call_id: int, error: BaseException) -> None:
        self._send(value_frame(FrameType.ERROR, call_id, error_to_wire(error)))


def find_function(functions: Mapping[str, HostFunction], name: str) -> HostFunction:
    """The host function that a worker asks for.

    Raises:
        UnknownCommand: there is none of that name.
    """
    function = functions.get(name)
    if function is None:
        raise UnknownCommand.of(name, functions)
    return function


async def call_function(function: HostFunction, call: HostCall, args: Mapping[str, Any]) -> Any:
    """Run a host function; a sync one in a thread.

    Raises:
        StreamingNotSupported: it yields items.
    """
    if inspect.iscoroutinefunction(function):
        return await function(call, **args)
    if _streams(function):
        raise StreamingNotSupported(f"the host function {call.command!r} is called as a stream")
    result = await call_in_thread(function, call, **args)
    # A callable may only look like a blocking one.
    return await result if inspect.isawaitable(result) else result


def iterate_function(
    function: HostFunction, call: HostCall, args: Mapping[str, Any]
) -> AsyncGenerator[Any]:
    """The items of a host function; those of a sync one are made in a thread.

    Raises:
        StreamingNotSupported: it returns one value.
    """
    if not _streams(function):
        raise StreamingNotSupported(f"the host function {call.command!r} returns one value")
    stream: Any = function(call, **args)
    return stream if hasattr(stream, "__aiter__") else iterate_in_thread(stream)


def _streams(function: HostFunction) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
