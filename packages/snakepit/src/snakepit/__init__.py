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
    from snakepit.adapters.adapter import Adapter, CallOptions, WorkerSpec, validate_implementation
    from snakepit.adapters.devices import Devices
    from snakepit.adapters.limits import ResourceLimits
    from snakepit.adapters.program_adapter import ProgramAdapter
    from snakepit.adapters.python_adapter import PythonAdapter
    from snakepit.calls.call_infos import CallInfo
    from snakepit.calls.nesting import HostCall
    from snakepit.calls.stats import PoolStats, WorkerInfo
    from snakepit.errors import SnakepitError
    from snakepit.executor.executor import ProcessPoolExecutor
    from snakepit.inline.adapter import InlineAdapter
    from snakepit.loops.loop_thread import LoopThread
    from snakepit.policies.breaker import CircuitBreaker
    from snakepit.policies.hedge import HedgePolicy
    from snakepit.policies.retry import RetryPolicy
    from snakepit.policies.stack import with_policies
    from snakepit.pool.explain import Explanation
    from snakepit.pool.pool import Pool
    from snakepit.pool.session import Session, generate_session_id
    from snakepit.processes.sweep import sweep_orphans
    from snakepit.supervision.health import Health
    from snakepit.supervision.heartbeat import Heartbeat
    from snakepit.supervision.recycling import RecyclePolicy
    from snakepit.supervision.sizing import Sizing
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
    "LoopThread",
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
    "Adapter": "adapters.adapter",
    "Batch": "worker.batches",
    "CallContext": "worker.context",
    "CallInfo": "calls.call_infos",
    "CallOptions": "adapters.adapter",
    "CircuitBreaker": "policies.breaker",
    "Devices": "adapters.devices",
    "Explanation": "pool.explain",
    "Health": "supervision.health",
    "Heartbeat": "supervision.heartbeat",
    "HedgePolicy": "policies.hedge",
    "HostCall": "calls.nesting",
    "InlineAdapter": "inline.adapter",
    "LoopThread": "loops.loop_thread",
    "Pool": "pool.pool",
    "PoolStats": "calls.stats",
    "ProcessPoolExecutor": "executor.executor",
    "ProgramAdapter": "adapters.program_adapter",
    "PythonAdapter": "adapters.python_adapter",
    "RecyclePolicy": "supervision.recycling",
    "ResourceLimits": "adapters.limits",
    "RetryPolicy": "policies.retry",
    "Session": "pool.session",
    "Sizing": "supervision.sizing",
    "SnakepitError": "errors",
    "WorkerInfo": "calls.stats",
    "WorkerSpec": "adapters.adapter",
    "command": "worker.registry",
    "current_call": "worker.context",
    "generate_session_id": "pool.session",
    "sweep_orphans": "processes.sweep",
    "validate_implementation": "adapters.adapter",
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
