"""What a worker tells of itself: its stacks, on demand and when it crashes, and its output. With
real processes; the numbers are those of the scenarios in docs/faults.md."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from pathlib import Path
from typing import Any, cast

import pytest
from after_check import CheckedPool
from processes import alive, send_signal, until

from snakepit import Heartbeat, Pool, PythonAdapter
from snakepit.calls.stats import WorkerInfo
from snakepit.errors import ConfigurationError, WorkerHung, WorkerLost
from snakepit.processes.vitals import read_vitals
from snakepit.supervision import monitor
from snakepit.testing import Gate

WORKER = "supervised_worker:Worker"


def new_pool(**options: Any) -> Pool:
    return CheckedPool(PythonAdapter(WORKER), **{"size": 1, **options})


# --- stacks on demand --------------------------------------------------------------------------


async def stacks_with(pool: Pool, text: str) -> str:
    """The stacks of the only worker, as soon as they show ``text``."""
    (info,) = pool.workers()
    while text not in (stacks := await pool.dump_stacks(info.worker_id)):
        assert stacks.endswith("\n")
    return stacks


@pytest.mark.parametrize("start", ["template", "spawn"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_stacks_of_an_idle_worker_show_all_its_threads(start: Any, concurrency: int) -> None:
    adapter = PythonAdapter(WORKER, start=start)
    async with Pool(adapter, size=1, concurrency=concurrency) as pool:
        (info,) = pool.workers()
        stacks = await pool.dump_stacks(info.worker_id)
        assert stacks.count("most recent call first") >= 2
        assert "run_worker" in stacks
        assert pool.workers() == [info]


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("spin", {}),
        ("hold_gil_and_burn", {"started": "/dev/null", "rounds": 10**12}),
        ("hold_gil_and_sleep", {"started": "/dev/null", "seconds": 3600}),
    ],
)
async def test_stacks_of_a_running_call_are_had_whatever_it_does(
    command: str, args: dict[str, Any]
) -> None:
    async with new_pool(cancel_grace=0.1) as pool:
        running = asyncio.create_task(pool.execute(command, args, timeout=5))
        stacks = await stacks_with(pool, f"in {command}\n")
        assert "supervised_worker.py" in stacks
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_no_dump_of_stacks_harms_a_worker_that_recurses_deeply(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        before = pool.workers()[0].pid
        running = asyncio.create_task(pool.execute("recurse", {"depth": 900}))
        await stacks_with(pool, "in _descend\n")
        for _ in range(200):
            await pool.dump_stacks(pool.workers()[0].worker_id)
        assert [info.pid for info in pool.workers()] == [before]
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_stacks_show_what_async_calls_wait_for(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        with Gate() as gate:
            running = asyncio.create_task(pool.execute("await_gate", {"gate": gate.key}))
            await gate.reached()
            (info,) = pool.workers()
            # The thread may be at the gate before its task waits for it.
            threads, tasks = "", list[str]()
            while not any("in to_thread\n" in task for task in tasks):
                threads, *tasks = (await pool.dump_stacks(info.worker_id)).split("\nTask ")
            gate.open()
            await running
    assert "in pass_gate\n" in threads
    (task,) = (task for task in tasks if task.startswith("'wait at the g\\xe4te' (most recent"))
    assert [line.rpartition(" in ")[2] for line in task.splitlines()[1:]] == [
        "to_thread",
        "_wait_at",
    ]
    assert any("in await_gate\n" in task for task in tasks)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("spin", {}),  # answers
        ("hold_gil_and_sleep", {"started": "/dev/null", "seconds": 3600}),  # does not
    ],
)
async def test_stacks_have_one_form_whichever_way_they_come(
    command: str, args: dict[str, Any]
) -> None:
    async with new_pool(cancel_grace=0.1) as pool:
        running = asyncio.create_task(pool.execute(command, args))
        stacks = await stacks_with(pool, f"in {command}\n")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    control, main = stacks.split("\n\n")
    for head, thread in (("Current thread", control), ("Thread", main)):
        first, *frames = thread.splitlines()
        assert re.fullmatch(rf"{head} 0x[0-9a-f]+( \[.*\])? \(most recent call first\):", first)
        for frame in frames:
            assert re.fullmatch(r'  File ".+", line \d+ in \S+', frame)


async def test_asking_for_stacks_breaks_off_no_system_call(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    async with new_pool() as pool:
        running = asyncio.create_task(pool.execute("read_from", {"path": str(path)}))
        await until(Path(f"{path}.open").exists, "it waits")
        for _ in range(20):
            await stacks_with(pool, "in read_from\n")
        path.write_text("go on\n")
        assert await running == []


async def test_stacks_are_asked_for_by_many_at_once() -> None:
    async with new_pool() as pool:
        (info,) = pool.workers()
        found = await asyncio.gather(*(pool.dump_stacks(info.worker_id) for _ in range(20)))
        for stacks in found:
            assert stacks.startswith("Current thread")
            assert stacks.count("Current thread") == 1
            assert stacks.endswith("in <module>\n")


def is_stopped(info: WorkerInfo) -> bool:
    vitals = read_vitals(info.pid or 0)
    return vitals is not None and "T" in vitals.states


async def test_a_stopped_worker_gives_no_stacks() -> None:
    async with new_pool(heartbeat=None) as pool:
        (info,) = pool.workers()
        send_signal(info, signal.SIGSTOP)
        await until(lambda: is_stopped(info), "it is stopped")
        with pytest.raises(WorkerHung, match="did not react in time: it is stopped"):
            await pool.dump_stacks(info.worker_id)
        send_signal(info, signal.SIGCONT)
        assert "run_worker" in await pool.dump_stacks(info.worker_id)
        assert await pool.execute("echo", {"value": 3}) == 3


async def test_stacks_of_an_unknown_worker_are_refused() -> None:
    async with new_pool() as pool:
        with pytest.raises(ConfigurationError, match="no worker 'nobody'"):
            await pool.dump_stacks("nobody")


async def test_16_the_stacks_of_a_deadlocked_worker_are_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_LAST_STACKS_PATIENCE", 10.0)
    async with new_pool(heartbeat=Heartbeat(interval=0.05, misses=3)) as pool:
        with Gate() as gate:
            await pool.execute("deadlock_at_gate", {"gate": gate.key})
            await gate.reached()
        await until(lambda: pool.stats().workers_lost == 1, "it is killed")
    assert "most recent call first" in caplog.text
    assert "threading.py" in caplog.text


async def test_a_worker_is_looked_at_whatever_bytes_are_its_name() -> None:
    """The kernel cuts names after 15 bytes, also in the middle of a character."""
    async with new_pool(heartbeat=Heartbeat(interval=0.05, misses=3)) as pool:
        await pool.execute("take_name", {"name": b"caf\xc3"})
        (info,) = pool.workers()
        assert "run_worker" in await pool.dump_stacks(info.worker_id)
        assert alive(info.pid or 0)
        send_signal(info, signal.SIGSTOP)
        await until(lambda: pool.stats().workers_lost == 1, "it is seen to be stopped")


# --- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["template", "spawn"])
@pytest.mark.parametrize(
    ("how", "number"),
    [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("SIGBUS", "SIGBUS"), ("SIGFPE", "SIGFPE")],
)
async def test_1_a_crash_leaves_the_stacks_in_the_last_output(
    how: str, number: str, start: Any
) -> None:
    async with CheckedPool(PythonAdapter(WORKER, start=start), size=1) as pool:
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash", {"how": how})
        assert caught.value.signal == number
        assert "Fatal Python error" in caught.value.last_output
        assert "in crash\n" in caught.value.last_output
        assert "in crash\n" in str(caught.value)


async def test_1_the_stacks_are_there_although_the_program_has_closed_its_output() -> None:
    async with new_pool() as pool:
        await pool.execute("close_output")
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash", {"how": "segfault"})
        assert "in crash\n" in caught.value.last_output


# --- 37: output --------------------------------------------------------------------------------


async def test_37_a_flood_of_output_blocks_nothing_and_is_logged_up_to_a_cap(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "snakepit.output")
    printed = 100 * 1_000_000
    async with new_pool() as pool:
        assert await pool.execute("print_bytes", {"count": printed, "line": 1000}) == printed
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash", {"how": "segfault"})
        assert "in crash\n" in caught.value.last_output
        assert await pool.execute("echo", {"value": 1}) == 1
    logged = dropped = 0
    for record in caplog.records:
        if record.name == "snakepit.output":
            _, detail = cast("tuple[str, Any]", record.args)
            if record.levelno == logging.INFO:
                logged += len(detail)
            else:
                dropped += detail
    assert dropped > printed / 2
    assert 0 < logged < printed / 2
    assert logged + dropped == pytest.approx(printed, rel=0.01)


async def test_37_junk_in_the_output_is_survived_and_there_is_no_input() -> None:
    async with new_pool() as pool:
        assert await pool.execute("print_junk") == ""
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash", {"how": "SIGKILL"})
        assert len(caught.value.last_output) <= 1 << 16


async def test_37_a_program_that_closes_its_output_serves_on() -> None:
    async with new_pool() as pool:
        await pool.execute("close_output")
        assert await pool.execute("echo", {"value": 2}) == 2
        assert pool.stats().workers_lost == 0
