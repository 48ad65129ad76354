"""Supervised worker processes for Python code.

A pool runs the commands of a class in worker processes, with sessions, streams, and deadlines that
stop work; a worker's death costs only the calls it had. Begin with :class:`Pool` and
:class:`PythonAdapter`; ``snakepit.errors`` holds what can go wrong, ``snakepit.testing`` is for
tests.

Example: the class lives in a file that the workers import, here ``greeter.py`` ::

    import snakepit


    class Greeter:
        @snakepit.command
        def greet(self, name: str) -> str:
            return f"Hello, {name}!"

and the program names it::

    import asyncio

    from snakepit import Pool, PythonAdapter


    async def main() -> None:
        async with Pool(PythonAdapter("greeter:Greeter"), size=2) as pool:
            print(await pool.execute("greet", {"name": "Ada"}, timeout=5.0))


    if __name__ == "__main__":
        asyncio.run(main())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snakepit.version import __version__

if TYPE_CHECKING:
    from snakepit import telemetry
    from snakepit.adapter import Adapter, CallOptions, WorkerSpec, validate_implementation
    from snakepit.call_infos import CallInfo
    from snakepit.devices import Devices
    from snakepit.errors import SnakepitError
    from snakepit.executor.executor import ProcessPoolExecutor
    from snakepit.explain import Explanation
    from snakepit.inline.adapter import InlineAdapter
    from snakepit.limits import ResourceLimits
    from snakepit.nesting import HostCall
    from snakepit.policies.breaker import CircuitBreaker
    from snakepit.policies.hedge import HedgePolicy
    from snakepit.policies.retry import RetryPolicy
    from snakepit.policies.stack import with_policies
    from snakepit.pool import Pool
    from snakepit.processes.sweep import sweep_orphans
    from snakepit.program_adapter import ProgramAdapter
    from snakepit.python_adapter import PythonAdapter
    from snakepit.session import Session, generate_session_id
    from snakepit.sizing import Sizing
    from snakepit.stats import PoolStats, WorkerInfo
    from snakepit.supervision.health import Health
    from snakepit.supervision.heartbeat import Heartbeat
    from snakepit.supervision.recycling import RecyclePolicy
    from snakepit.worker.batches import Batch
    from snakepit.worker.context import CallContext, current_call
    from snakepit.worker.registry import command

__all__ = [
    "Adapter",
    "Batch",
    "CallContext",
    "CallInfo",
    "CallOptions",
    "CircuitBreaker",
    "Devices",
    "Explanation",
    "Health",
    "Heartbeat",
    "HedgePolicy",
    "HostCall",
    "InlineAdapter",
    "Pool",
    "PoolStats",
    "ProcessPoolExecutor",
    "ProgramAdapter",
    "PythonAdapter",
    "RecyclePolicy",
    "ResourceLimits",
    "RetryPolicy",
    "Session",
    "Sizing",
    "SnakepitError",
    "WorkerInfo",
    "WorkerSpec",
    "__version__",
    "command",
    "current_call",
    "generate_session_id",
    "sweep_orphans",
    "telemetry",
    "validate_implementation",
    "with_policies",
]

# Imported when first used: a worker needs no pool, and the keeper nothing but the standard library.
_HOMES = {
    "Adapter": "adapter",
    "Batch": "worker.batches",
    "CallContext": "worker.context",
    "CallInfo": "call_infos",
    "CallOptions": "adapter",
    "CircuitBreaker": "policies.breaker",
    "Devices": "devices",
    "Explanation": "explain",
    "Health": "supervision.health",
    "Heartbeat": "supervision.heartbeat",
    "HedgePolicy": "policies.hedge",
    "HostCall": "nesting",
    "InlineAdapter": "inline.adapter",
    "Pool": "pool",
    "PoolStats": "stats",
    "ProcessPoolExecutor": "executor.executor",
    "ProgramAdapter": "program_adapter",
    "PythonAdapter": "python_adapter",
    "RecyclePolicy": "supervision.recycling",
    "ResourceLimits": "limits",
    "RetryPolicy": "policies.retry",
    "Session": "session",
    "Sizing": "sizing",
    "SnakepitError": "errors",
    "WorkerInfo": "stats",
    "WorkerSpec": "adapter",
    "command": "worker.registry",
    "current_call": "worker.context",
    "generate_session_id": "session",
    "sweep_orphans": "processes.sweep",
    "validate_implementation": "adapter",
    "with_policies": "policies.stack",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name == "telemetry":
            return import_module(f"{__name__}.{name}")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
