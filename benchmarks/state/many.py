"""`python -m benchmarks.state.many URL SESSIONS`: many sessions, of ten variables each.

Prints a line of JSON. It is a process of its own, because it tells of memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from benchmarks.pool import machine
from benchmarks.state.host import State, running_state

_VARIABLES = {f"variable_{number}": number / 10 for number in range(10)}
_TASKS = 32
_TTL = 600.0
_PULSE = 0.001


class Clock:
    """Stands until it is moved on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Blocked:
    """How long the event loop was kept at most, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_PULSE)
            self.longest = max(self.longest, time.perf_counter() - start - _PULSE)


@asynccontextmanager
async def watched() -> AsyncIterator[Blocked]:
    """Look at the loop while a block runs."""
    blocked = Blocked()
    watching = asyncio.create_task(blocked.watch())
    await asyncio.sleep(0)
    try:
        yield blocked
    finally:
        # What keeps the loop at the very end is told, too.
        await asyncio.sleep(2 * _PULSE)
        watching.cancel()


async def measure(url: str, sessions: int) -> dict[str, float]:
    """Open, weigh and end them."""
    clock = Clock()
    async with running_state(url, clock, max_sessions=sessions) as state:
        before = _weight()
        opening = time.perf_counter()
        await _open(state, sessions)
        opened = time.perf_counter() - opening
        weight = _weight() - before
        clock.now += 2 * _TTL
        async with watched() as blocked:
            start = time.perf_counter()
            swept = await state.sessions.sweep()
            took = time.perf_counter() - start
    if swept != sessions:
        raise AssertionError(f"{swept} of {sessions} sessions were ended")
    return {
        "sessions": sessions,
        "open_us": 1e6 * opened / sessions,
        "bytes": weight / sessions,
        "sweep_us": 1e6 * took / sessions,
        "sweep_blocks_ms": 1e3 * blocked.longest,
    }


async def _open(state: State, sessions: int) -> None:
    numbers = iter(range(sessions))

    async def one_after_another() -> None:
        for number in numbers:
            session = await state.sessions.start(f"session-{number}", ttl=_TTL)
            await state.variables.update_many(session.id, _VARIABLES)
            await state.variables.get(session.id, "variable_0")

    await asyncio.gather(*(one_after_another() for _ in range(_TASKS)))


def _weight() -> float:
    gc.collect()
    return 1e6 * machine.memory_mb(os.getpid())["private"]


def main(argv: Sequence[str], tell: Callable[[str], None] = print) -> int:
    """Measure and print."""
    url, sessions = argv
    tell(json.dumps(asyncio.run(measure(url, int(sessions)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
