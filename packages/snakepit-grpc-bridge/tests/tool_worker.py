"""A worker that describes and calls functions that it is told by path."""

from __future__ import annotations

import sys
from typing import Any

import snakepit
from snakepit_grpc_bridge.tools.paths import find_function
from snakepit_grpc_bridge.tools.schema import plain_result, read_schema

ALLOWED = ("tool_functions", "statistics", "string")


class ToolWorker:
    @snakepit.command
    def describe(self, path: str) -> dict[str, Any]:
        return read_schema(find_function(path, ALLOWED)).describe()

    @snakepit.command
    def call(self, path: str, parameters: dict[str, Any]) -> Any:
        function = find_function(path, ALLOWED)
        given = read_schema(function).check(path, parameters)
        return plain_result(function(**given))

    @snakepit.command
    def modules(self) -> list[str]:
        return sorted(name for name in sys.modules if name.startswith("snakepit_grpc_bridge"))
