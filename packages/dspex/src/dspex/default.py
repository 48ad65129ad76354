"""The client behind the module-level functions: made at the first use, closed at exit.

`configure()` says what it runs with. Called again with other settings it closes the client in use,
with its sessions, variables and registered tools, and the next call makes a new one; with the same
settings it changes nothing, so that a notebook cell may be run twice. Functions decorated with
`@dspex.tool` are known to every client that is made.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from dspex.client import AsyncClient, Client, gather_settings
from dspex.errors import DuplicateTool
from dspex.tools import ToolDecorator, ToolSpec
from snakepit_grpc_bridge import Settings

P = ParamSpec("P")
T = TypeVar("T")


class DefaultClient(ToolDecorator):
    """Holds at most one `Client`, its settings and the tools that every one of them gets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settings: Settings | None = None
        self._client: Client | None = None
        self._tools: dict[str, ToolSpec] = {}

    def get(self) -> Client:
        """Return the client, after starting it if there is none."""
        with self._lock:
            if self._client is None or self._client.closed:
                self._client = self._new()
            return self._client

    def _new(self) -> Client:
        client = Client(self._settings)
        try:
            for spec in self._tools.values():
                client._decorated(spec)
        except BaseException:
            client.close()
            raise
        return client

    def configure(self, settings: Settings) -> None:
        """Use `settings` from now on; close a client that runs with others."""
        AsyncClient(settings)  # looks the model up, so that a wrong one fails here; starts nothing
        with self._lock:
            if self._client is not None and self._client.settings != settings:
                self._close()
            self._settings = settings

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _decorated(self, spec: ToolSpec) -> None:
        with self._lock:
            if spec.name in self._tools and not spec.options.get("replace"):
                raise DuplicateTool(
                    f"there is a tool {spec.name!r} already; use @dspex.tool(replace=True)",
                    details={"name": spec.name},
                )
            if self._client is not None and not self._client.closed:
                self._client._decorated(spec)
            self._tools[spec.name] = spec


_default = DefaultClient()

tool = _default.tool


def default_client() -> Client:
    """Return the client that the module-level functions use, after starting it if need be.

    Example:
        >>> dspex.default_client().health().ready
        True
    """
    return _default.get()


def configure(settings: Settings | None = None, **overrides: Any) -> None:
    """Say what the module-level functions run with. Starts nothing.

    Args:
        settings: everything, as one object.
        overrides: single settings, as in `configure(model="embedded", workers=4)`; they win over
            the environment (`DSPEX_MODEL`, ...) and the configuration file. Not with `settings`.

    A client that is in use with other settings is closed, with its sessions, variables and tools
    (but not those of `@dspex.tool`); the next call starts a new one.

    Raises:
        ConfigurationError: a setting is unknown or has a wrong value.
        ModelNotFound: the model is unknown or its file is missing; says what to do.

    Example:
        >>> dspex.configure(model="embedded", workers=2)
    """
    _default.configure(gather_settings(settings, overrides))


def close() -> None:
    """End the processes behind the module-level functions now; the next use starts new ones."""
    _default.close()


def _on_default(method: Callable[Concatenate[Any, P], T]) -> Callable[P, T]:
    """Make a module-level function of a client's method."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return method(_default.get(), *args, **kwargs)

    signature = inspect.signature(method)
    without_self = list(signature.parameters.values())[1:]
    call.__signature__ = signature.replace(parameters=without_self)  # type: ignore[attr-defined]
    return call


ask = _on_default(Client.ask)
classify = _on_default(Client.classify)
summarize = _on_default(Client.summarize)
extract_entities = _on_default(Client.extract_entities)
generate = _on_default(Client.generate)
answer_with_context = _on_default(Client.answer_with_context)

predict = _on_default(Client.predict)
chain_of_thought = _on_default(Client.chain_of_thought)
predict_with_session = _on_default(Client.predict_with_session)
call = _on_default(Client.call)

set_variable = _on_default(Client.set_variable)
get_variable = _on_default(Client.get_variable)
list_variables = _on_default(Client.list_variables)
delete_variable = _on_default(Client.delete_variable)
set_session_variable = _on_default(Client.set_session_variable)
get_session_variable = _on_default(Client.get_session_variable)

register_tool = _on_default(Client.register_tool)
unregister_tool = _on_default(Client.unregister_tool)
list_tools = _on_default(Client.list_tools)
call_tool = _on_default(Client.call_tool)

start_session = _on_default(Client.start_session)
stop_session = _on_default(Client.stop_session)
temp_session = _on_default(Client.temp_session)
get_or_create_global_session = _on_default(Client.get_or_create_global_session)
clear_global_session = _on_default(Client.clear_global_session)
