"""The types of variables: what each takes, how it is stored, and what readers get. Pure.

=====================  ============================================================================
``variable_type``      what a type and a constraint are made of
``catalog``            the built-in types, as data
``registry``           the types of one platform: the built-in ones and its own
``declaration``        a type with constraints: reads the values of a variable
``scalars``            numbers, booleans, text, bytes
``datetimes``          dates with times
``plain``              what lists and maps hold
``arrays``             numpy's arrays, and what shares its memory
``embeddings``         vectors of finite numbers
``handles``            models, data sets and modules: what stands for them
``secret, sealing``    text that nobody sees by accident, and its encrypted form
``limits``             the constraints of the built-in types
``builtin``            reading without a registry
=====================  ============================================================================

numpy, pydantic and cryptography are imported only when a value or a constraint needs them.
"""

from __future__ import annotations

from snakepit_grpc_bridge.variables.types.builtin import (
    copy_value,
    infer_type,
    supported_types,
    validate_constraints,
    validate_value,
)
from snakepit_grpc_bridge.variables.types.declaration import Declaration
from snakepit_grpc_bridge.variables.types.handles import DatasetHandle, ModelHandle
from snakepit_grpc_bridge.variables.types.limits import bounds, choices, lengths, pattern
from snakepit_grpc_bridge.variables.types.registry import TypeRegistry
from snakepit_grpc_bridge.variables.types.sealing import seal, unseal
from snakepit_grpc_bridge.variables.types.secret import Secret
from snakepit_grpc_bridge.variables.types.variable_type import Check, Constraint, VariableType

__all__ = [
    "Check",
    "Constraint",
    "DatasetHandle",
    "Declaration",
    "ModelHandle",
    "Secret",
    "TypeRegistry",
    "VariableType",
    "bounds",
    "choices",
    "copy_value",
    "infer_type",
    "lengths",
    "pattern",
    "seal",
    "supported_types",
    "unseal",
    "validate_constraints",
    "validate_value",
]
