"""The synchronous face: how a plain class offers the methods of an asynchronous one, and waits."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from dspex.errors import PoolClosed, VariableNotFound
from dspex.tools import ToolDecorator, ToolSpec
from dspex.workspace import AsyncWorkspace
from snakepit.loops.loop_thread import LoopThread
from snakepit.loops.threads import call_in_thread
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.variables import VariableChange, Watch

P = ParamSpec("P")
T = TypeVar("T")


class Face:
    """A synchronous object in front of an asynchronous one, which lives on a loop thread."""

    def __init__(self, behind: Any, loop: LoopThread) -> None:
        self._behind = behind
        self._loop = loop


def sync(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Make the synchronous twin of a coroutine method: same name, parameters, help and errors.

    The twin runs the method of the object behind the face on the loop thread and waits. Ctrl-C
    while it waits cancels the call.
    """

    @functools.wraps(method)
    def call(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._behind, *args, **kwargs))

    return call


class Workspace(Face, ToolDecorator):
    """The synchronous twin of `AsyncWorkspace`: the same methods, which wait for their result."""

    predict = sync(AsyncWorkspace.predict)
    chain_of_thought = sync(AsyncWorkspace.chain_of_thought)
    call = sync(AsyncWorkspace.call)
    ask = sync(AsyncWorkspace.ask)
    classify = sync(AsyncWorkspace.classify)
    summarize = sync(AsyncWorkspace.summarize)
    extract_entities = sync(AsyncWorkspace.extract_entities)
    generate = sync(AsyncWorkspace.generate)
    answer_with_context = sync(AsyncWorkspace.answer_with_context)
    set_variable = sync(AsyncWorkspace.set_variable)
    get_variable = sync(AsyncWorkspace.get_variable)
    update_variable = sync(AsyncWorkspace.update_variable)
    list_variables = sync(AsyncWorkspace.list_variables)
    delete_variable = sync(AsyncWorkspace.delete_variable)
    create_variable = sync(AsyncWorkspace.create_variable)
    read_variables_as = sync(AsyncWorkspace.read_variables_as)
    write_variables_from = sync(AsyncWorkspace.write_variables_from)
    register_tool = sync(AsyncWorkspace.register_tool)
    register_python_function = sync(AsyncWorkspace.register_python_function)
    unregister_tool = sync(AsyncWorkspace.unregister_tool)
    list_tools = sync(AsyncWorkspace.list_tools)
    call_tool = sync(AsyncWorkspace.call_tool)

    def stream_tool(self, name: str, parameters: Mapping[str, Any] | None = None) -> Generator[Any]:
        """As `AsyncWorkspace.stream_tool`, for a `for` loop.

        Example:
            >>> @client.tool
            ... def countdown(start: int):
            ...     yield from range(start, 0, -1)
            >>> list(client.stream_tool("countdown", {"start": 3}))
            [3, 2, 1]
        """
        return self._loop.iterate(self._behind.stream_tool(name, parameters))

    def _decorated(self, spec: ToolSpec) -> None:
        self._loop.run(self._behind._register(spec))

    @property
    def platform(self) -> Platform:
        """The platform below, for what has no method here. It is asynchronous: see `run`."""
        platform: Platform = self._behind.platform
        return platform

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's event loop, and wait for its result.

        Raises:
            PoolClosed: the client is closed.
            ConfigurationError: the code runs on that loop itself, where it can be awaited.

        Example:
            >>> variables = client.platform.variables
            >>> client.set_variable("limit", 10)
            >>> client.run(variables.get_variable("global", "limit")).version
            0
        """
        return self._loop.run(work)

    def watch_variables(
        self,
        *names: str,
        initial: bool = True,
        callback: Callable[[VariableChange], object] | None = None,
    ) -> VariableWatch:
        """As `AsyncWorkspace.watch_variables`, for a `for` loop. A callback has its own thread.

        Example:
            >>> client.set_variable("limit", 1)
            >>> with client.watch_variables("limit") as watch:
            ...     next(watch).value
            1
        """
        told = None if callback is None else functools.partial(call_in_thread, callback)
        watching = self._behind.watch_variables(*names, initial=initial, callback=told)
        return VariableWatch(self._loop.run(watching), self._loop)

    @property
    def variables(self) -> Variables:
        """The variables as a mapping: `variables["temperature"] = 0.2`."""
        return Variables(self)


class VariableWatch(Face):
    """The changes of variables, from the moment it was made. Waits for the next one; ends with its
    session, its client, or `close()`, also when another thread waits for a change.
    """

    _behind: Watch

    def close(self) -> None:
        """Watch no more. Idempotent."""
        with contextlib.suppress(PoolClosed):  # it has ended with its client
            self._loop.run(_close(self._behind))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> VariableChange:
        try:
            return self._loop.run(anext(self._behind))
        except (StopAsyncIteration, PoolClosed):
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _close(watch: Watch) -> None:
    watch.close()


class Variables(MutableMapping[str, Any]):
    """The variables that can be read in a session, or for a client the global ones, as a mapping.

    A missing name raises `VariableNotFound`, which is a `KeyError`. What is set or deleted is the
    session's own alone.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __getitem__(self, name: str) -> Any:
        return self._workspace.get_variable(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._workspace.set_variable(name, value)

    def __delitem__(self, name: str) -> None:
        if not self._workspace.delete_variable(name):
            raise VariableNotFound(
                f"there is no variable {name!r} of its own to delete (a session can't delete "
                "a global one)",
                details={"name": name},
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._workspace.list_variables())

    def __len__(self) -> int:
        return len(self._workspace.list_variables())

    def __repr__(self) -> str:
        return f"Variables({self._workspace.list_variables()!r})"
