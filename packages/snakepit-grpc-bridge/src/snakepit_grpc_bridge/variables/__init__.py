"""Typed session variables, kept in the host and readable and writable from workers.

``types`` has the types and all about values; ``service`` keeps the variables.
"""

from __future__ import annotations

from snakepit_grpc_bridge.variables.service import Variable, VariableService
from snakepit_grpc_bridge.variables.types import (
    Check,
    Constraint,
    DatasetHandle,
    Declaration,
    ModelHandle,
    Secret,
    TypeRegistry,
    VariableType,
    bounds,
    choices,
    infer_type,
    lengths,
    pattern,
    seal,
    supported_types,
    unseal,
    validate_value,
)

__all__ = [
    "Check",
    "Constraint",
    "DatasetHandle",
    "Declaration",
    "ModelHandle",
    "Secret",
    "TypeRegistry",
    "Variable",
    "VariableService",
    "VariableType",
    "bounds",
    "choices",
    "infer_type",
    "lengths",
    "pattern",
    "seal",
    "supported_types",
    "unseal",
    "validate_value",
]
