"""Kill hosts that write, and look at what they leave. Used by the quick tests and by the soak."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from storage_crash_host import KEPT, TOTAL, WRITERS
from storage_tables import COUNTERS, ITEMS, SCHEMA

from snakepit_grpc_bridge.storage import FaultPoint, ReadTransaction, open_storage

HOST = Path(__file__).with_name("storage_crash_host.py")
#: Where hosts are killed, in turn; None is wherever they are after some transactions.
PLACES: tuple[FaultPoint | None, ...] = (*FaultPoint, None)
SIGKILLED = -9


@contextlib.asynccontextmanager
async def crash_host() -> AsyncIterator[Process]:
    """The process that forks hosts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HOST), stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def run_host(hosts: Process, **order: Any) -> dict[str, Any]:
    """Run one host until it is killed; return what it was told."""
    assert process_is_up(hosts)
    assert hosts.stdin is not None
    assert hosts.stdout is not None
    hosts.stdin.write(json.dumps(order).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await hosts.stdout.readline())
    assert answer["status"] == SIGKILLED, "the fault has struck"
    return answer


def process_is_up(hosts: Process) -> bool:
    return hosts.returncode is None


async def crash_rounds(url: str, rounds: int, seed: int) -> None:
    """Kill a host at each place in turn; look after each that nothing is lost or half there."""
    dice = random.Random(seed)
    before: dict[str, int] = {}
    async with crash_host() as hosts:
        for _, place in zip(range(rounds), itertools.cycle(PLACES), strict=False):
            order: dict[str, Any] = {"url": url}
            if place is None:
                order["acknowledged"] = dice.randint(1, 30)
            else:
                order |= {"point": place, "passes": dice.randint(1, 30)}
            answer = await run_host(hosts, **order)
            before = await check(url, before, answer["last"], f"{order} (seed {seed})")


async def check(
    url: str, before: dict[str, int], told: dict[str, int], what: str
) -> dict[str, int]:
    """Compare what is there with what was told; return the number of each writer's steps."""
    async with open_storage(url, SCHEMA, timeout=10.0) as storage:
        counters = await storage.read(lambda tx: tx.scan(COUNTERS.span()))
        counts = {counter.name: counter.count for counter in counters}
        total = counts.pop(TOTAL, 0)
        assert total == sum(counts.values()), f"half a transaction: {what}"
        for number in range(WRITERS):
            name = f"w{number}"
            count = counts.get(name, 0)
            least = max(told.get(name, 0), before.get(name, 0))
            # One more may have been committed, whose acknowledgement died with the host.
            assert least <= count <= least + 1, f"{name} has {count}, told {least}: {what}"
            found = await storage.read(partial(numbers, name=name))
            assert found == list(range(max(1, count - KEPT + 1), count + 1)), what
    if url.startswith("sqlite"):
        assert integrity(url) == "ok", what
    return counts


def numbers(tx: ReadTransaction, name: str) -> list[int]:
    return [item.number for item in tx.scan(ITEMS.span(name))]


def integrity(url: str) -> str:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        answer: str = database.execute("PRAGMA integrity_check").fetchone()[0]
        return answer
