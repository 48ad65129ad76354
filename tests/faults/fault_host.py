"""A host for tests that kill it: ``python fault_host.py VARIANT``. It says "ready", then waits."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from fault_pool import new_pool, settled

from snakepit import Pool

FAMILIES = ("child", "multiprocessing", "daemon", "nested")


def say(*words: object) -> None:
    print(*words, flush=True)


async def serve_for_ever(pool: Pool, commands: list[str]) -> None:
    """Keep workers busy in several ways, and say so."""
    calls = [asyncio.create_task(pool.execute(command)) for command in commands]
    stream = pool.execute_stream("count", {"n": 10**9})
    assert await anext(stream) == 0
    await settled(lambda: pool.stats().running == len(commands) + 1, "all run")
    say("ready")
    async for _ in stream:
        pass
    await asyncio.gather(*calls)


async def run(variant: str) -> None:
    options: dict[str, Any] = {"size": 3}
    match variant:
        case "starting":
            options["adapter"] = {"config": {"fault": "hang"}}
        case "starting_spawned":
            options["adapter"] = {"config": {"fault": "hang"}, "start": "spawn"}
        case "importing":
            options["adapter"] = {"env": {"FAULT_AT_IMPORT": "hang"}}
        case "spawned":
            options["adapter"] = {"start": "spawn"}
        case "concurrent":
            options["concurrency"] = 4
    if variant.startswith(("starting", "importing")):
        say("ready")  # as far as it will come
    async with new_pool(**options) as pool:
        await with_pool(variant, pool)


async def with_pool(variant: str, pool: Pool) -> None:
    match variant:
        case "never_served":
            say("ready")
            await asyncio.Event().wait()
        case "two_pools":
            async with new_pool() as other:
                await other.execute("add", {"x": 1})
                await serve_for_ever(pool, ["spin", "hold_gil"])
        case "families":
            for kind in FAMILIES:
                await pool.execute("start_family", {"kind": kind})
            await serve_for_ever(pool, ["spin"])
        case "forked":
            # A copy of every descriptor of this process stays open in somebody else's hands.
            child = os.fork()
            if child == 0:
                signal.pause()
            say("spare", child)
            await serve_for_ever(pool, ["spin", "hold_gil"])
        case "concurrent":
            await serve_for_ever(pool, ["spin", "sleep", "spin"])
        case _:
            await serve_for_ever(pool, ["spin", "hold_gil"])


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
