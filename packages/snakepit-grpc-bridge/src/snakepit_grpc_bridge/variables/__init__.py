"""Typed session variables, kept in the host and readable and writable from workers."""

from __future__ import annotations

from snakepit_grpc_bridge.variables.service import Variable, VariableService
from snakepit_grpc_bridge.variables.types import infer_type, supported_types, validate_value

__all__ = ["Variable", "VariableService", "infer_type", "supported_types", "validate_value"]
