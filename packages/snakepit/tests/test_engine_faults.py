"""What the engines of real workers do with code that does not stop, or ends in unusual ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until, until_computing

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import ConfigurationError, RemoteError

WORKER = "engine_worker:Stubborn"
BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 4])


def answer(call: HostCall) -> int:
    return 42


def numbers(call: HostCall) -> Iterator[int]:
    yield from range(3)


def new_pool(**options: Any) -> Pool:
    functions = {"answer": answer, "numbers": numbers}
    return Pool(PythonAdapter(WORKER), **{"size": 1, "host_functions": functions, **options})


# --- unusual ends ------------------------------------------------------------------------------


@BOTH_PROFILES
async def test_a_stop_iteration_out_of_a_command_is_an_error_and_no_hang(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        with pytest.raises(RemoteError) as caught:
            await pool.execute("next_of_nothing", timeout=5)
        assert "StopIteration" in f"{caught.value.remote_type}: {caught.value}"
        assert await pool.execute("pid") == before


@BOTH_PROFILES
@pytest.mark.parametrize("how", ["system_exit", "keyboard_interrupt"])
async def test_an_exit_out_of_an_async_command_ends_only_the_call(
    how: str, concurrency: int
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        before = await pool.execute("async_pid")
        with pytest.raises(RemoteError):
            await pool.execute("async_exit", {"how": how}, timeout=5)
        assert await pool.execute("async_pid", timeout=5) == before


async def test_an_exit_in_a_task_of_an_async_command_leaves_the_loop_running() -> None:
    async with new_pool() as pool:
        assert await pool.execute("exit_in_child_task", timeout=5) == "alive"


# --- async commands that do not stop -------------------------------------------------------------


@pytest.mark.parametrize("command", ["block_loop", "refuse_to_stop"])
async def test_an_async_command_that_does_not_stop_costs_its_worker(
    command: str, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    async with new_pool(cancel_grace=0.1) as pool:
        before = await pool.execute("async_pid")
        unwanted = asyncio.create_task(pool.execute(command, {"started": str(started)}))
        await until(started.exists, "it has begun")
        unwanted.cancel()
        assert await pool.execute("async_pid", timeout=5) != before
        await until(lambda: not alive(before), "the stuck worker is gone")


async def test_a_cancelled_async_command_holds_its_slot_until_it_has_cleaned_up(
    tmp_path: Path,
) -> None:
    started, log = tmp_path / "started", tmp_path / "log"
    async with new_pool(cancel_grace=5.0) as pool:
        before = await pool.execute("pid")
        args = {"started": str(started), "log": str(log)}
        running = asyncio.create_task(pool.execute("clean_up_slowly", args))
        await until(started.exists, "the call runs")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await pool.execute("pid") == before
        assert log.read_text() == "cleaned up"


@BOTH_PROFILES
async def test_leaving_async_streams_early_keeps_the_worker(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency, cancel_grace=5.0) as pool:
        before = await pool.execute("pid")
        for last in range(30):
            async with aclosing(pool.execute_stream("async_count", {"n": 10**9})) as stream:
                async for item in stream:
                    if item == last:
                        break
        assert await pool.execute("pid") == before


# --- interrupted code ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "convert"])
async def test_code_that_hides_its_interruption_costs_its_worker_all_the_same(how: str) -> None:
    async with new_pool(cancel_grace=5.0) as pool:
        before = await pool.execute("pid")
        unwanted = asyncio.create_task(pool.execute("swallow_interrupt", {"how": how}))
        await until_computing(pool)
        unwanted.cancel()
        assert await pool.execute("pid", timeout=4) != before


# --- calling the host ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocking_host_call_on_the_shared_loop_is_refused(stream: bool) -> None:
    async with new_pool(concurrency=4) as pool:
        with pytest.raises(ConfigurationError, match="acall_host"):
            await pool.execute("call_host_from_loop", {"stream": stream}, timeout=5)
        assert await pool.execute("async_pid", timeout=5)


async def test_a_blocking_host_call_on_a_loop_of_its_own_is_served() -> None:
    async with new_pool() as pool:
        assert await pool.execute("call_host_from_loop", {"stream": False}, timeout=5) == 42
        assert await pool.execute("call_host_from_loop", {"stream": True}, timeout=5) == [0, 1, 2]


async def test_an_async_call_nested_in_a_blocking_one_on_the_loop_is_refused() -> None:
    async def back(call: HostCall) -> Any:
        return await pool.execute("async_pid")

    async with new_pool(host_functions={"answer": back}) as pool:
        with pytest.raises(ConfigurationError, match="acall_host"):
            await pool.execute("call_host_from_loop", {"stream": False}, timeout=5)


@BOTH_PROFILES
async def test_a_thread_left_over_from_an_ended_call_can_not_call_the_host(
    concurrency: int,
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        await pool.execute("leave_a_thread")
        assert await pool.execute("what_the_thread_got", timeout=5) == "HostCallCancelled"


async def test_threads_that_call_the_host_at_once_send_their_calls_in_order() -> None:
    async with new_pool() as pool:
        before = await pool.execute("pid")
        args = {"threads": 8, "calls": 50}
        assert await pool.execute("call_host_in_threads", args, timeout=20) == 8 * 50 * 42
        assert await pool.execute("pid") == before
