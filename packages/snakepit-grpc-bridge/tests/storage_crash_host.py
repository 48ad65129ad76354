"""Hosts that are killed while they write, for the crash tests of storages.

    python storage_crash_host.py

Reads one line of JSON for each host: `url`, `point` and `passes`, or `acknowledged`. It forks a
child that writes without end, and is killed by SIGKILL when it passes the fault point for that many
times, or when it has acknowledged so many transactions. Answers with a line of JSON: `last`, the
number of the last transaction that each writer was told of.

Everything is imported once, and no storage is opened before the fork, so that a host starts within
milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from storage_tables import COUNTERS, ITEMS, SCHEMA, Counter, Item

# Imported here rather than in each child.
from snakepit_grpc_bridge.storage import FaultPoint, Storage, Transaction, open_storage
from snakepit_grpc_bridge.storage.sql import postgres, sqlite

WRITERS = 3
TOTAL = "total"
KEPT = 20
LARGE = bytes(range(256)) * 512
_loaded = (postgres, sqlite)


def step(tx: Transaction, name: str) -> int:
    """Write rows of three kinds, which belong together; return the number of the step."""
    counted = tx.get(COUNTERS, name)
    total = tx.get(COUNTERS, TOTAL)
    number = 1 if counted is None else counted.count + 1
    tx.put(COUNTERS, Counter(name, number))
    value = LARGE if number % 10 == 0 else number
    tx.insert(ITEMS, Item(name, number, weight=float(number), value=value))
    tx.delete(ITEMS, name, number - KEPT)
    tx.put(COUNTERS, Counter(TOTAL, 1 if total is None else total.count + 1))
    return number


class Host:
    """The child: writes, tells of each transaction, and kills itself when it is time."""

    def __init__(self, order: dict[str, Any], pipe: int) -> None:
        self._url = order["url"]
        self._point = order.get("point")
        self._passes: int = order.get("passes", 0)
        self._pipe = pipe

    def pass_point(self, point: FaultPoint) -> None:
        if point == self._point:
            self._passes -= 1
            if self._passes == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def write(self, storage: Storage, name: str) -> None:
        while True:
            number = await storage.transact(lambda tx: step(tx, name))
            os.write(self._pipe, f"{name} {number}\n".encode())

    async def run(self) -> None:
        async with open_storage(
            self._url, SCHEMA, timeout=30.0, fault_point=self.pass_point
        ) as storage:
            await asyncio.gather(*(self.write(storage, f"w{n}") for n in range(WRITERS)))


def run_one(order: dict[str, Any]) -> dict[str, Any]:
    """Run a host until its death; return what it had told."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            asyncio.run(Host(order, write).run())
        finally:
            os._exit(1)
    os.close(write)
    last: dict[str, int] = {}
    told = 0
    with os.fdopen(read) as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            name, number = line.split()
            last[name] = int(number)
            told += 1
            if told == order.get("acknowledged"):
                os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return {"last": last, "status": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_one(json.loads(line))), flush=True)
