"""Hosts that the tests of platforms start: processes with workers of their own.

    python platform_child.py TASK URL [ARGUMENT]

Each says in lines of JSON how far it has come.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import numpy as np
from endless_work import EndlessWork
from full_disks import FULL
from running_platform import running_platform

from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.variables import Secret

WRITERS, TIMES = 8, 5


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def count(platform: Platform) -> None:
    """In each of two workers, eight tasks that add one to the same variable."""
    say(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    call = platform.python.call
    args = ("n", WRITERS, TIMES)
    pids = await asyncio.gather(
        *(call("state_programs.count_up_together", args, session_id="s") for _ in range(2))
    )
    say(pids=pids)


async def build_up(platform: Platform) -> None:
    """Fill a session, and be killed."""
    variables, tools = platform.variables, platform.tools
    session = await platform.sessions.start(
        "s", metadata={"user": "ada"}, affinity="strict_queue", concurrency=3
    )
    await variables.create(session.id, "n", "integer", 1, constraints={"max": 5})
    for number in (2, 3):
        await variables.set(session.id, "n", number)
    await variables.put(session.id, "weights", np.arange(200_000.0))
    await variables.put(session.id, "key", Secret("hunter2-hunter2"))
    await tools.register_python_function("rate", "state_programs:rate", session_id=session.id)
    await variables.put(session.id, "rate", 2)
    await tools.register("mine", lambda: 1, session_id=session.id)
    await platform.python.call("state_programs.write", ["by_worker", 1], session_id=session.id)
    await tools.call("mine", {}, session.id)
    say(done=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def fill(url: str, how: str) -> None:
    """Write large values until there is no room, and go on when there is some again."""
    async with running_platform(storage=url, workers=3) as platform:
        work = await EndlessWork.start(platform, value=large)
        with FULL[how](url):
            await work.fails(GROWING)
            read = len(await platform.variables.get("s", "by_host"))
            pid = await platform.python.call("state_programs.pid", session_id="s")
            seen = await platform.python.call("state_programs.size", ["by_host"], session_id="s")
        await work.is_done()
        await work.stop()
        await work.check()
        lost = platform.pool.stats().workers_lost
    async with running_platform(storage=url) as platform:
        await work.check(platform)
    say(
        reasons=sorted({getattr(reason, "code", repr(reason)) for reason in work.reasons()}),
        read=[read, seen],
        called=pid != os.getpid(),
        lost=lost,
    )


GROWING = ("by_host", "by_worker", "by_tool", "both")


def large(number: int) -> bytes:
    """Small enough for the history to keep it; now and then too large for that."""
    return number.to_bytes(4, "big") * (500_000 if number % 5 == 0 else 15_000)


async def main(task: str, url: str, *keys: str) -> None:
    if task == "fill":
        await fill(url, *keys)
        return
    workers = 2 if task == "count" else 1
    async with running_platform(storage=url, workers=workers, secret_keys=keys) as platform:
        await {"count": count, "build_up": build_up}[task](platform)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
