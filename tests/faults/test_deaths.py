"""Scenario 1, in places of a worker's life that the table of test_death_matrix.py does not have."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_pool import (
    Baseline,
    after_check,
    fresh_calls,
    new_pool,
    outcomes_of,
    pids_of,
    settled,
)
from processes import alive, until_computing

from snakepit import HostCall, Pool
from snakepit.errors import (
    Outcome,
    PoolClosed,
    PoolStartFailed,
    RemoteError,
    StreamBroken,
    WorkerLost,
    WorkerStartFailed,
)

pytestmark = pytest.mark.usefixtures("silent_on_stderr")
#: Way to die: the signal's name and the exit code that the error has to tell.
DEATHS: dict[str, tuple[str | None, int | None]] = {
    "kill": ("SIGKILL", None),
    "segv": ("SIGSEGV", None),
    "abort": ("SIGABRT", None),
    "exit0": (None, 0),
    "exit42": (None, 42),
}
#: An exception, too, ends a process where nobody can catch it.
UNCAUGHT = {**DEATHS, "raise": (None, 1)}
BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 4])
BOTH_STARTS = pytest.mark.parametrize("start", ["template", "spawn"])

Cell = Callable[[Pool, str], Awaitable[Any]]


def assert_told(error: object, how: str, phase: str) -> None:
    """The error says how the worker died, and what it was doing; a stream's cause does."""
    if isinstance(error, StreamBroken):
        error = error.__cause__
    assert isinstance(error, WorkerLost), repr(error)
    number, code = UNCAUGHT[how]
    assert (error.signal, error.exit_code) == (number, code)
    assert (error.phase, error.outcome, error.retryable) == (phase, Outcome.UNKNOWN, False)
    assert error.pid
    assert not alive(error.pid)


async def in_all_ways(cell: Cell, deaths: dict[str, Any] = DEATHS, **options: Any) -> None:
    """Run a phase's cells on one pool."""
    async with new_pool(**options) as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        for how in deaths:
            lost = pool.stats().workers_lost
            await cell(pool, how)
            await settled(lambda lost=lost: pool.stats().workers_lost > lost, f"{how} was noticed")  # type: ignore[misc]
            await after_check(pool, before)


async def lost_call(pool: Pool, command: str, **args: Any) -> WorkerLost:
    """The error of a call whose worker dies of it, while a neighbour goes on."""
    fatal = asyncio.create_task(pool.execute(command, args, timeout=10))
    with pytest.raises(WorkerLost) as caught:
        await fatal
    return caught.value


async def armed_worker(pool: Pool, how: str) -> int:
    """Have some worker die this way when SIGUSR1 comes; its pid."""
    return int(await pool.execute("arm", {"how": how}))


# --- before it is ready --------------------------------------------------------------------------


async def start_fails(adapter: dict[str, Any], deadline: float = 20.0) -> WorkerStartFailed:
    pool = new_pool(adapter=adapter)
    with pytest.raises(PoolStartFailed) as caught:
        await asyncio.wait_for(pool.start(), deadline)
    cause = caught.value.__cause__
    assert isinstance(cause, WorkerStartFailed), repr(cause)
    return cause


def assert_start_told(cause: WorkerStartFailed, how: str) -> None:
    number, code = DEATHS[how]
    assert (number or f"exited with {code}") in str(cause)


@pytest.mark.parametrize("how", DEATHS)
async def test_1_death_before_the_worker_says_hello(how: str, tmp_path: Path) -> None:
    """The interpreter itself dies, before it runs anything of ours."""
    code = (
        "import ctypes, os\n"
        + {
            "kill": "os.kill(os.getpid(), 9)",
            "segv": "ctypes.string_at(0)",
            "abort": "os.abort()",
            "exit0": "os._exit(0)",
            "exit42": "os._exit(42)",
        }[how]
    )
    (tmp_path / "usercustomize.py").write_text(code)
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {"PYTHONPATH": str(tmp_path), "PYTHONNOUSERSITE": ""}
    assert_start_told(await start_fails({"env": env, "start": "spawn"}), how)


