"""Workers that get new code while the pool serves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until

from snakepit import Pool, PythonAdapter
from snakepit.errors import Outcome, PoolClosed, SessionWorkerUnavailable, WorkerStartFailed

MODULE = """
import os
import snakepit
{prelude}

class Worker:
    @snakepit.command
    def version(self) -> str:
        return {version!r}

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    async def wait(self) -> str:
        await snakepit.current_call().acall_host("wait")
        return {version!r}
"""
BOTH_STARTS = pytest.mark.parametrize("start", ["template", "spawn"])


class Code:
    """The module that the workers import, as it is edited."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "edited_worker.py"

    def edit(self, version: str, prelude: str = "") -> None:
        self._file.write_text(MODULE.format(version=version, prelude=prelude))
        # Compiled code is taken for current when its source has the same second and size.
        stat = self._file.stat()
        os.utime(self._file, (stat.st_atime, stat.st_mtime + len(version)))


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Code:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = Code(tmp_path)
    code.edit("first")
    return code


def new_pool(start: Any = "template", **options: Any) -> Pool:
    return Pool(PythonAdapter("edited_worker:Worker", start=start), **{"size": 2, **options})


async def versions(pool: Pool) -> set[str]:
    return set(await asyncio.gather(*(pool.execute("version") for _ in range(8))))


@BOTH_STARTS
async def test_all_workers_run_the_new_code_and_no_call_fails(code: Code, start: str) -> None:
    async with new_pool(start) as pool:
        before = {int(info.pid or 0) for info in pool.workers()}
        seen: list[str] = []
        done = asyncio.Event()

        async def call_on() -> None:
            while not done.is_set():
                seen.append(await pool.execute("version"))

        calls = [asyncio.create_task(call_on()) for _ in range(3)]
        await until(lambda: len(seen) > 10, "calls flow")
        code.edit("second")
        await pool.reload()
        count = len(seen)
        await until(lambda: len(seen) > count + 10, "calls flow on")
        done.set()
        await asyncio.gather(*calls)
        assert set(seen) == {"first", "second"}
        assert await versions(pool) == {"second"}
        await until(lambda: not any(map(alive, before)), "the old workers are gone")
        assert pool.stats().workers_lost == 0


async def test_a_call_that_runs_during_a_reload_ends_with_its_own_code(code: Code) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait(call: Any) -> None:
        entered.set()
        await gate.wait()

    async with new_pool(size=1, host_functions={"wait": wait}) as pool:
        running = asyncio.create_task(pool.execute("wait"))
        await entered.wait()
        code.edit("second")
        await pool.reload()
        assert await pool.execute("version") == "second"
        gate.set()
        assert await running == "first"


@pytest.mark.parametrize("how", ["recycle", "reload"])
async def test_strict_calls_that_wait_for_a_worker_that_leaves_fail_and_no_others(
    code: Code, how: str
) -> None:
    entered, gate = asyncio.Semaphore(0), asyncio.Event()

    async def wait(call: Any) -> None:
        entered.release()
        await gate.wait()

    async def strict(command: str) -> Any:
        return await pool.execute(command, session_id="ada", affinity="strict_queue")

    async with new_pool(look_ahead=0, host_functions={"wait": wait}) as pool:
        running = [asyncio.create_task(strict("wait")), asyncio.create_task(pool.execute("wait"))]
        for _ in running:
            await entered.acquire()
        waiting = asyncio.create_task(strict("version"))
        free = [asyncio.create_task(pool.execute("version")) for _ in range(3)]
        await until(lambda: pool.stats().queued == 4, "all slots are taken")
        if how == "recycle":
            assert pool.recycle(str(pool.worker_of_session("ada")))
        else:
            await pool.reload()
        with pytest.raises(SessionWorkerUnavailable) as caught:
            await waiting
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, False)
        assert await asyncio.gather(*free) == ["first"] * 3
        gate.set()
        assert await asyncio.gather(*running) == ["first"] * 2
        assert pool.release_session("ada")
        assert await strict("version") == "first"
        stats = pool.stats()
        assert (stats.failed, stats.workers_lost) == (1, 0)


@BOTH_STARTS
async def test_code_that_can_not_be_imported_leaves_the_workers_as_they_are(
    code: Code, start: str
) -> None:
    async with new_pool(start) as pool:
        before = {info.pid for info in pool.workers()}
        code.edit("broken", prelude="raise OSError('no such device')")
        with pytest.raises(WorkerStartFailed, match="no such device") as caught:
            await pool.reload()
        assert isinstance(caught.value.__cause__, OSError)
        assert await versions(pool) == {"first"}
        assert {info.pid for info in pool.workers()} == before
        code.edit("corrected")
        await pool.reload()
        assert await versions(pool) == {"corrected"}


async def test_a_template_that_failed_to_reload_leaves_the_old_one_to_replace_workers(
    code: Code,
) -> None:
    async with new_pool() as pool:
        code.edit("broken", prelude="raise OSError('no such device')")
        with pytest.raises(WorkerStartFailed):
            await pool.reload()
        victim = pool.workers()[0]
        os.kill(int(victim.pid or 0), 9)
        await until(lambda: pool.stats().workers_lost == 1, "its death is noticed")
        await until(lambda: len(pool.workers()) == 2, "it is replaced")
        assert await versions(pool) == {"first"}


async def test_code_that_can_be_forked_no_longer_is_spawned_and_the_reverse(
    code: Code, caplog: pytest.LogCaptureFixture
) -> None:
    thread = "import threading, signal; threading.Thread(target=signal.pause, daemon=True).start()"
    async with new_pool() as pool:
        code.edit("threaded", prelude=thread)
        await pool.reload()
        assert "not forked but spawned" in caplog.text
        assert await versions(pool) == {"threaded"}
        code.edit("unthreaded")
        await pool.reload()
        assert await versions(pool) == {"unthreaded"}


async def test_a_worker_that_started_before_a_reload_and_is_ready_after_it_is_replaced(
    code: Code,
) -> None:
    async with new_pool(size=3) as pool:
        for info in pool.workers()[:2]:
            os.kill(int(info.pid or 0), 9)
        await until(lambda: pool.stats().workers_lost == 2, "the deaths are noticed")
        code.edit("second")
        await pool.reload()
        # One that has come up with the old code serves until its successor is ready.
        members = pool._workforce.members
        await until(
            lambda: [member.generation for member in members.values()] == [1, 1, 1],
            "the pool is at its size again, and all are of the new code",
        )
        assert await versions(pool) == {"second"}


async def test_only_an_open_pool_can_be_reloaded(code: Code) -> None:
    pool = new_pool()
    with pytest.raises(PoolClosed):
        await pool.reload()
    async with pool:
        pass
    with pytest.raises(PoolClosed):
        await pool.reload()


async def test_adapters_of_the_same_code_share_a_template_until_one_reloads(code: Code) -> None:
    first, second = (PythonAdapter("edited_worker:Worker") for _ in range(2))
    async with Pool(first, size=1) as one, Pool(second, size=1) as other:
        assert first.template_pid == second.template_pid is not None
        code.edit("second")
        await one.reload()
        assert first.template_pid != second.template_pid
        assert await versions(one) == {"second"}
        assert await versions(other) == {"first"}
    assert first.template_pid is second.template_pid is None
