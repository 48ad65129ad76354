"""Calls of all kinds while workers are killed all the time; used by a test and by the soak."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from fault_pool import Baseline, after_check, fresh_calls, new_pool, pids_of, settled

from snakepit import HostCall, Pool
from snakepit.errors import SnakepitError, StreamBroken, WorkerLost


async def same(call: HostCall, value: int) -> int:
    """A host function that gives back what it gets."""
    return value


@dataclass
class Storm:
    """What happened: the calls by their end, and the workers killed."""

    ends: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Calls that have ended."""
        return self.ends.total()


async def call_unary(pool: Pool, number: int) -> object:
    return await pool.execute("echo", {"value": number})


async def call_in_session(pool: Pool, number: int) -> object:
    return await pool.execute("echo", {"value": number}, session_id=f"s{number % 7}")


async def call_async(pool: Pool, number: int) -> object:
    return await pool.execute("aadd", {"x": number, "y": 0})


async def call_nested(pool: Pool, number: int) -> object:
    args = {"name": "same", "args": {"value": number}}
    return await pool.execute("call_host", args)


async def call_stream(pool: Pool, number: int) -> object:
    items = [item async for item in pool.execute_stream("count", {"n": 50})]
    return number if items == list(range(50)) else items


# More than a death costs: so most calls end well, however slow they are.
_RESULTS_BETWEEN = 20
KINDS: tuple[Callable[[Pool, int], Awaitable[object]], ...] = (
    call_unary, call_unary, call_unary, call_in_session, call_async, call_nested, call_stream,
)  # fmt: skip


async def rage(
    calls: int, *, seed: int, interval: float = 0.05, size: int = 2, concurrency: int = 1
) -> Storm:
    """Make ``calls`` calls, 16 at a time, while every ``interval`` seconds a worker is killed.

    A worker is spared as long as few calls have ended well since the last death: on a slow machine
    it would be a crash loop, which ends the pool. When it is over, the pool passes the after-check.
    """
    storm = Storm()
    functions = {"same": same}
    async with new_pool(size=size, concurrency=concurrency, host_functions=functions) as pool:
        await fresh_calls(pool)
        before, submitted = Baseline.take(), pool.stats().submitted
        dice, killed = random.Random(seed), set[int]()
        numbers = iter(range(calls))
        callers = [asyncio.create_task(_call_on(pool, numbers, storm)) for _ in range(16)]
        enough = 0
        while any(not caller.done() for caller in callers):
            # The pause between two kills, unless all is over before.
            await asyncio.wait(callers, timeout=interval)
            if storm.ends["own result"] < enough:
                continue
            enough = storm.ends["own result"] + _RESULTS_BETWEEN
            with suppress(IndexError, ProcessLookupError):  # all are being replaced; already dead
                victim = dice.choice(pids_of(pool))
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        await asyncio.gather(*callers)
        await settled(lambda: not killed & set(pids_of(pool)), "every death is noticed")
        storm.kills = len(killed)
        assert pool.stats().submitted - submitted == calls
        await after_check(pool, before)
    return storm


async def _call_on(pool: Pool, numbers: Iterator[int], storm: Storm) -> None:
    for number in numbers:
        make = KINDS[number % len(KINDS)]
        try:
            result = await make(pool, number)
        except SnakepitError as error:
            storm.ends[type(error).__name__] += 1
            if not isinstance(error, WorkerLost | StreamBroken):
                storm.wrong.append(f"{make.__name__}({number}): {error!r}")
        else:
            storm.ends["own result" if result == number else "another's result"] += 1
