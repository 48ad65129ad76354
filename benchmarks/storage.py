"""`python -m benchmarks.storage`: what a durable write costs, against the database alone.

The write is that of a variable: read a row, write it, insert one of its history, count in a third.
Everything takes turns in one process, on files of one folder, so that only ratios are to be read.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit_grpc_bridge.storage import Schema, Storage, Table, Transaction, open_storage

WRITERS = 32
VALUE = b"x" * 50


@dataclass(frozen=True, slots=True)
class Variable:
    session: str
    name: str
    version: int
    updated: float
    expires: float | None
    value: Any


@dataclass(frozen=True, slots=True)
class Past:
    session: str
    name: str
    version: int
    updated: float
    value: Any


@dataclass(frozen=True, slots=True)
class Counter:
    name: str
    count: int


VARIABLES = Table(
    "variables",
    Variable,
    key=("session", "name"),
    indexes={"expiry": ("expires",)},
    values=("value",),
)
HISTORY = Table("history", Past, key=("session", "name", "version"), values=("value",))
COUNTERS = Table("counters", Counter, key=("name",))
SCHEMA = Schema(tables=(VARIABLES, HISTORY, COUNTERS))


def write(tx: Transaction, session: str = "s") -> None:
    """Write a variable as a service of the platform would."""
    found = tx.get(VARIABLES, session, "n")
    version = 1 if found is None else found.version + 1
    tx.put(VARIABLES, Variable(session, "n", version, 2.5, None, VALUE))
    tx.insert(HISTORY, Past(session, "n", version, 2.5, VALUE))
    counter = tx.get(COUNTERS, session)
    tx.put(COUNTERS, Counter(session, 1 if counter is None else counter.count + 1))


class Bare:
    """The driver alone, in the thread that measures, with the pragmas of the storage."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._number = 0
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE v (s TEXT, n TEXT, version INT, t, x, d BLOB, PRIMARY KEY (s, n))",
            "CREATE TABLE h (s TEXT, n TEXT, version INT, t, d BLOB, PRIMARY KEY (s, n, version))",
            "CREATE TABLE c (n TEXT PRIMARY KEY, count INT) WITHOUT ROWID",
            "INSERT INTO v VALUES ('s', 'n', 0, 0.0, NULL, x'00')",
            "INSERT INTO c VALUES ('s', 0)",
        ):
            self._database.execute(statement)

    def close(self) -> None:
        self._database.close()

    def insert(self) -> None:
        """One row, durably: the least that there is."""
        run = self._database.execute
        self._number += 1
        run("BEGIN IMMEDIATE")
        run("INSERT INTO h VALUES ('s', 'n', ?, ?, ?)", (self._number, 2.5, VALUE))
        run("COMMIT")

    def write(self) -> None:
        """The statements of :func:`write`."""
        run = self._database.execute
        self._number += 1
        run("BEGIN IMMEDIATE")
        run("SELECT * FROM v WHERE s = ? AND n = ?", ("s", "n")).fetchone()
        run(
            "INSERT INTO v VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (s, n) DO UPDATE SET "
            "version = excluded.version, t = excluded.t, x = excluded.x, d = excluded.d",
            ("s", "n", self._number, 2.5, None, VALUE),
        )
        run("INSERT INTO h VALUES (?, ?, ?, ?, ?)", ("s", "n", self._number, 2.5, VALUE))
        run("SELECT * FROM c WHERE n = ?", ("s",)).fetchone()
        run(
            "INSERT INTO c VALUES (?, ?) ON CONFLICT (n) DO UPDATE SET count = excluded.count",
            ("s", self._number),
        )
        run("COMMIT")


async def one_by_one(storage: Storage, times: int) -> float:
    """The median of single writes, each awaited."""
    return await median(lambda: storage.transact(write), times)


async def at_once(storage: Storage, times: int) -> float:
    """Seconds a write, when 32 tasks write their own variables."""

    async def writer(name: str) -> None:
        for _ in range(max(1, times // WRITERS)):
            await storage.transact(lambda tx: write(tx, name))

    start = time.perf_counter()
    await asyncio.gather(*(writer(f"s{number}") for number in range(WRITERS)))
    return (time.perf_counter() - start) / (max(1, times // WRITERS) * WRITERS)


async def median(action: Callable[[], Awaitable[object]], times: int) -> float:
    """The median of the seconds that an action takes."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        await action()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


async def measure(folder: Path, rounds: int, times: int) -> dict[str, float]:
    """The median over all rounds of each figure, in seconds."""
    found: dict[str, list[float]] = {}
    bare = Bare(folder / "bare.db")

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(seconds)

    def timed(action: Callable[[], None]) -> float:
        spent = []
        for _ in range(times):
            start = time.perf_counter()
            action()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent)

    try:
        async with (
            open_storage(f"sqlite:///{folder}/state.db", SCHEMA) as sqlite,
            open_storage("memory", SCHEMA) as memory,
        ):
            for _ in range(rounds):
                note("bare insert", timed(bare.insert))
                note("bare write", timed(bare.write))
                note("write", await one_by_one(sqlite, times))
                note("write, 32 tasks", await at_once(sqlite, times))
                note("read", await median(lambda: sqlite.read(_read), times))
                note("write in memory", await one_by_one(memory, times))
                note("read in memory", await median(lambda: memory.read(_read), times))
    finally:
        bare.close()
    return {name: statistics.median(each) for name, each in found.items()}


def _read(tx: Any) -> object:
    return tx.get(VARIABLES, "s", "n")


def main(argv: Sequence[str]) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--times", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="where the databases are made")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = asyncio.run(measure(Path(folder), options.rounds, options.times))
    for name, seconds in found.items():
        print(f"{name:20s} {seconds * 1e6:8.1f} us  {seconds / found['bare insert']:6.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
