"""Running the functions of tools on the host: sync, async and generators, within their limits."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, Final, NoReturn

from snakepit.errors import CallTimeout
from snakepit.threads import call_in_thread, iterate_in_thread
from snakepit_grpc_bridge.cancelling import is_cancelled
from snakepit_grpc_bridge.tools.failing import raise_tool_error
from snakepit_grpc_bridge.tools.records import Tool

__all__ = ["ToolRunner"]

# What ends a tool and nothing else. SystemExit would end the host's event loop: a command line
# that is wrapped as a tool raises it.
_FAILURES: Final = (Exception, SystemExit, asyncio.CancelledError)


class ToolRunner:
    """Runs tools of the host, and keeps the limits of all. For one event loop."""

    def __init__(self) -> None:
        self._limits: dict[str, dict[str, asyncio.Semaphore]] = {}

    async def run(self, tool: Tool, given: Mapping[str, Any]) -> Any:
        """Run a tool's function and return what it returns.

        A coroutine function runs on the loop and must not block it; any other runs in a thread of
        its own, which nothing can stop when the time is over.

        Raises:
            CallTimeout: it took longer than its limit.
            ToolExecutionFailed: it raised; its exception is the cause.
            CallDepthExceeded: it and programs call each other without end.
        """
        if tool.concurrency is None and tool.timeout is None and tool.schema.is_async:  # most tools
            try:
                return await tool.function(**given)
            except _FAILURES as error:
                _raise_failed(tool, error, timed_out=False)
        async with self.slot(tool):
            limit = asyncio.timeout(tool.timeout)
            try:
                async with limit:
                    return await _result_of(tool, given)
            except _FAILURES as error:
                _raise_failed(tool, error, timed_out=limit.expired())

    async def stream(self, tool: Tool, given: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Iterate over what a tool's function yields; errors as for :meth:`run`.

        Its limit of time is that of each item.
        """
        async with self.slot(tool), aclosing(_items_of(tool.function, given)) as items:
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

    def slot(self, tool: Tool) -> AbstractAsyncContextManager[None]:
        """For a block that begins when fewer calls of a tool run than its limit allows."""
        if tool.concurrency is None:
            return nullcontext()
        limits = self._limits.setdefault(tool.session_id, {})
        return limits.setdefault(tool.name, asyncio.Semaphore(tool.concurrency))

    def forget(self, session_id: str, name: str) -> None:
        """A tool was removed or replaced; calls that run keep their limit."""
        self._limits.get(session_id, {}).pop(name, None)

    async def forget_session(self, session_id: str) -> None:
        """A session has ended, and its tools with it."""
        self._limits.pop(session_id, None)


def _raise_failed(tool: Tool, error: BaseException, *, timed_out: bool) -> NoReturn:
    """Raise what the caller gets of a tool that raised ``error``."""
    if isinstance(error, asyncio.CancelledError) and is_cancelled():
        raise error
    if timed_out and isinstance(error, TimeoutError):
        raise CallTimeout(
            f"tool {tool.name!r} did not answer within its limit of {tool.timeout:g} s",
            details={"tool": tool.name, "limit": "tool", "timeout_s": tool.timeout},
        ) from error
    raise_tool_error(tool.name, error)


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
