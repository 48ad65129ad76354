"""What is measured, round by round. Figures are microseconds of one operation."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.state.host import Host, State, placed, running_host, running_state
from benchmarks.state.programs import per_call
from benchmarks.storage import Bare
from snakepit_grpc_bridge.storage import Transaction
from snakepit_grpc_bridge.tools.records import TOOL_CALLS, ToolCallRow

__all__ = ["Measures", "opened"]

_LIMITS: Final = {"min": 0.0, "max": 1.0}
_PROGRAMS: Final = (
    *("local_call", "cached_read", "uncached_read", "host_call", "host_tool"),
    "blocking_host_tool",
)
_SESSION: Final = "measured"


class Measures:
    """All of them, on services that are running."""

    def __init__(self, host: Host, durable: State, bare: Bare) -> None:
        self._host = host
        self._durable = durable
        self._bare = bare
        self._declaration = host.state.variables.types.declare("float", _LIMITS)
        self._dict: dict[tuple[str, str], Any] = {(_SESSION, "limited"): 0.5}
        self._number = 0

    async def round(self, seconds: float) -> dict[str, float]:
        """Measure each for so many seconds."""
        variables = self._host.state.variables
        get: Any = partial(variables.get, _SESSION, "limited")
        put: Any = partial(variables.set, _SESSION, "limited", 0.5)
        found = {
            "dict_get": per_call(self._get, seconds, 200),
            "get": await _per_await(get, seconds),
            "dict_set": per_call(self._set, seconds, 200),
            "set": await _per_await(put, seconds),
            "call": await _per_await(self._call, seconds),
        }
        for name in _PROGRAMS:
            path = f"benchmarks.state.programs.{name}"
            found[name] = await self._host.python.call(path, [seconds], session_id=_SESSION)
        found |= await self._durable_round(seconds)
        return {f"{name}_us": 1e6 * each for name, each in found.items()}

    async def _durable_round(self, seconds: float) -> dict[str, float]:
        write: Any = partial(self._durable.variables.set, _SESSION, "limited", 0.5)
        inserts = await _by_turns(self._bare.insert, self._insert, seconds)
        writes = await _by_turns(self._bare.write, write, seconds)
        return {
            "bare_insert": inserts[0],
            "durable_insert": inserts[1],
            "bare_write": writes[0],
            "durable_set": writes[1],
        }

    def _get(self) -> Any:
        return self._declaration.copy(self._dict[_SESSION, "limited"])

    def _set(self) -> None:
        self._dict[_SESSION, "limited"] = self._declaration.read(0.5)

    async def _call(self) -> object:
        return await self._host.pool.execute("echo", {"data": 0.5})

    async def _insert(self) -> bool:
        self._number += 1
        row = ToolCallRow(_SESSION, self._number, "tool", None, 2.5, 2.5, "ok")

        def work(tx: Transaction) -> bool:
            return tx.insert(TOOL_CALLS, row)

        return await self._durable.storage.transact(work)


@asynccontextmanager
async def opened(folder: Path, mode: str) -> AsyncIterator[Measures]:
    """Everything that the measures need: a host with a worker, and databases in a folder."""
    async with AsyncExitStack() as stack:
        place = stack.enter_context(placed(mode))
        host = await stack.enter_async_context(running_host())
        durable = await stack.enter_async_context(running_state(f"sqlite:///{folder}/state.db"))
        bare = Bare(folder / "bare.db")
        stack.callback(bare.close)
        for state in (host.state, durable):
            await state.sessions.start(_SESSION, ttl=None)
            await state.variables.create(_SESSION, "limited", "float", 0.5, constraints=_LIMITS)
        await host.state.variables.create(
            _SESSION, "expiring", "float", 0.5, constraints=_LIMITS, ttl=3600
        )
        await host.tools.register("echo", _echo)
        await host.tools.register("blocking_echo", _blocking_echo)
        place()
        yield Measures(host, durable, bare)


async def _echo(data: float) -> float:
    return data


def _blocking_echo(data: float) -> float:
    return data


async def _by_turns(
    bare: Callable[[], object], ours: Callable[[], Awaitable[object]], seconds: float
) -> tuple[float, float]:
    """The medians of what the two take, one after the other: a disk is slow for a while, and then
    fast for a while.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    now = time.perf_counter()
    end = now + 2 * seconds
    while now < end:
        start = now
        bare()
        between = time.perf_counter()
        await ours()
        now = time.perf_counter()
        taken[0].append(between - start)
        taken[1].append(now - between)
    return statistics.median(taken[0]), statistics.median(taken[1])


async def _per_await(function: Callable[[], Awaitable[object]], seconds: float) -> float:
    """The median of the seconds that an awaited call takes."""
    taken: list[float] = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        start = now
        await function()
        now = time.perf_counter()
        taken.append(now - start)
    return statistics.median(taken)
