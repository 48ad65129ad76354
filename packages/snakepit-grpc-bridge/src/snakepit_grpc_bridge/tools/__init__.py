"""Tools: functions of the host that programs in the workers can call."""

from __future__ import annotations

from snakepit_grpc_bridge.tools.schema import Parameter
from snakepit_grpc_bridge.tools.service import Tool, ToolService

__all__ = ["Parameter", "Tool", "ToolService"]
