"""Sessions, variables and tools without workers, for tests of what the host does with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.state import PLATFORM_SCHEMA
from snakepit_grpc_bridge.storage import Storage, open_storage
from snakepit_grpc_bridge.tools import ToolService
from snakepit_grpc_bridge.variables import VariableService
from snakepit_grpc_bridge.variables.access import VariableAccess
from snakepit_grpc_bridge.variables.types import Secret, TypeRegistry
from snakepit_grpc_bridge.variables.values import Values


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class NoWorkers:
    """Stands where the workers are, in tests that must not need one."""

    def begin(self, *_: object) -> Any:
        raise AssertionError("this needs a worker")


@dataclass(frozen=True)
class State:
    """What a platform has of state, and the clock that it goes by."""

    clock: Clock
    storage: Storage
    sessions: SessionService
    access: VariableAccess
    variables: VariableService
    tools: ToolService


@asynccontextmanager
async def running_state(
    url: str = "memory", *, secret_keys: Sequence[Secret] = (), **options: Any
) -> AsyncIterator[State]:
    """The state of one host, in which a session "s" is open; ``options`` are those of sessions."""
    clock = Clock()
    storage = open_storage(url, PLATFORM_SCHEMA)
    sessions = SessionService(storage, clock=clock, **options)
    values = Values(TypeRegistry(), secret_keys=secret_keys, durable=url != "memory")
    access = VariableAccess(storage, sessions, values)
    tools = ToolService(storage, sessions, NoWorkers())  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(storage)
        await sessions.open_global()
        stack.push_async_callback(sessions.aclose)
        stack.push_async_callback(tools.aclose)
        stack.push_async_callback(access.aclose)
        if not await sessions.exists("s"):
            await sessions.start("s")
        yield State(clock, storage, sessions, access, VariableService(access), tools)
