"""A pool for one scenario, with the after-check behind it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from after_check import (
    SETTLE,
    Baseline,
    after_check,
    answer,
    assert_accounted,
    assert_serves,
    fresh_calls,
    until_full,
)
from process_table import (
    descendants,
    keeper_of,
    parent_of,
    pids_of,
    processes,
    template_of,
)
from processes import until

from snakepit import Pool, PythonAdapter

__all__ = [
    "SETTLE",
    "WORKER",
    "Baseline",
    "after_check",
    "answer",
    "assert_accounted",
    "assert_serves",
    "descendants",
    "faulty_pool",
    "fresh_calls",
    "import_path",
    "keeper_of",
    "new_pool",
    "outcomes_of",
    "parent_of",
    "pids_of",
    "processes",
    "resident_bytes",
    "settled",
    "template_of",
    "until_full",
]

WORKER = "fault_worker:Victim"


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


def import_path() -> str:
    """A PYTHONPATH with which a program of its own finds these helpers."""
    root = Path(__file__).parents[2]
    folders = [root / each for each in ("tests/faults", "tests/support", "packages/snakepit/tests")]
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
