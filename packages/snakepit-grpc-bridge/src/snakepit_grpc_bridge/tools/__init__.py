"""Tools: functions of the host that programs in the workers can call."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_grpc_bridge.tools.schema import Parameter, Schema, read_schema
    from snakepit_grpc_bridge.tools.service import Tool, ToolService

__all__ = ["Parameter", "Schema", "Tool", "ToolService", "read_schema"]

# Imported when first used: a worker reads schemas, and needs no service.
_HOMES = {
    "Parameter": "schema",
    "Schema": "schema",
    "Tool": "service",
    "ToolService": "service",
    "read_schema": "schema",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
