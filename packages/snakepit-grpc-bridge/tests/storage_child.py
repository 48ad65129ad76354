"""Processes that the storage's tests start: other hosts, and hosts with limits.

    python storage_child.py TASK URL [ARGUMENT]

Each prints one line of JSON when it has ended.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

from storage_tables import COUNTERS, ITEMS, SCHEMA, Counter, Item

from snakepit.errors import SnakepitError
from snakepit_grpc_bridge.storage import FaultPoint, Storage, Transaction, open_storage

LARGE = os.urandom(300_000)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def code_of(error: BaseException) -> str:
    return error.code if isinstance(error, SnakepitError) else type(error).__name__


async def attempt(storage: Storage, work: Any) -> str:
    """Run a transaction; return `ok` or the code of its error."""
    try:
        await storage.transact(work)
    except Exception as error:
        return code_of(error)
    return "ok"


def put(number: int, value: object = None) -> Any:
    return lambda tx: tx.put(ITEMS, Item("g", number, value=value))


async def numbers(storage: Storage) -> list[int]:
    items = await storage.read(lambda tx: tx.scan(ITEMS.span()))
    return [item.number for item in items]


async def count(url: str, times: str) -> None:
    """16 tasks that raise one counter by compare-and-set, reading it in another transaction."""

    async def counting(storage: Storage) -> int:
        done = conflicts = 0
        while done < int(times):
            seen = await storage.read(lambda tx: tx.get(COUNTERS, "c"))
            if await storage.transact(partial(compare_and_set, seen=seen)):
                done += 1
            else:
                conflicts += 1
        return conflicts

    async with open_storage(url, SCHEMA, timeout=30.0) as storage:
        conflicts = await asyncio.gather(*(counting(storage) for _ in range(16)))
    say(conflicts=sum(conflicts))


def compare_and_set(tx: Transaction, seen: Counter | None) -> bool:
    if tx.get(COUNTERS, "c") != seen:
        return False
    tx.put(COUNTERS, Counter("c", 1 if seen is None else seen.count + 1))
    return True


async def fill(url: str, folder: str) -> None:
    """Write large values until there is no room; make room; write again."""
    async with open_storage(url, SCHEMA) as storage:
        ends = [await attempt(storage, put(number, LARGE)) for number in range(20)]
        full = [await attempt(storage, put(100 + number, LARGE)) for number in range(3)]
        kept = await numbers(storage)
        make_room(folder)
        say(
            ends=ends,
            full=full,
            kept=kept == [number for number, end in enumerate(ends) if end == "ok"],
            again=await attempt(storage, put(200, b"small")),
        )


def make_room(folder: str) -> None:
    if folder:
        Path(folder, "ballast").unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))


async def limited(url: str, size: str) -> None:
    """As `fill`, with a limit on the size of files instead of a small disk."""
    async with open_storage(url, SCHEMA):
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), -1))
    await fill(url, "")


async def unprivileged(url: str, _: str) -> None:
    """Open and write as a user who may only read."""
    storage = open_storage(url, SCHEMA, timeout=1.0)  # imports what that user may not read
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        async with storage:
            say(end=await attempt(storage, put(1)))
    except SnakepitError as error:
        say(end=error.code, retryable=error.retryable, message=error.message)


def fork(url: str) -> None:
    """Use a storage in a forked child, which then forgets it."""
    with asyncio.Runner() as runner:
        storage = open_storage(url, SCHEMA)
        runner.run(storage.start())
        runner.run(storage.transact(put(1)))
        pid = os.fork()
        if pid == 0:
            # In the parent's loop, of which the child has a copy, and in one of its own.
            say(end=runner.run(asyncio.wait_for(attempt(storage, put(3)), 10)))
            asyncio.run(in_child(storage))
            del storage
            gc.collect()
            os._exit(0)  # the event loop is the parent's
        _, status = os.waitpid(pid, 0)
        end = runner.run(attempt(storage, put(2)))
        say(status=os.waitstatus_to_exitcode(status), end=end, numbers=runner.run(numbers(storage)))
        runner.run(storage.aclose())


async def in_child(storage: Storage) -> None:
    say(end=await attempt(storage, put(3)))
    await storage.aclose()


async def hold(url: str, _: str) -> None:
    """Stay in a transaction until a line comes in."""

    def wait(point: FaultPoint) -> None:
        if point is FaultPoint.BEFORE_COMMIT:
            say(holds=True)
            sys.stdin.readline()

    async with open_storage(url, SCHEMA, fault_point=wait) as storage:
        say(end=await attempt(storage, lambda tx: tx.put(COUNTERS, Counter("held", 1))))


TASKS = {
    "count": count,
    "fill": fill,
    "limited": limited,
    "unprivileged": unprivileged,
    "hold": hold,
}

if __name__ == "__main__":
    task, url, *rest = sys.argv[1:]
    if task == "fork":
        fork(url)
    else:
        asyncio.run(TASKS[task](url, rest[0] if rest else ""))
