"""Part C: memory, descriptors, processors and disks that run out."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_pool import faulty_pool, outcomes_of, pids_of, settled
from processes import alive

from snakepit.errors import RemoteError, WorkerLost

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


async def test_21_a_memory_error_is_the_calls_and_the_worker_is_replaced() -> None:
    async with faulty_pool(size=1) as pool:
        before = pids_of(pool)
        await pool.execute("limit_memory", {"megabytes": 64})
        with pytest.raises(RemoteError) as caught:
            await pool.execute("allocate", {"megabytes": 512}, timeout=10)
        assert caught.value.remote_type == "MemoryError"
        assert await pool.execute("allocate", {"megabytes": 1}) == 1 << 20
        await settled(lambda: not set(pids_of(pool)) & set(before), "the worker is replaced")


async def test_21_memory_that_runs_out_while_a_result_is_encoded_fails_its_call() -> None:
    async with faulty_pool(size=1) as pool:
        await pool.execute("limit_memory", {"megabytes": 48})
        with pytest.raises((RemoteError, WorkerLost)):
            # Small in memory, since it is one text many times; large on the wire.
            await pool.execute("large", {"megabytes": 256}, timeout=20)
        assert await pool.execute("add", {"x": 1}, timeout=10) == 2


@contextlib.contextmanager
def memory_group(megabytes: int) -> Iterator[Path]:
    """A control group whose processes the kernel kills when they need more. Skips the test where
    none can be made: it takes root, and a controller that is not bound elsewhere.
    """
    for base, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / f"snakepit-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists() and os.access(group / limit, os.W_OK):
                (group / limit).write_text(str(megabytes << 20))
                yield group
                return
        finally:
            with contextlib.suppress(OSError):  # a process is left in it, as the test has failed
                group.rmdir()
    pytest.skip("no memory control group can be made here")


async def test_21_an_out_of_memory_kill_costs_the_culprit_alone_and_is_named() -> None:
    async with faulty_pool(size=2) as pool:
        pids = pids_of(pool)
        with memory_group(48) as group:
            (group / "cgroup.procs").write_text(str(pids[0]))
            calls = (pool.execute("allocate", {"megabytes": 256}) for _ in pids)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            await settled(lambda: not alive(pids[0]), "the kernel has killed it")
        lost = [outcome for outcome in outcomes if isinstance(outcome, WorkerLost)]
        assert [(error.pid, error.signal) for error in lost] == [(pids[0], "SIGKILL")]
        assert "out of memory?" in str(lost[0])
        assert 256 << 20 in outcomes
        assert alive(pids[1])
        assert await pool.execute("add", {"x": 1}) == 2


async def test_21_too_few_descriptors_in_a_worker_fail_its_calls_only() -> None:
    async with faulty_pool(size=1) as pool:
        before = pids_of(pool)
        await pool.execute("limit_descriptors", {"count": 3})
        with pytest.raises(RemoteError) as caught:
            await pool.execute("append_line", {"path": "/dev/null", "die": False}, timeout=10)
        assert isinstance(caught.value, OSError)
        assert await pool.execute("add", {"x": 1}) == 2
        assert pids_of(pool) == before


async def test_21_too_few_descriptors_in_the_host_delay_a_replacement_only() -> None:
    import resource

    async with faulty_pool(size=1) as pool:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            fillers = _use_up_descriptors()
            try:
                with pytest.raises(WorkerLost):
                    await pool.execute("die", {"how": "kill"}, timeout=10)
                stuck = asyncio.create_task(pool.execute("add", {"x": 1}, timeout=20))
                await settled(lambda: pool.stats().workers_lost == 1, "it is missed")
            finally:
                for fd in fillers:
                    os.close(fd)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await stuck == 2


def _use_up_descriptors() -> list[int]:
    fds = []
    while True:
        try:
            fds.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return fds


async def test_25_more_busy_workers_than_processors_are_not_taken_for_dead() -> None:
    async with faulty_pool(size=4 * (os.cpu_count() or 1), cancel_grace=0.1) as pool:
        before = set(pids_of(pool))
        burners = [
            asyncio.create_task(pool.execute("burn", {"seconds": 1.0}, timeout=30))
            for _ in range(4 * (os.cpu_count() or 1))
        ]
        assert all(result == "burnt" for result in await outcomes_of(*burners))
        assert set(pids_of(pool)) == before


async def test_25_native_threads_are_limited_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    share = str(max(1, (os.cpu_count() or 1) // 2))
    async with faulty_pool(size=2) as pool:
        limits = await pool.execute("thread_limits")
        assert (limits["OMP_NUM_THREADS"], limits["MKL_NUM_THREADS"]) == (share, "7")


async def test_25_a_nice_worker_is_a_slow_one_and_not_a_dead_one(tmp_path: Path) -> None:
    async with faulty_pool(size=2) as pool:
        for pid in pids_of(pool):
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        before = set(pids_of(pool))
        calls = [asyncio.create_task(pool.execute("add", {"x": i}, timeout=30)) for i in range(200)]
        assert await outcomes_of(*calls) == [i + 1 for i in range(200)]
        assert set(pids_of(pool)) == before
