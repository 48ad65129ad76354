"""The commands by which a worker runs functions that are named by their paths. Worker side."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import snakepit
from snakepit_grpc_bridge.call_state import serving
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.failing import failing_as
from snakepit_grpc_bridge.tools.paths import find_function
from snakepit_grpc_bridge.tools.schema import plain_result, read_schema

__all__ = ["PythonCommands"]


class PythonCommands:
    """A part of what a program worker can do. ``state`` is that of the call's session."""

    _allowed: tuple[str, ...]

    @snakepit.command(name="python.call")
    def call_function(
        self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any], state: Any = None
    ) -> Any:
        """Call a function; return its result."""
        with serving(state):
            return _result_of(find_function(path, self._allowed), args, kwargs)

    @snakepit.command(name="python.stream")
    def stream_function(
        self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any], state: Any = None
    ) -> Iterator[Any]:
        """Call a generator function; yield its items."""
        with serving(state):
            yield from _items_of(path, find_function(path, self._allowed), args, kwargs)

    @snakepit.command(name="tools.describe")
    def describe_tool(self, path: str) -> dict[str, Any]:
        """Describe what a function takes and gives, for it to be a tool."""
        return read_schema(find_function(path, self._allowed)).describe()

    @snakepit.command(name="tools.run")
    def run_tool(
        self, name: str, path: str, parameters: Mapping[str, Any], state: Any = None
    ) -> Any:
        """Call a function as a tool: its parameters become what its annotations say."""
        function = find_function(path, self._allowed)
        given = read_schema(function).check(name, parameters)
        with serving(state), failing_as(name):
            return plain_result(_result_of(function, (), given))

    @snakepit.command(name="tools.stream")
    def stream_tool(
        self, name: str, path: str, parameters: Mapping[str, Any], state: Any = None
    ) -> Iterator[Any]:
        """Call a generator function as a tool; yield its items."""
        function = find_function(path, self._allowed)
        given = read_schema(function).check(name, parameters)
        with serving(state), failing_as(name):
            for item in _items_of(path, function, (), given):
                yield plain_result(item)


def _result_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    result = function(*args, **kwargs)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _items_of(
    path: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Any]:
    items: Any = function(*args, **kwargs)
    if hasattr(items, "__anext__"):
        yield from _run_async_generator(items)
    elif isinstance(items, Iterable) and not isinstance(items, (str, bytes, Mapping)):
        yield from items
    else:
        if inspect.iscoroutine(items):
            items.close()
        raise ValidationFailed(
            f"{path} gives a {type(items).__name__}, and no items one by one; use call() for it"
        )


def _run_async_generator(items: AsyncGenerator[Any]) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(items.aclose())


async def _next(items: AsyncGenerator[Any]) -> Any:
    return await anext(items)
