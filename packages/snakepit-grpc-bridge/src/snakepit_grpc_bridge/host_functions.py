"""What programs in workers can ask of the host. Each call sees its own session alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import snakepit
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION
from snakepit_grpc_bridge.tools import ToolService
from snakepit_grpc_bridge.variables import VariableService

__all__ = ["host_functions"]


def host_functions(variables: VariableService, tools: ToolService) -> dict[str, Callable[..., Any]]:
    """Return the functions for a program pool's workers, by name.

    The session is always that of the call: a worker can't name another one.
    """

    async def get_variable(call: snakepit.HostCall, name: str, **default: Any) -> Any:
        return await variables.get(_session_of(call), name, *default.values())

    async def put_variable(call: snakepit.HostCall, name: str, value: Any) -> None:
        await variables.put(_session_of(call), name, value)

    async def call_tool(call: snakepit.HostCall, name: str, parameters: Mapping[str, Any]) -> Any:
        return await tools.call(name, parameters, _session_of(call))

    async def list_tools(call: snakepit.HostCall) -> list[dict[str, Any]]:
        return [tool.describe() for tool in await tools.list(session_id=_session_of(call))]

    return {
        "variables.get": get_variable,
        "variables.put": put_variable,
        "tools.call": call_tool,
        "tools.list": list_tools,
    }


def _session_of(call: snakepit.HostCall) -> str:
    return call.session_id or GLOBAL_SESSION
