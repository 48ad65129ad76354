"""The decorator that makes a function of the host a tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack, overload

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
