"""Every error `dspex` raises, under one root: `SnakepitError`.

The classes are defined in the layer where they arise; this module only gathers the names a user of
`dspex` meets, so that `except dspex.errors.CallTimeout` needs no second import.
"""

from __future__ import annotations

from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    PoolClosed,
    PoolSaturated,
    PoolStartFailed,
    RemoteError,
    SnakepitError,
    WorkerLost,
)
from snakepit_grpc_bridge.errors import (
    DuplicateTool,
    InputMismatch,
    InvalidCategory,
    ModelNotFound,
    NotAllowed,
    OutputFieldMissing,
    SessionLost,
    SessionNotFound,
    SignatureInvalid,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
    VariableNotFound,
)

__all__ = [
    "CallTimeout",
    "ConfigurationError",
    "DuplicateTool",
    "InputMismatch",
    "InvalidCategory",
    "ModelNotFound",
    "NotAllowed",
    "OutputFieldMissing",
    "PoolClosed",
    "PoolSaturated",
    "PoolStartFailed",
    "RemoteError",
    "SessionLost",
    "SessionNotFound",
    "SignatureInvalid",
    "SnakepitError",
    "ToolExecutionFailed",
    "ToolNotFound",
    "ValidationFailed",
    "VariableNotFound",
    "WorkerLost",
]