@BOTH_STARTS
@pytest.mark.parametrize("how", DEATHS)
async def test_1_death_in_the_import(how: str, start: str) -> None:
    """Spawned: the worker after its hello. Else the template, before any worker."""
    cause = await start_fails({"env": {"FAULT_AT_IMPORT": how}, "start": start})
    assert_start_told(cause, how)


@pytest.mark.parametrize("how", DEATHS)
async def test_1_death_in_the_constructor(how: str) -> None:
    assert_start_told(await start_fails({"config": {"fault": how}}), how)


@pytest.mark.parametrize("where", ["import", "constructor"])
@BOTH_STARTS
async def test_1_an_exception_before_the_worker_is_ready_is_the_cause(
    where: str, start: str
) -> None:
    at_import: dict[str, Any] = {"env": {"FAULT_AT_IMPORT": "raise"}}
    adapter = at_import if where == "import" else {"config": {"fault": "raise"}}
    cause = await start_fails({**adapter, "start": start})
    assert isinstance(cause.__cause__, RemoteError)
    assert (cause.__cause__.remote_type, str(cause.__cause__)) == (
        "hostile_values.Planned",
        "as told",
    )
    assert "act(" in str(cause.__cause__.remote_traceback)


# --- in a call -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_1_death_while_it_receives_a_call(number: int) -> None:
    """The header has arrived, and a part of the body."""

    async def cell(pool: Pool, _: str) -> None:
        victim = await armed_worker(pool, "kill")
        os.kill(victim, signal.SIGSTOP)
        body = ["x" * 1000] * 5000
        calls = [
            asyncio.create_task(pool.execute("echo", {"value": body}, timeout=10)) for _ in range(2)
        ]
        await settled(lambda: any(call.done() for call in calls), "the other worker answers")
        os.kill(victim, number)
        with suppress(ProcessLookupError):  # SIGKILL needs no waking up
            os.kill(victim, signal.SIGCONT)
        results = await outcomes_of(*calls)
        lost = [result for result in results if isinstance(result, WorkerLost)]
        assert [error.pid for error in lost] == [victim]
        assert lost[0].signal == signal.Signals(number).name
        assert body in results

    await in_all_ways(cell, {"signal": None})


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["die", "adie"])
async def test_1_death_while_it_runs(command: str, concurrency: int) -> None:
    async def cell(pool: Pool, how: str) -> None:
        error = await lost_call(pool, command, how=how)
        assert_told(error, how, "call")
        assert f"about to {how}" in error.last_output

    await in_all_ways(cell, concurrency=concurrency)


@BOTH_PROFILES
@pytest.mark.parametrize("share", [0.001, 0.999])
async def test_1_death_in_the_middle_of_a_result(share: float, concurrency: int) -> None:
    async def cell(pool: Pool, how: str) -> None:
        error = await lost_call(pool, "die_in_half_a_result", how=how, share=share)
        assert_told(error, how, "call")

    await in_all_ways(cell, concurrency=concurrency)


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["die_in_a_stream", "adie_in_a_stream"])
async def test_1_death_while_it_streams(command: str, concurrency: int) -> None:
    after = 3

    async def cell(pool: Pool, how: str) -> None:
        items: list[int] = []

        async def consume() -> None:
            args = {"how": how, "after": after}
            async for item in pool.execute_stream(command, args, timeout=10):
                items.append(item)

        with pytest.raises(StreamBroken) as caught:
            await consume()
        assert_told(caught.value, how, "call")
        assert items == list(range(len(items)))
        assert len(items) == caught.value.delivered
        assert len(items) <= after

    await in_all_ways(cell, concurrency=concurrency)


