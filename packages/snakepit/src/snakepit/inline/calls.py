"""The calls that commands in the host's own process make to functions of the host."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
)
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

from snakepit.calls import call_events
from snakepit.calls.call import Call
from snakepit.calls.nesting import HostCall, enter_chain
from snakepit.errors import ConfigurationError, HostCallCancelled
from snakepit.inline.values import travelled, travelled_error
from snakepit.link.host_calls import (
    HostFunction,
    call_function,
    find_function,
    iterate_function,
)
from snakepit.loops.threads import iterate_in_thread
from snakepit.telemetry import bus
from snakepit.worker.context import CallContext

_T = TypeVar("_T")
_END: Any = object()
Work = Callable[[], None]


class InlineHostCalls:
    """Serves them in the event loop; satisfies HostCaller.

    A thread that waits for a host function runs the calls which that function makes back into the
    worker, as a worker process does.
    """

    def __init__(self, functions: Mapping[str, HostFunction], pool: str, worker_id: str) -> None:
        self.worker_id = worker_id
        self._functions = functions
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(2, 2)
        # The calls that run in this worker, by their contexts' ids.
        self._parents: dict[int, Call] = {}
        self._running: dict[Call, set[Future[Any] | asyncio.Future[Any]]] = {}
        # Of the threads that wait, by what they wait for.
        self._inboxes: dict[int, SimpleQueue[Work | None]] = {}

    def begin(self, context: CallContext, parent: Call) -> None:
        """A call starts that may call the host."""
        self._parents[context.call_id] = parent
        self._running[parent] = set()

    def end(self, context: CallContext) -> None:
        """A call has ended, or is no longer wanted: so is what it asked of the host."""
        parent = self._parents.pop(context.call_id, None)
        if parent is not None:
            for running in tuple(self._running.pop(parent)):
                running.cancel()

    def inbox_of(self, call_id: int | None) -> SimpleQueue[Work | None] | None:
        """Where the thread looks for work that waits for a call to the host."""
        return None if call_id is None else self._inboxes.get(call_id)

    # --- HostCaller ------------------------------------------------------------------------------

    def running_call(self) -> CallContext | None:
        """Which of a process's many workers a foreign thread works for can't be told."""
        return None

    def call_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        call, arguments = self._new_call(context, name, args)
        return self._wait(call, self._serve(call, arguments))

    def call_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> Generator[Any]:
        call, arguments = self._new_call(context, name, args)
        items = self._items(call, arguments)
        try:
            while (item := self._wait(call, _next_or_end(items))) is not _END:
                yield item
        finally:
            self._wait(call, items.aclose())

    async def acall_host(self, context: CallContext, name: str, args: Mapping[str, Any]) -> Any:
        if asyncio.get_running_loop() is not self._loop:
            # A loop that the command runs itself.
            return await asyncio.to_thread(self.call_host, context, name, args)
        call, arguments = self._new_call(context, name, args)
        return await self._task(call, self._serve(call, arguments))

    async def acall_host_stream(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        if asyncio.get_running_loop() is not self._loop:
            async for item in iterate_in_thread(self.call_host_stream(context, name, args)):
                yield item
            return
        call, arguments = self._new_call(context, name, args)
        items = self._items(call, arguments)
        try:
            while (item := await self._task(call, _next_or_end(items))) is not _END:
                yield item
        finally:
            await self._task(call, items.aclose())

    # --- one call ----------------------------------------------------------------------------

    def _new_call(
        self, context: CallContext, name: str, args: Mapping[str, Any]
    ) -> tuple[HostCall, dict[str, Any]]:
        parent = self._parents.get(context.call_id)
        if parent is None:
            raise HostCallCancelled("the call that this is done for has ended; end it, too")
        arguments: dict[str, Any] = travelled("args", dict(args))
        trace = context.trace_for_host()
        return HostCall(next(self._ids), name, self.worker_id, parent, trace), arguments

    async def _serve(self, call: HostCall, args: Mapping[str, Any]) -> Any:
        try:
            function = find_function(self._functions, call.command)
            with self._observed(call):
                return travelled("result", await call_function(function, call, args))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            typed = travelled_error(error)
            raise typed from typed.__cause__
        finally:
            call.ended = True

    async def _items(self, call: HostCall, args: Mapping[str, Any]) -> AsyncGenerator[Any]:
        try:
            function = find_function(self._functions, call.command)
            items = iterate_function(function, call, args)
            with self._observed(call):
                try:
                    async for item in items:
                        yield travelled("item", item)
                finally:
                    await items.aclose()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            typed = travelled_error(error)
            raise typed from typed.__cause__
        finally:
            call.ended = True

    def _observed(self, call: HostCall) -> AbstractContextManager[None]:
        return call_events.host_call(self._pool, call) if bus.listening else nullcontext()

    def _task(self, call: HostCall, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = _context_of(call).run(self._loop.create_task, work)
        self._note(call, task)
        return task

    def _wait(self, call: HostCall, work: Coroutine[Any, Any, _T]) -> _T:
        """Have ``work`` run in the event loop, and meanwhile here what is nested in it."""
        if _running_loop() is self._loop:
            work.close()
            raise ConfigurationError(
                "call_host() would block the event loop that it waits for; await acall_host(), or "
                "iterate over acall_host_stream(), instead"
            )
        inbox = self._inboxes[call.call_id] = SimpleQueue()
        future = _context_of(call).run(asyncio.run_coroutine_threadsafe, work, self._loop)
        self._note(call, future)
        future.add_done_callback(lambda _: self._close_inbox(call.call_id))
        while (nested := inbox.get()) is not None:
            nested()
        try:
            return future.result()
        except FutureCancelled as error:
            raise HostCallCancelled("this call is no longer wanted; end it") from error

    def _close_inbox(self, call_id: int) -> None:
        # In the event loop, as all that puts something in: nothing comes after the end.
        self._inboxes.pop(call_id).put(None)

    def _note(self, call: HostCall, running: Future[Any] | asyncio.Future[Any]) -> None:
        siblings = self._running.get(call.parent)
        if siblings is None:
            running.cancel()
        else:
            siblings.add(running)
            running.add_done_callback(siblings.discard)


def _context_of(call: HostCall) -> contextvars.Context:
    """What a host function runs in: it serves the chain of its caller."""
    context = contextvars.copy_context()
    context.run(enter_chain, (*call.parent.chain, call))
    return context


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next_or_end(items: AsyncGenerator[Any]) -> Any:
    return await anext(items, _END)
