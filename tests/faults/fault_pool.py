"""A pool for one scenario, and what has to be true after every one of them (the after-check)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from processes import until

from snakepit import HostCall, Pool, PythonAdapter

WORKER = "fault_worker:Victim"
# How long the system may take to settle.
SETTLE = 10.0


async def answer(call: HostCall) -> int:
    """The host function of the fresh call of that kind."""
    return 42


def new_pool(
    target: str = WORKER, adapter: Mapping[str, Any] | None = None, **options: Any
) -> Pool:
    """A pool that is not started."""
    functions = {"answer": answer, **options.pop("host_functions", {})}
    return Pool(
        PythonAdapter(target, **(adapter or {})),
        # What is killed here is mostly killed from outside, again and again in the same call.
        **{"size": 2, "host_functions": functions, "quarantine_after": None, **options},
    )


@asynccontextmanager
async def faulty_pool(target: str = WORKER, **options: Any) -> AsyncIterator[Pool]:
    """A pool for a scenario; when that is over, the after-check runs on it."""
    async with new_pool(target, **options) as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        yield pool
        await after_check(pool, before)


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What this process holds while a pool is at rest."""

    descriptors: int
    threads: int
    tasks: int

    @classmethod
    def take(cls) -> Baseline:
        # Threads that only the tests' own waiting uses are not the pool's.
        threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
        return cls(
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(threads),
            tasks=len(asyncio.all_tasks()),
        )

    def excess(self) -> dict[str, tuple[int, int]]:
        """What there is more of now, with both figures."""
        now = Baseline.take()
        names = [field.name for field in fields(self)]
        figures = {name: (getattr(self, name), getattr(now, name)) for name in names}
        return {name: pair for name, pair in figures.items() if pair[1] > pair[0]}


async def after_check(pool: Pool, before: Baseline, *others: Pool) -> None:
    """Accounting, processes, descriptors, threads, tasks, leftovers, life; in that order.

    (Silence on stderr is the business of a fixture, and what is left when the pool is closed that
    of another.) ``others`` are pools of the same loop, which share the keeper.
    """
    await until(lambda: not _gauges(pool), f"all gauges are zero: {_gauges(pool)}", SETTLE)
    await until_full(pool)
    assert_accounted(pool)
    await until(
        lambda: not strangers(pool, *others), "only the pool's own processes are left", SETTLE
    )
    await until(lambda: not before.excess(), f"back at the baseline: {before.excess()}", SETTLE)
    await fresh_calls(pool)


async def until_full(pool: Pool) -> None:
    """Wait until all workers are ready, none is leaving, and none is dead without its knowledge."""

    def full() -> bool:
        infos = pool.workers()
        if len(infos) != pool.stats().size or any(info.leaving for info in infos):
            return False
        table = processes()
        return all(pid in table and table[pid].state not in "ZX" for pid in pids_of(pool))

    await until(full, f"the pool is at its size again: {pool!r}", SETTLE)


def _gauges(pool: Pool) -> dict[str, int]:
    stats = pool.stats()
    gauges = {"queued": stats.queued, "running": stats.running, "stopping": stats.stopping}
    return {name: value for name, value in gauges.items() if value}


def assert_accounted(pool: Pool) -> None:
    """Every submitted call has ended, and is counted once."""
    stats = pool.stats()
    assert (stats.queued, stats.running, stats.stopping) == (0, 0, 0)
    ended = stats.succeeded + stats.failed + stats.timed_out + stats.cancelled
    assert stats.submitted == ended, stats


async def fresh_calls(pool: Pool) -> None:
    """One call of each kind."""
    assert await pool.execute("add", {"x": 1}, timeout=SETTLE) == 2
    assert await pool.execute("aadd", {"x": 1}, timeout=SETTLE) == 2
    assert [i async for i in pool.execute_stream("count", {"n": 40}, timeout=SETTLE)] == [
        *range(40)
    ]
    async with pool.session() as session:
        assert await session.execute("echo", {"value": b"x"}, timeout=SETTLE) == b"x"
    assert await pool.execute("acall_host", {"name": "answer"}, timeout=SETTLE) == 42


# --- processes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    state: str


def processes() -> dict[int, Process]:
    """All processes of this machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                # A process may have any bytes as its name.
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            found[int(name)] = Process(int(name), int(parent), state)
    return found


def parent_of(pid: int) -> int:
    """The parent of a living process."""
    return processes()[pid].parent


def descendants(root: int) -> dict[int, Process]:
    """All processes below ``root``."""
    table = processes()

    def is_below(process: Process) -> bool:
        while process.parent != root:
            parent = table.get(process.parent)
            if parent is None:
                return False
            process = parent
        return True

    return {pid: process for pid, process in table.items() if pid != root and is_below(process)}


def pids_of(pool: Pool) -> list[int]:
    """The pids of a pool's workers."""
    return [int(info.pid or 0) for info in pool.workers()]


def keeper_of(pool: Pool) -> int:
    """The pid of the process that keeps a pool's workers; 0 while none of them lives."""
    table = processes()
    return next((table[pid].parent for pid in pids_of(pool) if pid in table), 0)


def template_of(pool: Pool) -> int | None:
    """The pid of the process that a pool's workers are forked from, if one is up."""
    children = [p.pid for p in processes().values() if p.parent == keeper_of(pool)]
    others = [pid for pid in children if pid not in pids_of(pool)]
    return others[0] if others else None


def strangers(*pools: Pool) -> list[Process]:
    """Processes below the keeper that are neither a worker of a pool nor its one template."""
    workers = {pid for pool in pools for pid in pids_of(pool)}
    keeper = keeper_of(pools[0])
    others = [p for pid, p in descendants(keeper or 1).items() if pid not in workers]
    templates = [p for p in others if p.parent == keeper and p.state != "Z"][: len(pools)]
    return [p for p in others if p not in templates]


def import_path() -> str:
    """A PYTHONPATH with which a program of its own finds these helpers."""
    folders = [Path(__file__).parent, Path(__file__).parents[2] / "packages/snakepit/tests"]
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    return os.pathsep.join([*map(str, folders), *inherited])


def resident_bytes() -> int:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def outcomes_of(*calls: asyncio.Task[Any]) -> list[Any]:
    """Their results or errors."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def settled(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the system does by itself."""
    await until(condition, what, SETTLE)
