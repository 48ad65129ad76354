"""Tools: what registers and calls them, and the decorator that makes one of a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack, overload

from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.tools import ToolOptions

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """A function to register, as `register_tool` takes it."""

    name: str
    function: Callable[..., Any]
    options: ToolOptions


class ToolDecorator(ABC):
    """Has `tool`, the decorator; what becomes of a decorated function is up to the subclass."""

    @abstractmethod
    def _decorated(self, spec: ToolSpec) -> None:
        """Take a decorated function."""

    @overload
    def tool(self, function: F, /) -> F: ...
    @overload
    def tool(
        self, /, *, name: str | None = None, **options: Unpack[ToolOptions]
    ) -> Callable[[F], F]: ...
    def tool(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[ToolOptions],
    ) -> Any:
        """Register a function as a tool; it stays usable as a function.

        Without arguments the tool has the function's name and, as its description, the first line
        of its docstring. The options and errors are those of `register_tool`.

        Example:
            >>> @client.tool
            ... def stock(item: str) -> int:
            ...     "How many we have of an item."
            ...     return {"apple": 3}[item]
        """

        def register(decorated: F) -> F:
            own_name: str = getattr(decorated, "__name__", type(decorated).__name__)
            self._decorated(ToolSpec(name=name or own_name, function=decorated, options=options))
            return decorated

        return register if function is None else register(function)


class AsyncTools(ABC):
    """The tools of a client or a session handle."""

    @property
    @abstractmethod
    def platform(self) -> Platform:
        """The platform below, for what has no method here."""

    @property
    @abstractmethod
    def _session_id(self) -> str | None:
        """The session that programs run in; None for a temporary one each."""

    @property
    def _home(self) -> str:
        """The session that variables and tools belong to."""
        return self._session_id or self.platform.sessions.global_id

    async def register_tool(
        self, name: str, function: Callable[..., Any], **options: Unpack[ToolOptions]
    ) -> None:
        """Let programs in the workers call `function`, which runs in this process.

        A plain function runs in a thread, a coroutine function on the platform's loop, and a
        generator gives its items one by one. A client's tools are visible in every session.

        Args:
            description: what it does; by default its docstring says so.
            replace: take the place of one of that name.
            timeout: seconds that a call of it may take.
            concurrency: how many calls of it run at a time.
            idempotent: running it twice does no harm.
            allow: patterns of the ids of the sessions that may call it.
            metadata: plain data to keep with it.

        Raises:
            DuplicateTool: there is one of that name; pass `replace=True`.
            ValidationFailed: the name is no valid one, or the function can't be called with names.

        Example:
            >>> def stock(item: str) -> int:
            ...     return {"apple": 3}[item]
            >>> client.register_tool("stock", stock)
            >>> client.call_tool("stock", {"item": "apple"})
            3
        """
        await self.platform.tools.register(name, function, session_id=self._home, **options)

    async def register_python_function(
        self, name: str, path: str, **options: Unpack[ToolOptions]
    ) -> None:
        """Let programs call a function of the workers, `"package.module:function"`, as a tool.

        It is looked up now, runs where its session's calls run, and has to be inside the setting
        `import_allow`. The options are those of `register_tool`.

        Raises:
            NotAllowed: the path is outside `import_allow`.
            ValidationFailed: there is no such function.
            DuplicateTool: there is a tool of that name.

        Example:
            >>> client.register_python_function("plain", "dspy.evaluate:normalize_text")
            >>> client.call_tool("plain", {"s": "The Eiffel Tower!"})
            'eiffel tower'
        """
        await self.platform.tools.register_python_function(
            name, path, session_id=self._home, **options
        )

    async def _register(self, spec: ToolSpec) -> None:
        await self.register_tool(spec.name, spec.function, **spec.options)

    async def unregister_tool(self, name: str) -> bool:
        """Remove a tool; say whether there was one.

        Example:
            >>> client.unregister_tool("stock")
            False
        """
        return await self.platform.tools.unregister(name, session_id=self._home)

    async def list_tools(self) -> list[str]:
        """Return the names of the tools that programs of this workspace can call.

        Example:
            >>> client.register_tool("now", lambda: "noon")
            >>> client.list_tools()
            ['now']
        """
        return [tool.name for tool in await self.platform.tools.list(session_id=self._home)]

    async def call_tool(self, name: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Call a registered tool with keyword arguments and return its result.

        Raises:
            ToolNotFound: nothing of that name is registered.
            ValidationFailed: a parameter is missing or unknown; the tool did not run.
            ToolExecutionFailed: the tool raised; its error is the cause.
            StreamingNotSupported: it is a generator: see `stream_tool`.

        Example:
            >>> client.register_tool("now", lambda: "noon")
            >>> client.call_tool("now")
            'noon'
        """
        return await self.platform.tools.call(name, parameters, self._home)

    def stream_tool(
        self, name: str, parameters: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Any]:
        """Iterate over what a tool that is a generator yields; leaving the loop early stops it.

        Raises:
            StreamingNotSupported: it is no generator: see `call_tool`, whose others these raise.

        Example:
            >>> def countdown(start: int):
            ...     yield from range(start, 0, -1)
            >>> async with dspex.AsyncClient() as client:
            ...     await client.register_tool("countdown", countdown)
            ...     told = [each async for each in client.stream_tool("countdown", {"start": 3})]
            >>> told
            [3, 2, 1]
        """
        return self.platform.tools.stream(name, parameters, self._home)