async def test_1_death_while_a_stream_waits_for_credit() -> None:
    async def cell(pool: Pool, how: str) -> None:
        victim = await armed_worker(pool, how)
        stream = pool.execute_stream("count", {"n": 10**6}, timeout=10)
        assert await anext(stream) == 0
        # One worker: the stream's producer is the armed one, a window ahead.
        os.kill(victim, signal.SIGUSR1)
        rest: list[int] = []

        async def consume() -> None:
            async for item in stream:
                rest.append(item)

        with pytest.raises(StreamBroken) as caught:
            await consume()
        assert_told(caught.value, how, "call")
        assert rest == list(range(1, len(rest) + 1))

    await in_all_ways(cell, size=1)


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["call_host", "acall_host"])
async def test_1_death_while_it_waits_for_the_host(command: str, concurrency: int) -> None:
    pids: dict[str, int] = {}
    cancelled: list[str] = []

    async def strike(call: HostCall) -> None:
        os.kill(pids["victim"], signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(call.worker_id)
            raise

    async def cell(pool: Pool, how: str) -> None:
        cancelled.clear()
        pids["victim"] = await armed_worker(pool, how)
        assert_told(await lost_call(pool, command, name="strike"), how, "call")
        await settled(lambda: bool(cancelled), "the host function is cancelled")

    await in_all_ways(cell, size=1, concurrency=concurrency, host_functions={"strike": strike})


# --- on its way out ------------------------------------------------------------------------------


async def test_1_death_while_it_is_replaced() -> None:
    """One call is stuck, so the worker is leaving; a sibling still runs there."""
    entered = asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def cell(pool: Pool, how: str) -> None:
        entered.clear()
        victim = await armed_worker(pool, how)
        sibling = asyncio.create_task(pool.execute("acall_host", {"name": "hold"}))
        await entered.wait()
        stuck = asyncio.create_task(pool.execute("spin"))
        await until_computing(pool)
        stuck.cancel()
        await settled(lambda: any(i.leaving for i in pool.workers()), "it is leaving")
        os.kill(victim, signal.SIGUSR1)
        (error,) = await outcomes_of(sibling)
        assert_told(error, how, "call")

    async with new_pool(
        size=1, concurrency=4, cancel_grace=0.05, host_functions={"hold": hold}
    ) as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        for how in DEATHS:
            await cell(pool, how)
            await after_check(pool, before)
        # A worker that was being replaced anyway does not count as one that was lost.
        assert pool.stats().workers_lost == 0


@pytest.mark.parametrize("how", DEATHS)
async def test_1_death_while_the_pool_drains(how: str) -> None:
    entered = asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await asyncio.Event().wait()

    pool = new_pool(size=1, host_functions={"hold": hold})
    await pool.start()
    victim = await armed_worker(pool, how)
    running = asyncio.create_task(pool.execute("call_host", {"name": "hold"}))
    await entered.wait()
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)  # its task
    await asyncio.sleep(0)  # and the task that closes
    with pytest.raises(PoolClosed, match="is closing"):
        await pool.execute("add", {"x": 1})
    os.kill(victim, signal.SIGUSR1)
    (error,) = await outcomes_of(running)
    assert_told(error, how, "call")
    await closing
    assert not alive(victim)


@pytest.mark.parametrize("how", UNCAUGHT)
async def test_1_death_in_the_close_hook(how: str) -> None:
    pool = new_pool(adapter={"config": {"close": how}})
    await pool.start()
    await fresh_calls(pool)
    pids = pids_of(pool)
    await pool.aclose()
    assert not any(map(alive, pids))


# --- out of a completion callback ----------------------------------------------------------------


async def test_1_a_death_makes_the_next_deadly_call_from_its_callback() -> None:
    """Ten deaths in a row, each call made by the end of the one before."""
    async with new_pool() as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        errors: list[BaseException | None] = []
        all_done = asyncio.Event()
        tasks: set[asyncio.Task[Any]] = set()

        async def good_then_deadly() -> None:
            await pool.execute("add", {"x": 1})
            await pool.execute("die", {"how": "kill"})

        def again(task: asyncio.Task[Any]) -> None:
            errors.append(task.exception())
            tasks.discard(task)
            start() if len(errors) < 10 else all_done.set()

        def start() -> None:
            task = asyncio.create_task(good_then_deadly())
            tasks.add(task)
            task.add_done_callback(again)

        start()
        await asyncio.wait_for(all_done.wait(), 30)
        assert all(isinstance(error, WorkerLost) for error in errors), errors
        await after_check(pool, before)
