"""The tools of all sessions. Lives in the host, where the tools run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from snakepit_grpc_bridge.errors import (
    DuplicateTool,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.tools.schema import Parameter, Schema, check_tool_name, read_schema

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A registered tool.

    Attributes:
        name: its name, unique in its session.
        session_id: the session it belongs to; "global" for those that every session can call.
        description: what it does, by default the first line of the function's docstring.
        parameters: what it takes, in order.
        registered_at: when it was registered, in UTC.
    """

    name: str
    session_id: str
    description: str
    parameters: tuple[Parameter, ...]
    registered_at: datetime
    _function: Callable[..., Any] = field(repr=False, compare=False)
    _schema: Schema = field(repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """Return the tool as plain data, for programs in workers."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": [
                {"name": each.name, "type": each.type, "required": each.required}
                for each in self.parameters
            ],
        }


class ToolService:
    """Registers and calls tools. One for each platform; use it on the platform's loop.

    A session sees its own tools and the global ones; its own wins. Every method raises
    SessionNotFound for a session that is not open; without a session it means the global one.
    """

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions
        self._scopes: dict[str, dict[str, Tool]] = {}
        sessions.on_close(self._drop_session)

    async def register(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        session_id: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> Tool:
        """Let programs call ``function`` under ``name``, and return the tool's record.

        A coroutine function runs on the platform's loop and must not block it; any other runs in a
        thread, which nothing can stop when the call that waits for it is over.

        Raises:
            ValidationFailed: the name is no valid one, or ``function`` can't be called with names.
            DuplicateTool: the session has a tool of that name, and ``replace`` is False.

        Example::

            await platform.tools.register("stock", lambda item: {"apple": 3}[item])
            await platform.tools.call("stock", {"item": "apple"})
        """
        scope = self._scope(session_id)
        _check(name, function)
        if name in scope and not replace:
            raise DuplicateTool(
                f"there is a tool {name!r} in session {session_id or GLOBAL_SESSION!r} already; "
                "pass replace=True to replace it",
                details={"name": name, "session_id": session_id or GLOBAL_SESSION},
            )
        schema = read_schema(function, description=description)
        scope[name] = Tool(
            name=name,
            session_id=session_id or GLOBAL_SESSION,
            description=_first_line(function) if description is None else description,
            parameters=schema.parameters,
            registered_at=datetime.now(UTC),
            _function=function,
            _schema=schema,
        )
        _log.debug("tool %r registered in session %r", name, session_id or GLOBAL_SESSION)
        return scope[name]

    async def unregister(self, name: str, *, session_id: str | None = None) -> bool:
        """Remove a tool from that session itself; say whether there was one."""
        return self._scope(session_id).pop(name, None) is not None

    async def list(self, *, session_id: str | None = None) -> list[Tool]:
        """Return all tools that can be called in the session, by name."""
        visible = self._visible(session_id)
        return [visible[name] for name in sorted(visible)]

    async def call(
        self, name: str, parameters: Mapping[str, Any] | None = None, session_id: str | None = None
    ) -> Any:
        """Call a tool with keyword arguments and return what it returns.

        Raises:
            ToolNotFound: the session can call no tool of that name; lists those it can.
            ValidationFailed: a parameter is missing or unknown; the tool did not run.
            ToolExecutionFailed: it raised; its exception is the cause.
        """
        visible = self._visible(session_id)
        tool = visible.get(name)
        if tool is None:
            raise ToolNotFound.of(name, session_id, visible)
        given = tool._schema.check(name, {} if parameters is None else parameters)
        try:
            return await _run(tool._function, given)
        except Exception as error:
            _log.debug("tool %r failed with %s", name, type(error).__name__)
            raise ToolExecutionFailed(
                f"tool {name!r} raised {type(error).__name__}: {error}",
                details={"tool": name, "error": type(error).__name__},
            ) from error

    def _scope(self, session_id: str | None) -> dict[str, Tool]:
        session_id = session_id or GLOBAL_SESSION
        self._sessions.require(session_id)
        return self._scopes.setdefault(session_id, {})

    def _visible(self, session_id: str | None) -> dict[str, Tool]:
        return self._scope(GLOBAL_SESSION) | self._scope(session_id)

    async def _drop_session(self, session_id: str) -> None:
        self._scopes.pop(session_id, None)


async def _run(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    if _is_async(function):
        return await function(**given)
    return await asyncio.to_thread(function, **given)


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(type(function), "__call__", None)  # noqa: B004 - an object with async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _check(name: object, function: object) -> None:
    check_tool_name(name)
    if not callable(function):
        raise ValidationFailed(f"tool {name!r} must be a function, not a {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValidationFailed(f"tool {name!r} is a generator; let it return a list")


def _first_line(function: Callable[..., Any]) -> str:
    documentation = inspect.getdoc(function) or ""
    return documentation.partition("\n")[0]
