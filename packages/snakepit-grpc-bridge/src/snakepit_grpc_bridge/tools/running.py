"""Running the functions of tools on the host: sync, async and generators, within their limits."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import Any, Final, NoReturn

from snakepit.calls.nesting import LocalCall, held_here
from snakepit.errors import CallTimeout, QueueTimeout
from snakepit.loops.threads import call_in_thread, iterate_in_thread
from snakepit_grpc_bridge.cancelling import is_cancelled
from snakepit_grpc_bridge.tools.failing import raise_tool_error
from snakepit_grpc_bridge.tools.places import Places, Waits
from snakepit_grpc_bridge.tools.records import Tool

__all__ = ["ToolRunner", "inside", "took_too_long"]

# What ends a tool and nothing else. SystemExit would end the host's event loop: a command line
# that is wrapped as a tool raises it.
_FAILURES: Final = (Exception, SystemExit, asyncio.CancelledError)
# Seconds, for a call whose turn came when nothing was left.
_LEAST_TIMEOUT: Final = 0.001


class ToolRunner:
    """Runs tools of the host, and keeps the limits of all. For one event loop."""

    def __init__(self) -> None:
        self._limits: dict[str, dict[str, Places]] = {}
        self._waits = Waits()

    async def run(self, tool: Tool, given: Mapping[str, Any], nested: LocalCall | None) -> Any:
        """Run a tool's function and return what it returns.

        A coroutine function runs on the loop and must not block it; any other runs in a thread of
        its own, which nothing can stop when the time is over.

        Raises:
            QueueTimeout: its turn did not come within its limit of time.
            ToolDeadlock: its turn would never come.
            CallTimeout: it took longer than what was left of that.
            ToolExecutionFailed: it raised; its exception is the cause.
            CallDepthExceeded: tools, or it and programs, call each other without end.
        """
        if tool.concurrency is None and tool.timeout is None and tool.schema.is_async:  # most tools
            try:
                return await tool.function(**given)
            except _FAILURES as error:
                _raise_failed(tool, error, timed_out=False)
        async with self.slot(tool, nested) as left:
            limit = asyncio.timeout(left)
            try:
                async with limit:
                    return await _result_of(tool, given)
            except _FAILURES as error:
                _raise_failed(tool, error, timed_out=limit.expired())

    async def stream(
        self, tool: Tool, given: Mapping[str, Any], nested: LocalCall | None
    ) -> AsyncGenerator[Any]:
        """Iterate over what a tool's function yields; errors as for :meth:`run`.

        Its limit of time is that of the wait for its turn, and of each item.
        """
        produced = inside(nested, _items_of(tool.function, given))
        async with self.slot(tool, nested), aclosing(produced) as items:
            while True:
                limit = asyncio.timeout(tool.timeout)
                try:
                    async with limit:
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except _FAILURES as error:
                    _raise_failed(tool, error, timed_out=limit.expired())
                yield item

    def slot(
        self, tool: Tool, nested: LocalCall | None
    ) -> AbstractAsyncContextManager[float | None]:
        """For a block that begins when fewer calls of a tool run than its limit allows; the seconds
        that are left of the tool's limit of time. ``nested`` is the call, which holds the place;
        a tool without a limit needs none.

        A call that is made inside a call of the same tool is a part of that one and waits for
        nobody: it would wait for itself.

        Raises:
            QueueTimeout: the place did not come free in time.
            ToolDeadlock: it never would.
        """
        if tool.concurrency is None or nested is None:
            return nullcontext(tool.timeout)
        limits = self._limits.setdefault(tool.session_id, {})
        places = limits.setdefault(tool.name, Places(tool.name, tool.concurrency))
        if places in held_here():
            return nullcontext(tool.timeout)
        return _place(self._waits, places, tool, nested)

    def forget(self, session_id: str, name: str) -> None:
        """A tool was removed or replaced; calls that run keep their limit."""
        self._limits.get(session_id, {}).pop(name, None)

    async def forget_session(self, session_id: str) -> None:
        """A session has ended, and its tools with it."""
        self._limits.pop(session_id, None)


def inside(nested: LocalCall | None, items: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    """Items, each made as a part of ``nested``: what their consumer does meanwhile is none."""
    return items if nested is None else _inside(nested, items)


async def _inside(nested: LocalCall, items: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    try:
        while True:
            nested.enter()
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            finally:
                nested.leave()
            yield item
    finally:
        nested.enter()
        try:
            await items.aclose()
        finally:
            nested.leave()


@asynccontextmanager
async def _place(
    waits: Waits, places: Places, tool: Tool, nested: LocalCall
) -> AsyncIterator[float | None]:
    start = time.monotonic()
    try:
        async with asyncio.timeout(tool.timeout):
            await waits.turn(places, nested)
    except TimeoutError:
        raise QueueTimeout(
            f"a call of the tool {tool.name!r} did not run: it waited {tool.timeout:g} s, all of "
            f"the tool's time, for one of {tool.concurrency} earlier calls to end; register the "
            "tool with a higher concurrency or timeout",
            details={"tool": tool.name, "limit": "tool", "timeout_s": tool.timeout},
        ) from None
    places.take(nested)
    try:
        left = None if tool.timeout is None else tool.timeout - (time.monotonic() - start)
        yield left and max(left, _LEAST_TIMEOUT)
    finally:
        places.give_back(nested)


def _raise_failed(tool: Tool, error: BaseException, *, timed_out: bool) -> NoReturn:
    """Raise what the caller gets of a tool that raised ``error``."""
    if isinstance(error, asyncio.CancelledError) and is_cancelled():
        raise error
    if timed_out and isinstance(error, TimeoutError):
        raise took_too_long(tool) from error
    raise_tool_error(tool.name, error)


def took_too_long(tool: Tool) -> CallTimeout:
    """The error of a call that went over the tool's own limit of time."""
    waiting = "" if tool.concurrency is None else ", its wait for earlier calls included"
    return CallTimeout(
        f"tool {tool.name!r} did not answer within its limit of {tool.timeout:g} s{waiting}",
        details={"tool": tool.name, "limit": "tool", "timeout_s": tool.timeout},
    )


async def _result_of(tool: Tool, given: Mapping[str, Any]) -> Any:
    if tool.schema.is_async:
        return await tool.function(**given)
    result = await call_in_thread(tool.function, **given)
    # A plain function may wrap an async one.
    return await result if inspect.isawaitable(result) else result


async def _items_of(function: Callable[..., Any], given: Mapping[str, Any]) -> AsyncGenerator[Any]:
    produced: Any = function(**given)
    items = iterate_in_thread(produced) if hasattr(produced, "__next__") else produced
    async with aclosing(items):
        async for item in items:
            yield item
