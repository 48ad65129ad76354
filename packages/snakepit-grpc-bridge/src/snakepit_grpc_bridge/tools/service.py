"""Tools: functions that programs call by name, of the host or of the workers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

import snakepit
from snakepit.calls.nesting import LocalCall
from snakepit.errors import CallTimeout, SnakepitError, StreamingNotSupported
from snakepit.options import seconds, whole_number
from snakepit.telemetry import bus
from snakepit_grpc_bridge.errors import ToolExecutionFailed, ValidationFailed
from snakepit_grpc_bridge.metadata import read_metadata
from snakepit_grpc_bridge.session_calls import SessionCalls
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.storage import Storage
from snakepit_grpc_bridge.telemetry import operation, tool_execution
from snakepit_grpc_bridge.tools.audit import AuditLog
from snakepit_grpc_bridge.tools.records import Tool, ToolCall
from snakepit_grpc_bridge.tools.registry import Options, ToolRegistry
from snakepit_grpc_bridge.tools.running import ToolRunner, inside, took_too_long
from snakepit_grpc_bridge.tools.schema import Schema, check_tool_name, read_schema
from snakepit_grpc_bridge.variables.sizes import size_seen

__all__ = ["ToolService"]

_log = logging.getLogger(__name__)


class _Recorded:
    """A call of a tool, and what it leaves behind, however it ends. ``caller``: the worker's call
    that it is a part of; None if the host calls.
    """

    __slots__ = (
        "_audit",
        "_parameters",
        "_session_id",
        "_started",
        "_telling",
        "_tool",
        "_worker_id",
    )

    def __init__(
        self,
        audit: AuditLog,
        tool: Tool,
        session_id: str,
        parameters: Mapping[str, Any] | None,
        caller: snakepit.HostCall | None,
    ) -> None:
        self._audit = audit
        self._parameters = parameters
        self._tool = tool
        self._session_id = session_id
        self._worker_id: str | None = None
        self._telling: AbstractContextManager[None] | None = None
        if caller is not None:
            self._worker_id = caller.worker_id
            if not tool.idempotent:
                caller.fence()  # it must not be done again by whoever repeats the caller's call
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        if bus.listening:
            tool = self._tool
            size = size_seen(self._parameters or {})
            self._telling = tool_execution(
                tool.name, self._session_id, tool.kind, self._worker_id, size
            )
            self._telling.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._telling is not None:
            self._telling.__exit__(kind, error, traceback)
        duration = time.perf_counter() - self._started
        tool = self._tool.name
        outcome = "ok" if error is None else _failure(tool, self._session_id, error)
        self._audit.note(tool, self._session_id, self._worker_id, duration, outcome)


class ToolService:
    """Registers and calls tools. One for each platform; use it on the platform's loop.

    A session sees its own tools and the global ones; its own wins. Every method raises
    SessionNotFound or SessionExpired for a session that is not open; without a session it means the
    global one.
    """

    def __init__(self, storage: Storage, sessions: SessionService, calls: SessionCalls) -> None:
        self._calls = calls
        self._registry = ToolRegistry(storage, sessions)
        self._runner = ToolRunner()
        self._audit = AuditLog(storage)
        sessions.on_close(self._runner.forget_session)
        sessions.on_sweep(self._audit.prune)

    # --- registering -----------------------------------------------------------------------------

    @operation("tools")
    async def register(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        session_id: str | None = None,
        description: str | None = None,
        replace: bool = False,
        timeout: float | timedelta | None = None,
        concurrency: int | None = None,
        idempotent: bool = False,
        allow: Sequence[str] = ("*",),
        metadata: Mapping[str, Any] | None = None,
    ) -> Tool:
        """Let programs call ``function`` under ``name``, and return the tool's record.

        What it takes is read from its signature, annotations and docstring. A coroutine function
        runs on the platform's loop and must not block it; any other runs in a thread, which nothing
        can stop when the call that waits for it is over. A generator, sync or async, is called with
        :meth:`stream`. It lives as long as this process, or its session.

        Args:
            session_id: the session that it belongs to; every session can call a global one.
            description: what it does; its docstring says so by default.
            replace: take the place of a tool of that name. Calls that run go on with the old one.
            timeout: seconds that a call may take, its wait for others included; of a stream, that
                wait and then each item may take as long.
            concurrency: how many calls of it run at a time; the others wait. A call made inside a
                call of the same tool is a part of that one and waits for nobody.
            idempotent: running it twice does no harm. Of a call that has run any other tool, no
                error says that it may be retried.
            allow: patterns of the ids of the sessions that may call it, as in ``["team-a-*"]``.
            metadata: plain data of the caller's, kept with it.

        Raises:
            ValidationFailed: the name is no valid one, or ``function`` can't be called with names.
            DuplicateTool: the session has a tool of that name, and ``replace`` is False.
            QuotaExceeded: the session has as many as it may have.

        Example::

            async def stock(item: str) -> int:
                return await database.count(item)

            await platform.tools.register("stock", stock, idempotent=True)
            await platform.tools.call("stock", {"item": "apple"})
        """
        check_tool_name(name)
        if not callable(function):
            raise ValidationFailed(
                f"tool {name!r} must be a function, not a {type(function).__name__}"
            )
        schema = read_schema(function, description=description)
        options = _options(timeout, concurrency, idempotent, allow, metadata)
        tool = _tool(name, session_id, schema, options, function=function)
        return await self._add(tool, replace)

    @operation("tools")
    async def register_python_function(
        self,
        name: str,
        path: str,
        *,
        session_id: str | None = None,
        description: str | None = None,
        replace: bool = False,
        timeout: float | timedelta | None = None,
        concurrency: int | None = None,
        idempotent: bool = False,
        allow: Sequence[str] = ("*",),
        metadata: Mapping[str, Any] | None = None,
    ) -> Tool:
        """Let programs call a function of the workers, found there by its path.

        ``path`` is ``"package.module:function"`` or ``"package.module.function"``, inside the
        setting ``import_allow``. It is looked up now, in a worker, and what it takes is read there.
        Its calls run in the workers, where its session's calls run. It is stored with its session,
        so a durable session has it again after a restart. The other arguments are those of
        :meth:`register`.

        Raises: as :meth:`register`, and:
            NotAllowed: the path is outside ``import_allow``.
            ValidationFailed: there is no such function.
            WorkerLost, ...: the worker that looked for it failed.
        """
        check_tool_name(name)
        if not isinstance(path, str):
            raise ValidationFailed(
                f"{path!r:.200} is no path; write where the workers find the function, as in "
                "'package.module:function' (a function of the host is registered as it is, by "
                "register, or register_tool of a client)"
            )
        async with self._calls.begin(_unless_global(session_id)) as call:
            described = await call.execute("tools.describe", {"path": path}, idempotent=True)
        if description is not None:
            described["description"] = description
        options = _options(timeout, concurrency, idempotent, allow, metadata)
        schema = Schema.from_description(described)
        return await self._add(_tool(name, session_id, schema, options, path=path), replace)

    #: Other names of the two.
    register_function = register
    register_worker_function = register_python_function

    @operation("tools")
    async def unregister(self, name: str, *, session_id: str | None = None) -> bool:
        """Remove a tool from that session itself; say whether there was one."""
        home = session_id or GLOBAL_SESSION
        self._runner.forget(home, name)
        removed = await self._registry.remove(name, home)
        if removed:
            _log.debug("tool %r unregistered from session %r", name, home)
        return removed

    @operation("tools")
    async def get(self, name: str, *, session_id: str | None = None) -> Tool:
        """Return the tool that a session means by a name.

        Raises:
            ToolNotFound: it can call none of that name; lists those it can.
            NotAllowed: it may not call it.
        """
        return await self._registry.find(name, session_id or GLOBAL_SESSION)

    # --- calling ---------------------------------------------------------------------------------

    async def call(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        *,
        on_behalf_of: snakepit.HostCall | None = None,
    ) -> Any:
        """Call a tool with keyword arguments and return what it returns.

        ``on_behalf_of``: the call of a worker that it is a part of.

        Raises:
            ToolNotFound: the session can call no tool of that name; lists those it can.
            NotAllowed: the session may not call it.
            ValidationFailed: parameters are missing, unknown or of a wrong type; it did not run.
            StreamingNotSupported: it is a generator: see :meth:`stream`.
            QueueTimeout: its turn did not come within its limit of time; it did not run.
            ToolDeadlock: it would never come: calls with a limit wait for each other in a circle.
            CallTimeout: it took longer than what was left of that.
            ToolExecutionFailed: it raised; its exception is the cause.
            CallDepthExceeded: it is nested in more than 32 calls of tools and programs.
        """
        home = session_id or GLOBAL_SESSION
        tool = self._registry.known(name, home) or await self._registry.find(name, home)
        given = _given(tool, parameters, streams=False)
        with _Recorded(self._audit, tool, home, parameters, on_behalf_of):
            if on_behalf_of is not None and tool.concurrency is None:  # the worker's call will do
                return await self._run(tool, given, home, None)
            nested = LocalCall(name, on_behalf_of)
            nested.enter()
            try:
                return await self._run(tool, given, home, nested)
            finally:
                nested.leave()
                nested.ended = True

    async def stream(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        *,
        on_behalf_of: snakepit.HostCall | None = None,
    ) -> AsyncGenerator[Any]:
        """Iterate over what a tool yields. Leaving the loop early stops it.

        Raises: as :meth:`call`, but StreamingNotSupported for a tool that is no generator.
        """
        home = session_id or GLOBAL_SESSION
        tool = await self._registry.find(name, home)
        given = _given(tool, parameters, streams=True)
        with _Recorded(self._audit, tool, home, parameters, on_behalf_of):
            nested = None
            if on_behalf_of is None or tool.concurrency is not None:
                nested = LocalCall(name, on_behalf_of)
            try:
                async with aclosing(self._items_of(tool, given, home, nested)) as items:
                    async for item in items:
                        yield item
            finally:
                if nested is not None:
                    nested.ended = True

    # --- looking ---------------------------------------------------------------------------------

    async def audit(self, session_id: str | None = None, *, limit: int = 100) -> Sequence[ToolCall]:
        """Return the records of the last calls, of one session or of all, the newest first.

        They are kept for thirty days, also when the session has ended.
        """
        whole_number("limit", limit)
        return await self._audit.calls(session_id, limit=limit)

    @operation("tools")
    async def list(self, *, session_id: str | None = None) -> Sequence[Tool]:
        """Return all tools that can be called in the session, by name."""
        visible = await self._registry.visible(session_id or GLOBAL_SESSION)
        return [visible[name] for name in sorted(visible)]

    async def aclose(self) -> None:
        """Write down the records that are left. Idempotent."""
        await self._registry.aclose()
        await self._audit.aclose()

    def _run(
        self, tool: Tool, given: dict[str, Any], home: str, nested: LocalCall | None
    ) -> Awaitable[Any]:
        if tool.kind == "host":
            return self._runner.run(tool, given, nested)
        return self._run_in_worker(tool, given, home, nested)

    async def _run_in_worker(
        self, tool: Tool, given: dict[str, Any], home: str, nested: LocalCall | None
    ) -> Any:
        async with (
            self._runner.slot(tool, nested) as left,
            self._calls.begin(_unless_global(home), left) as call,
        ):
            state, _, _ = await call.view()
            arguments = _request(tool, given, state)
            try:
                return await call.execute("tools.run", arguments, idempotent=tool.idempotent)
            except CallTimeout as error:
                # Earlier, it was the limit of the call that this one is a part of.
                if tool.timeout is None or time.monotonic() < call.deadline:
                    raise
                late = took_too_long(tool)
                late.outcome, late.retryable = error.outcome, error.retryable
                raise late from error

    def _items_of(
        self, tool: Tool, given: dict[str, Any], home: str, nested: LocalCall | None
    ) -> AsyncGenerator[Any]:
        if tool.kind == "host":
            return self._runner.stream(tool, given, nested)
        return self._stream_of_worker(tool, given, home, nested)

    async def _stream_of_worker(
        self, tool: Tool, given: dict[str, Any], home: str, nested: LocalCall | None
    ) -> AsyncGenerator[Any]:
        async with (
            self._runner.slot(tool, nested),
            self._calls.begin(_unless_global(home)) as call,
        ):
            state, _, _ = await call.view()
            arguments = _request(tool, given, state)
            produced = call.stream("tools.stream", arguments, idle_timeout=tool.timeout)
            async with aclosing(inside(nested, produced)) as items:
                async for item in items:
                    yield item

    async def _add(self, tool: Tool, replace: bool) -> Tool:
        await self._registry.add(tool, replace=replace)
        self._runner.forget(tool.session_id, tool.name)
        _log.debug("tool %r registered in session %r", tool.name, tool.session_id)
        return tool


def _failure(tool: str, session_id: str, error: BaseException) -> str:
    if not isinstance(error, SnakepitError):
        return "cancelled"
    # Of what the tool raised the type alone: its text may have values in it.
    raised = error.details.get("error") if isinstance(error, ToolExecutionFailed) else None
    what = raised or error.code
    _log.error("tool execution failed: %r in session %r: %s", tool, session_id, what)
    return error.code


def _given(tool: Tool, parameters: object, *, streams: bool) -> dict[str, Any]:
    """The keyword arguments of a call."""
    schema = tool.schema
    if schema.streams is not streams:
        told = (
            "is a generator; iterate over it with tools.stream(), or stream_tool() of a client"
            if schema.streams
            else "is no generator; call it with tools.call(), or call_tool() of a client"
        )
        raise StreamingNotSupported(f"the tool {tool.name!r} {told}", details={"tool": tool.name})
    return schema.check(tool.name, {} if parameters is None else parameters)


def _request(tool: Tool, given: dict[str, Any], state: Any) -> dict[str, Any]:
    return {"name": tool.name, "path": tool.path, "parameters": given, "state": state}


def _unless_global(session_id: str | None) -> str | None:
    """The session that a worker's call runs in: tools of all run in that of their caller."""
    return None if session_id == GLOBAL_SESSION else session_id


def _options(
    timeout: float | timedelta | None,
    concurrency: int | None,
    idempotent: bool,
    allow: Sequence[str],
    metadata: Mapping[str, Any] | None,
) -> Options:
    if isinstance(allow, str) or not all(isinstance(pattern, str) for pattern in allow):
        raise ValidationFailed("allow is a list of patterns for session ids, such as ['team-*']")
    return Options(
        timeout=None if timeout is None else seconds("timeout", timeout),
        concurrency=None if concurrency is None else whole_number("concurrency", concurrency),
        idempotent=bool(idempotent),
        allow=tuple(allow),
        metadata=read_metadata(metadata),
    )


def _tool(
    name: str,
    session_id: str | None,
    schema: Schema,
    options: Options,
    *,
    function: Callable[..., Any] | None = None,
    path: str | None = None,
) -> Tool:
    return Tool(
        name=name,
        session_id=session_id or GLOBAL_SESSION,
        kind="worker" if function is None else "host",
        path=path,
        schema=schema,
        timeout=options.timeout,
        concurrency=options.concurrency,
        idempotent=options.idempotent,
        allow=options.allow,
        metadata=options.metadata,
        registered_at=datetime.now(UTC),
        function=function,
    )
