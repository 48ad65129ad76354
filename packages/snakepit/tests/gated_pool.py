"""A pool whose workers can be held busy until the test lets them go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from after_check import CheckedPool

from snakepit import CallOptions, HostCall, Pool, PythonAdapter, WorkerSpec
from snakepit.testing.waiting import until


def adapter() -> PythonAdapter:
    """``add`` of this one's workers returns 11 more than it gets."""
    return PythonAdapter("pool_worker:Worker", config={"base": 10})


class Gate:
    """Workers call the host functions ``hold``, which lasts until the gate opens, and ``note``."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.held = 0
        self.noted: list[Any] = []

    async def hold(self, call: HostCall) -> None:
        self.held += 1
        await self.opened.wait()

    def note(self, call: HostCall, what: Any) -> None:
        self.noted.append(what)

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        return {"hold": self.hold, "note": self.note}


@asynccontextmanager
async def gated_pool(**options: Any) -> AsyncIterator[tuple[Pool, Gate]]:
    """A pool of one worker, and the gate; it is opened at the end."""
    gate = Gate()
    options = {"size": 1, "start_timeout": 20.0} | options
    async with CheckedPool(adapter(), host_functions=gate.functions, **options) as pool:
        try:
            yield pool, gate
        finally:
            gate.opened.set()


async def hold_all(pool: Pool, gate: Gate, count: int = 1, **options: Any) -> list[Any]:
    """Have calls hold that many slots."""
    held = gate.held + count
    args = {"name": "hold", "args": {}}
    calls = [asyncio.create_task(pool.execute("call_host", args, **options)) for _ in range(count)]
    await until(lambda: gate.held == held, "all are held")
    return calls


def noting(pool: Pool, what: Any, **options: Any) -> asyncio.Task[Any]:
    args = {"name": "note", "args": {"what": what}}
    return asyncio.create_task(pool.execute("call_host", args, **options))


class Reluctant:
    """An adapter whose second worker fails to start, and whose third waits for the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.starts = 0

    async def start_worker(self, spec: WorkerSpec) -> object:
        self.starts += 1
        if self.starts == 2:
            raise RuntimeError("not yet")
        if self.starts > 2:
            await self.gate.wait()
        return object()

    async def execute(
        self, worker: object, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> None:
        return None
