"""What a worker may use, and what happens when it goes over it. With real processes."""

from __future__ import annotations

from typing import Any

import pytest
from after_check import CheckedPool
from processes import until
from supervised_worker import MIB

from snakepit import Pool, PythonAdapter, ResourceLimits
from snakepit.errors import (
    ConfigurationError,
    PoolStartFailed,
    RemoteError,
    ResourceLimitExceeded,
    WorkerStartFailed,
)

WORKER = "supervised_worker:Worker"


def limited(start: Any = "template", **limits: int) -> Pool:
    return CheckedPool(PythonAdapter(WORKER, start=start, limits=ResourceLimits(**limits)), size=1)


@pytest.mark.parametrize("start", ["template", "spawn"])
@pytest.mark.parametrize("command", ["leak", "big_result"])
async def test_21_what_goes_over_the_memory_gets_memory_error_and_a_new_worker_follows(
    start: Any, command: str
) -> None:
    async with limited(start, memory=300 * MIB) as pool:
        before = await pool.execute("pid")
        with pytest.raises(RemoteError) as caught:
            await pool.execute(command, {"mib": 280})
        assert caught.value.remote_type == "MemoryError"
        assert await pool.execute("pid") != before
        assert pool.stats().workers_lost == 0
        assert len(await pool.execute("big_result", {"mib": 10})) == 10 * MIB


async def test_the_cpu_time_ends_a_worker_and_the_error_names_it() -> None:
    async with limited(cpu_time=1) as pool:
        with pytest.raises(ResourceLimitExceeded) as caught:
            await pool.execute("spin")
        error = caught.value
        assert error.signal == "SIGXCPU"
        assert "CPU time" in str(error.reason)
        assert "in spin\n" in error.last_output
        await until(lambda: len(pool.workers()) == 1, "it is replaced")
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_too_many_open_files_are_an_error_of_the_call_alone() -> None:
    async with limited(open_files=64) as pool:
        before = await pool.execute("pid")
        with pytest.raises(OSError, match="Too many open files"):
            await pool.execute("open_files", {"count": 100})
        assert await pool.execute("open_files", {"count": 10}) == 10
        assert await pool.execute("pid") == before


async def test_a_limit_below_what_a_worker_needs_to_start_is_named() -> None:
    pool = limited(memory=MIB)
    with pytest.raises(PoolStartFailed, match="by its limit") as caught:
        await pool.start()
    assert isinstance(caught.value.__cause__, WorkerStartFailed)
    assert isinstance(caught.value.__cause__.__cause__, ConfigurationError)


@pytest.mark.parametrize("limits", [{"memory": 0}, {"cpu_time": 1.5}, {"open_files": 63}])
def test_impossible_limits_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        ResourceLimits(**limits)


def test_limits_of_another_type_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="limits"):
        PythonAdapter(WORKER, limits={"memory": 5})  # type: ignore[arg-type]
