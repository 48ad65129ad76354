"""What programs in workers can ask of the host. Each call sees its own session alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import snakepit
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION
from snakepit_grpc_bridge.tools.schema import plain_result
from snakepit_grpc_bridge.tools.service import ToolService
from snakepit_grpc_bridge.variables.access import VariableAccess, listed, visible
from snakepit_grpc_bridge.variables.call_view import Found
from snakepit_grpc_bridge.variables.rows import VariableRow
from snakepit_grpc_bridge.variables.types import validate_value
from snakepit_grpc_bridge.variables.writing import ANY_VERSION

__all__ = ["host_functions"]


def host_functions(
    variables: VariableAccess, get_tools: Callable[[], ToolService]
) -> dict[str, Callable[..., Any]]:
    """Return the functions for a program pool's workers, by name.

    The session is always that of the call: a worker can't name another one.
    """
    return _of_variables(variables) | _of_tools(get_tools)


def _of_variables(variables: VariableAccess) -> dict[str, Callable[..., Any]]:
    async def get_variable(call: snakepit.HostCall, name: str, required: bool) -> list[Any]:
        session_id = _session_of(call)
        found = await variables.find_for_worker(session_id, name)
        if required and found.type is None:
            raise await variables.missing(session_id, name)
        return _as_list(found)

    async def put_variable(
        call: snakepit.HostCall,
        name: str,
        value: Any,
        expected: int | None = ANY_VERSION,
        was: str | None = None,
    ) -> list[Any]:
        session_id, by = _session_of(call), call.worker_id
        if was is not None:  # the type of what travelled as plain data
            value = validate_value(value, was)
        return _as_list(await variables.put_from_worker(session_id, name, value, expected, by))

    async def delete_variable(call: snakepit.HostCall, name: str) -> list[Any]:
        session_id, by = _session_of(call), call.worker_id
        deleted, left = await variables.delete_from_worker(session_id, name, by)
        return [deleted, *_as_list(left)]

    async def variable_exists(call: snakepit.HostCall, name: str) -> bool:
        work = partial(visible, identifier=name)
        return await variables.read(_session_of(call), work) is not None

    async def list_variables(call: snakepit.HostCall, pattern: str) -> list[dict[str, Any]]:
        work = partial(listed, pattern=pattern, include_global=True)
        return [_described(row) for row in await variables.read(_session_of(call), work)]

    return {
        "variables.get": get_variable,
        "variables.put": put_variable,
        "variables.delete": delete_variable,
        "variables.exists": variable_exists,
        "variables.list": list_variables,
    }


def _of_tools(get_tools: Callable[[], ToolService]) -> dict[str, Callable[..., Any]]:
    async def describe_tool(call: snakepit.HostCall, name: str) -> dict[str, Any]:
        tool = await get_tools().get(name, session_id=_session_of(call))
        return tool.schema.describe()

    async def call_tool(call: snakepit.HostCall, name: str, parameters: Mapping[str, Any]) -> Any:
        result = await get_tools().call(name, parameters, _session_of(call), on_behalf_of=call)
        return plain_result(result)

    async def stream_tool(
        call: snakepit.HostCall, name: str, parameters: Mapping[str, Any]
    ) -> AsyncGenerator[Any]:
        items = get_tools().stream(name, parameters, _session_of(call), on_behalf_of=call)
        async with aclosing(items):
            async for item in items:
                yield plain_result(item)

    async def list_tools(call: snakepit.HostCall) -> list[dict[str, Any]]:
        return [tool.describe() for tool in await get_tools().list(session_id=_session_of(call))]

    return {
        "tools.call": call_tool,
        "tools.describe": describe_tool,
        "tools.stream": stream_tool,
        "tools.list": list_tools,
    }


def _as_list(found: Found) -> list[Any]:
    # Flat, because each list in an answer takes a while to read.
    return [found.type, found.value, found.version, found.keeps, *found.state]


def _described(row: VariableRow) -> dict[str, Any]:
    scope = "global" if row.session_id == GLOBAL_SESSION else "session"
    return {
        "id": row.id, "name": row.name, "type": row.type, "version": row.version, "scope": scope,
    }  # fmt: skip


def _session_of(call: snakepit.HostCall) -> str:
    return call.session_id or GLOBAL_SESSION
