"""Inline mode: what holds in the host's own process, and what does not. The contract that it shares
with processes is in test_command_contract.py."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import inline_worker
import pytest

from snakepit import Adapter, HostCall, InlineAdapter, Pool, validate_implementation
from snakepit.adapters.adapter import CallOptions, WorkerSpec
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    EncodeError,
    HostCallCancelled,
    Outcome,
    PoolStartFailed,
    RemoteError,
    WorkerLost,
)
from snakepit.testing import Gate, until

WORKER = "inline_worker:Worker"


def new_pool(**options: Any) -> Pool:
    return Pool(InlineAdapter(WORKER), **{"size": 1, **options})


async def never(call: HostCall) -> None:
    await asyncio.Event().wait()


def test_it_is_an_adapter() -> None:
    adapter = InlineAdapter(WORKER)
    assert isinstance(adapter, Adapter)
    assert validate_implementation(adapter) == []
    assert repr(adapter) == "InlineAdapter('inline_worker:Worker')"


async def test_everything_runs_in_this_process() -> None:
    async with new_pool(size=2) as pool:
        assert await pool.execute("pid") == os.getpid()
        assert [worker.pid for worker in pool.workers()] == [None, None]
        with pytest.raises(ConfigurationError, match="that can tell its stacks"):
            await pool.dump_stacks(pool.workers()[0].worker_id)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_each_worker_has_an_object_of_its_own_which_is_closed(concurrency: int) -> None:
    inline_worker.Worker.closed.clear()
    async with new_pool(size=3, concurrency=concurrency):
        pass
    assert len(inline_worker.Worker.closed) == 3


async def test_with_concurrency_1_all_sync_code_of_a_worker_has_one_thread() -> None:
    async def nest(call: HostCall, nested: int) -> int:
        count: int = await pool.execute("note_thread", {"nested": nested})
        return count

    inline_worker.Worker.closed.clear()
    async with new_pool(host_functions={"nest": nest}) as pool:
        assert await pool.execute("note_thread", {"nested": 5}) == 1
    assert inline_worker.Worker.closed == [1]


async def test_values_are_copies_and_what_can_not_travel_fails() -> None:
    given = [0]
    async with new_pool() as pool:
        assert await pool.execute("append", {"to": given}) == [0, 1]
        assert given == [0]
        with pytest.raises(EncodeError) as caught:
            await pool.execute("append", {"to": [object()]})
        assert (caught.value.path, caught.value.outcome) == ("args.to[0]", Outcome.NONE)
    with pytest.raises(EncodeError):
        InlineAdapter(WORKER, config={"fail": object()})


async def test_an_error_leads_a_debugger_to_the_frame_that_raised_it() -> None:
    async with new_pool() as pool:
        with pytest.raises(ValueError, match="no") as caught:
            await pool.execute("fail", {"message": "no"})
    assert isinstance(caught.value, RemoteError)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert (Path(frames[-1].filename).name, frames[-1].name) == ("inline_worker.py", "fail")


async def test_an_error_of_a_batch_leads_there_too() -> None:
    async with new_pool() as pool:
        calls = (pool.execute("fail_all", {"message": str(n)}) for n in range(2))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, ValueError)
            assert traceback.extract_tb(error.__traceback__)[-1].name == "fail_all"


# --- starting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("inline_worker:Missing", "has no class 'Missing'"),
        ("no_such_module:Worker", "No module named"),
        ("inline_worker:Bare", "has no commands"),
    ],
)
async def test_a_class_that_can_not_be_had_starts_no_pool(target: str, message: str) -> None:
    with pytest.raises(PoolStartFailed, match=message) as caught:
        await Pool(InlineAdapter(target), size=2).start()
    assert caught.value.__cause__ is not None


async def test_a_constructor_that_raises_is_the_cause() -> None:
    with pytest.raises(PoolStartFailed, match="no device") as caught:
        await Pool(InlineAdapter(WORKER, config={"fail": "no device"}), size=1).start()
    failed = caught.value.__cause__
    assert failed is not None
    assert isinstance(failed.__cause__, LookupError)


def test_a_target_that_names_no_class_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="names no class"):
        InlineAdapter("inline_worker")


async def test_a_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "snakepit.worker"):
        async with Pool(InlineAdapter("inline_worker:FailsToClose"), size=1) as pool:
            assert await pool.execute("hello") == "hello"
    assert "close() failed" in caplog.text


async def test_it_can_be_used_without_a_pool() -> None:
    adapter = InlineAdapter(WORKER)
    worker = await adapter.start_worker(WorkerSpec(worker_id="w", pool_size=1, concurrency=1))
    options = CallOptions(session_id=None, timeout=5.0)
    assert await adapter.execute(worker, "append", {"to": []}, options) == [1]
    await worker.stop(1.0)


# --- stopping ------------------------------------------------------------------------------------


async def test_a_late_async_command_is_cancelled_and_its_worker_kept() -> None:
    async with new_pool(host_functions={"held": never}) as pool:
        with pytest.raises(CallTimeout) as caught:
            await pool.execute("wait_async", timeout=0.01)
        assert caught.value.outcome is Outcome.UNKNOWN
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
        assert await pool.execute("how_often_stopped") == 1
        assert pool.workers()[0].worker_id == "default-1"


async def test_a_sync_command_that_waits_for_the_host_is_stopped() -> None:
    async with new_pool(host_functions={"held": never}, cancel_grace=20.0) as pool:
        with pytest.raises(CallTimeout):
            await pool.execute("ask", timeout=0.01)
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
        assert pool.workers()[0].worker_id == "default-1"


async def test_a_sync_command_that_looks_at_cancelled_keeps_its_worker() -> None:
    async with new_pool(cancel_grace=20.0) as pool:
        with Gate() as gate:
            call = asyncio.create_task(pool.execute("polite", {"gate": gate.key}))
            await gate.reached()
            call.cancel()
            await asyncio.wait([call])
            assert pool.stats().stopping == 1
            gate.open()
            assert await pool.execute("how_often_stopped") == 1


async def test_a_sync_command_that_does_not_end_costs_its_worker() -> None:
    async with new_pool(cancel_grace=0.02) as pool:
        with Gate() as gate:
            with pytest.raises(CallTimeout):
                await pool.execute("wait", {"gate": gate.key}, timeout=0.01)
            assert await pool.execute("how_often_stopped") == 0
            assert [worker.worker_id for worker in pool.workers()] == ["default-2"]
            # Its thread goes on until its code ends.
            await gate.reached()


async def test_with_concurrency_its_neighbours_end_with_it() -> None:
    async with new_pool(concurrency=2, cancel_grace=0.02) as pool:
        with Gate() as gate:
            neighbour = asyncio.create_task(pool.execute("wait", {"gate": gate.key}, timeout=60.0))
            await gate.reached()
            stuck = asyncio.create_task(pool.execute("wait", {"gate": gate.key}))
            await gate.reached(2)
            stuck.cancel()
            await until(lambda: not pool.stats().stopping, "the worker is given up")
            assert isinstance((await asyncio.wait([neighbour]))[0].pop().exception(), WorkerLost)


async def test_closing_at_once_leaves_no_call_behind() -> None:
    with Gate() as gate:
        pool = new_pool()
        await pool.start()
        call = asyncio.create_task(pool.execute("wait", {"gate": gate.key}))
        await gate.reached()
        await pool.aclose(drain=False)
        assert (await asyncio.wait([call]))[0].pop().exception() is not None
        assert pool.stats().running == 0


# --- calling the host ----------------------------------------------------------------------------


async def test_an_async_command_that_would_block_the_loop_is_told_so() -> None:
    async with new_pool(host_functions={"held": never}) as pool:
        with pytest.raises(ConfigurationError, match="await acall_host"):
            await pool.execute("block_the_loop")


async def test_a_thread_that_outlives_its_call_can_not_call_the_host() -> None:
    async with new_pool(host_functions={"held": never}) as pool:
        with Gate() as gate:
            await pool.execute("ask_too_late", {"gate": gate.key})
            await gate.reached()
            gate.open()
            assert await pool.execute("answer_to_the_late") == HostCallCancelled.code


# --- debuggers -----------------------------------------------------------------------------------

DEBUGGED = """
import asyncio
import snakepit

class Worker:
    @snakepit.command
    def work(self, x):
        y = x + 1
        breakpoint()
        return y

async def work():
    async with snakepit.Pool(snakepit.InlineAdapter("test_debugged:Worker"), size=1) as pool:
        return await pool.execute("work", {"x": 41})

def test_it():
    assert asyncio.run(work()) == 1000
"""


@pytest.mark.slow
def test_a_breakpoint_in_a_command_works_under_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_debugged.py").write_text(DEBUGGED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", "test_debugged.py"],
        input="p 'y is', y\ny = 1000\ncontinue\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "('y is', 42)" in done.stdout
    assert "1 passed" in done.stdout
