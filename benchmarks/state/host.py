"""The services of a platform, with one worker that has no DSPy and no language model."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import snakepit
from benchmarks.pool import machine
from benchmarks.pool.session import ONE_CORE, SPLIT
from snakepit_grpc_bridge.host_functions import host_functions
from snakepit_grpc_bridge.program_pools import ProgramPools
from snakepit_grpc_bridge.python.host import PythonService
from snakepit_grpc_bridge.python.worker import PythonCommands
from snakepit_grpc_bridge.session_calls import SessionCalls
from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.state import PLATFORM_SCHEMA
from snakepit_grpc_bridge.storage import Storage, open_storage
from snakepit_grpc_bridge.tools import ToolService
from snakepit_grpc_bridge.variables import TypeRegistry, VariableService
from snakepit_grpc_bridge.variables.access import VariableAccess
from snakepit_grpc_bridge.variables.values import Values

__all__ = ["Host", "State", "placed", "running_host", "running_state"]

_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class State:
    """What a platform has of state."""

    storage: Storage
    sessions: SessionService
    access: VariableAccess
    variables: VariableService


@dataclass(frozen=True, slots=True)
class Host:
    """That, with tools and a worker."""

    state: State
    tools: ToolService
    python: PythonService
    pool: snakepit.Pool


class Worker(PythonCommands):
    """Runs programs, and a command that does nothing."""

    _allowed = ("benchmarks",)

    @snakepit.command
    def echo(self, data: float) -> float:
        """Return what came."""
        return data


@asynccontextmanager
async def running_state(
    url: str, clock: Callable[[], float] = time.time, max_sessions: int = 100
) -> AsyncIterator[State]:
    """The state of one host on a storage."""
    storage = open_storage(url, PLATFORM_SCHEMA)
    sessions = SessionService(storage, max_sessions=max_sessions, clock=clock)
    access = VariableAccess(storage, sessions, Values(TypeRegistry(), durable=url != "memory"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(storage)
        await sessions.open_global()
        stack.push_async_callback(sessions.aclose)
        stack.push_async_callback(access.aclose)
        yield State(storage, sessions, access, VariableService(access))


@asynccontextmanager
async def running_host() -> AsyncIterator[Host]:
    """A host with its state in memory, and a worker."""

    def make_pool(name: str, size: int) -> snakepit.Pool:
        functions = host_functions(state.access, lambda: tools)
        adapter = snakepit.PythonAdapter("benchmarks.state.host:Worker")
        return snakepit.Pool(
            adapter, size=size, name=name, host_functions={**functions, "echo": _echo}
        )

    async with running_state("memory") as state, AsyncExitStack() as stack:
        pools = ProgramPools(make_pool, 1, state.sessions)
        calls = SessionCalls(pools, state.sessions, state.access, _TIMEOUT)
        tools = ToolService(state.storage, state.sessions, calls)
        stack.push_async_callback(tools.aclose)
        stack.push_async_callback(pools.aclose)
        await pools.start()
        await pools.shared.await_ready()
        yield Host(state, tools, PythonService(calls, ("benchmarks",)), pools.shared)


async def _echo(_call: snakepit.HostCall, data: float) -> float:
    return data


@contextmanager
def placed(mode: str) -> Iterator[Callable[[], None]]:
    """Run a block in a mode of :mod:`benchmarks.pool.session`. What it gives is to be called when
    all processes are there.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if mode == ONE_CORE:
        machine.pin([os.getpid()], cpus[:1])

    def place() -> None:
        if mode == SPLIT:
            machine.pin(machine.descendants(os.getpid()), cpus[1:2])
            machine.pin([os.getpid()], cpus[:1])

    try:
        yield place
    finally:
        machine.pin([os.getpid()], cpus)
