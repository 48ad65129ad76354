"""The error tree of the process pool.

Every error has one root, :class:`SnakepitError`, and says with plain attributes what a program
needs to decide: ``code`` (stable, for logs and other languages), ``outcome`` (did the call's work
happen?), ``retryable`` (is the same call, sent again, safe and likely to pass?) and ``details``
(plain data). Errors cross process boundaries by ``code`` and arrive as the same class, with their
chain of causes. Packages on top of this one declare their own subclasses in the same way::

    class VariableNotFound(SnakepitError, KeyError):
        code = "variable_not_found"

Builtin exceptions are mixed in *after* the snakepit base, so that ``str(error)`` stays the message.
"""

from __future__ import annotations

from snakepit.errors.base import (
    CallError,
    Outcome,
    ProtocolError,
    RemoteError,
    SnakepitError,
    ValueTransportError,
    as_typed,
    error_from_wire,
    error_to_wire,
    raised_to_wire,
)
from snakepit.errors.call_errors import (
    CallDepthExceeded,
    CallTimeout,
    HostCallCancelled,
    LimitName,
    NoCurrentCall,
    StreamBroken,
    StreamingNotSupported,
    UnknownCommand,
)
from snakepit.errors.configuration_errors import (
    AdapterInitFailed,
    AdapterInvalid,
    ConfigurationError,
)
from snakepit.errors.pool_errors import (
    CircuitOpen,
    NoWorkersAvailable,
    PoisonCall,
    PoolBroken,
    PoolClosed,
    PoolError,
    PoolNotReady,
    PoolSaturated,
    PoolStartFailed,
    QueueTimeout,
    SessionWorkerUnavailable,
    WorkerBusy,
)
from snakepit.errors.value_errors import (
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    VersionMismatch,
)
from snakepit.errors.worker_errors import (
    ResourceLimitExceeded,
    WorkerError,
    WorkerHung,
    WorkerLost,
    WorkerStartFailed,
)

__all__ = [
    "AdapterInitFailed",
    "AdapterInvalid",
    "CallDepthExceeded",
    "CallError",
    "CallTimeout",
    "CircuitOpen",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "HostCallCancelled",
    "LimitName",
    "NoCurrentCall",
    "NoWorkersAvailable",
    "Outcome",
    "PayloadTooLarge",
    "PoisonCall",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "PoolNotReady",
    "PoolSaturated",
    "PoolStartFailed",
    "ProtocolError",
    "QueueTimeout",
    "RemoteError",
    "ResourceLimitExceeded",
    "SessionWorkerUnavailable",
    "SnakepitError",
    "StreamBroken",
    "StreamingNotSupported",
    "UnknownCommand",
    "ValueTransportError",
    "VersionMismatch",
    "WorkerBusy",
    "WorkerError",
    "WorkerHung",
    "WorkerLost",
    "WorkerStartFailed",
    "as_typed",
    "error_from_wire",
    "error_to_wire",
    "raised_to_wire",
]
