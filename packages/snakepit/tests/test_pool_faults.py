"""What the pool survives. Numbers are those of the scenarios in docs/faults.md."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool, assert_serves
from processes import alive, send_signal, until, until_computing, wait_until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    Outcome,
    PoolClosed,
    PoolStartFailed,
    StreamBroken,
    WorkerLost,
    WorkerStartFailed,
)

WORKER = "pool_worker:Worker"


def new_pool(target: str = WORKER, **options: Any) -> Pool:
    return CheckedPool(PythonAdapter(target), **{"size": 2, **options})


async def until_full(pool: Pool) -> None:
    """Wait until all workers are ready and none is leaving."""

    def full() -> bool:
        infos = pool.workers()
        return len(infos) == pool.stats().size and not any(info.leaving for info in infos)

    await until(full, "the pool is at its size again")


def assert_settled(pool: Pool) -> None:
    stats = pool.stats()
    assert (stats.queued, stats.running, stats.stopping) == (0, 0, 0)
    ended = stats.succeeded + stats.failed + stats.timed_out + stats.cancelled
    assert stats.submitted == ended


# --- A: death ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
async def test_1_a_death_by_signal_fails_its_call_alone_and_names_the_signal(number: int) -> None:
    async with new_pool() as pool:
        start = time.monotonic()
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("die", {"number": int(number)})
        elapsed = time.monotonic() - start
        error = caught.value
        assert error.signal == signal.Signals(number).name
        assert (error.phase, error.outcome, error.retryable) == ("call", Outcome.UNKNOWN, False)
        assert "last words" in str(error.details["last_output"])
        assert elapsed < 5.0, "not only when the worker does not answer any more"
        assert await pool.execute("add", {"x": 1}) == 2
        await until_full(pool)
        assert_settled(pool)


async def test_1_only_a_call_that_may_run_twice_says_that_it_may_be_retried() -> None:
    async with new_pool() as pool:
        with pytest.raises(WorkerLost) as lost:
            await pool.execute("die", {"number": int(signal.SIGKILL)}, idempotent=True)
        with pytest.raises(CallTimeout) as late:
            await pool.execute("spin", timeout=0.1, idempotent=True)
        assert (lost.value.retryable, late.value.retryable) == (True, True)


async def test_1_only_the_dead_workers_calls_fail() -> None:
    gate = asyncio.Event()
    entered: list[str] = []

    async def hold(call: HostCall) -> str:
        entered.append(call.worker_id)
        await gate.wait()
        return call.worker_id

    async with new_pool(concurrency=4, host_functions={"hold": hold}) as pool:
        calls = [
            asyncio.create_task(pool.execute("acall_host", {"name": "hold", "args": {}}))
            for _ in range(8)
        ]
        await until(lambda: len(entered) == 8, "all calls run")
        victim = pool.workers()[0]
        send_signal(victim, signal.SIGKILL)
        await until(lambda: sum(call.done() for call in calls) == 4, "the victim's calls end")
        gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, WorkerLost)]
        assert len(lost) == 4
        assert {error.worker_id for error in lost} == {victim.worker_id}
        assert {error.signal for error in lost} == {"SIGKILL"}
        assert victim.worker_id not in results
        await until_full(pool)
        assert_settled(pool)


async def test_4_an_exit_in_a_call_is_a_death_with_its_exit_code() -> None:
    async with new_pool() as pool:
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("leave", {"how": "os_exit"})
        assert (caught.value.exit_code, caught.value.signal) == (7, None)
        assert await pool.execute("add", {"x": 1}) == 2


async def test_1_an_idle_workers_death_is_noticed_and_it_is_replaced() -> None:
    async with new_pool() as pool:
        victim = pool.workers()[0]
        send_signal(victim, signal.SIGKILL)
        await until(lambda: pool.stats().workers_lost == 1, "the death is seen")
        await until_full(pool)
        assert victim.worker_id not in {info.worker_id for info in pool.workers()}


async def test_1_a_death_in_a_stream_is_an_error_and_not_an_end() -> None:
    async with new_pool(size=1) as pool:
        items = []

        async def consume() -> None:
            async for item in pool.execute_stream("count", {"n": 10**9}):
                items.append(item)
                if item == 10:
                    send_signal(pool.workers()[0], signal.SIGKILL)

        with pytest.raises(StreamBroken) as caught:
            await consume()
        assert isinstance(caught.value.__cause__, WorkerLost)
        assert items == list(range(len(items)))
        assert len(items) == caught.value.delivered
        assert len(items) > 10
        assert_settled(pool)


async def test_1_a_death_in_a_host_call_cancels_the_host_function() -> None:
    cancelled = asyncio.Event()

    async def hold(call: HostCall) -> None:
        send_signal(pool.workers()[0], signal.SIGKILL)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with new_pool(size=1, host_functions={"hold": hold}) as pool:
        with pytest.raises(WorkerLost):
            await pool.execute("call_host", {"name": "hold", "args": {}})
        await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.parametrize(
    ("target", "message", "cause"),
    [
        ("pool_worker:Broken", "no such device", RuntimeError),
        ("pool_worker:Dies", "exited with 5", None),
        ("pool_worker:Bare", "no commands", ConfigurationError),
        ("pool_worker:Missing", "no class", ConfigurationError),
        ("no_such_module:Worker", "no_such_module.*this process's sys.path", ImportError),
    ],
)
@pytest.mark.parametrize("start", ["template", "spawn"])
async def test_2_a_start_that_fails_says_why_and_leaves_nothing(
    target: str, message: str, cause: type[BaseException] | None, start: Any
) -> None:
    pool = Pool(PythonAdapter(target, start=start), size=2)
    with pytest.raises(PoolStartFailed, match=message) as caught:
        await pool.start()
    failure = caught.value.__cause__
    assert isinstance(failure, WorkerStartFailed)
    if cause is not None:
        assert isinstance(failure.__cause__, cause)
    elif target.endswith("Dies"):
        assert "dying early" in str(failure.details["last_output"])


def test_2_a_missing_interpreter_fails_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no executable"):
        PythonAdapter(WORKER, python=tmp_path / "python")
    with pytest.raises(ConfigurationError, match="no executable"):  # a folder can be "executed"
        PythonAdapter(WORKER, python=tmp_path)
    with pytest.raises(ConfigurationError, match=r"no text.*package\.module:Class"):
        PythonAdapter(Pool)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"package\.module:Class"):
        PythonAdapter("no colon")


async def test_3_a_start_that_hangs_is_killed_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text("import signal\nsignal.pause()\n")
    adapter = PythonAdapter("hanging:Worker", env={"PYTHONPATH": str(tmp_path)})
    sys.path.append(str(tmp_path))
    try:
        with pytest.raises(PoolStartFailed, match="not ready within"):
            await Pool(adapter, size=1, start_timeout=1.0).start()
        (tmp_path / "hanging.py").write_text("from pool_worker import Worker\n")
        await assert_serves(adapter)
    finally:
        sys.path.remove(str(tmp_path))


async def test_7_a_worker_holds_only_its_own_descriptors() -> None:
    async with new_pool(size=3) as pool:
        for _ in range(3):
            found = await pool.execute("descriptors")
            sockets = [name for name in found.values() if name.startswith("socket:")]
            assert len(sockets) == 2, found


async def test_7_a_death_is_noticed_while_a_grandchild_holds_the_socket(tmp_path: Path) -> None:
    async with new_pool(size=1) as pool:
        grandchild = await pool.execute("fork_and_hold", {})
        assert alive(grandchild)
        with pytest.raises(WorkerLost):
            await pool.execute("die", {"number": int(signal.SIGKILL)})
        await until(lambda: not alive(grandchild), "the grandchild dies with its worker")


async def test_8_grandchildren_die_with_their_worker() -> None:
    async with Pool(PythonAdapter(WORKER), size=1) as pool:  # unchecked: it keeps one until its end
        grandchild = await pool.execute("start_grandchild")
        assert alive(grandchild)
    await until(lambda: not alive(grandchild), "the grandchild is gone")


async def test_9_the_template_dies_and_is_started_again() -> None:
    async with new_pool() as pool:
        worker = int(pool.workers()[0].pid or 0)
        keeper = parent_of(worker)
        workers = {info.pid for info in pool.workers()}
        template = next(pid for pid in children_of(keeper) if pid not in workers)
        os.kill(template, signal.SIGKILL)
        await until(lambda: not alive(template), "the template is dead")
        assert alive(worker)
        with pytest.raises(WorkerLost):
            await pool.execute("die", {"number": int(signal.SIGKILL)})
        await until_full(pool)
        assert await pool.execute("add", {"x": 1}) == 2


async def test_9_the_keeper_dies_and_everything_is_started_again() -> None:
    async with new_pool() as pool:
        before = [int(info.pid or 0) for info in pool.workers()]
        running = asyncio.create_task(pool.execute("spin"))
        await until(lambda: pool.stats().running == 1, "the call runs")
        keeper = parent_of(before[0])
        os.kill(keeper, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await running
        took = await asyncio.to_thread(
            wait_until, lambda: not any(alive(pid) for pid in before), "the workers die with it"
        )
        assert took < 1.0
        await until_full(pool)
        assert await pool.execute("add", {"x": 1}) == 2


async def test_10_what_can_not_be_forked_is_spawned_and_the_culprit_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with new_pool("pool_worker:Threaded") as pool:
        assert await pool.execute("hello") == "hello"
    assert "culprit" in caplog.text


async def test_11_a_crash_storm_loses_no_call() -> None:
    async with new_pool(size=2) as pool:
        outcomes: list[Any] = []

        def reached(count: int) -> bool:
            return len(outcomes) >= count

        async def caller(number: int) -> None:
            # Each call another one: the same would in time be taken for what kills the workers.
            for x in range(number * 40, number * 40 + 40):
                try:
                    outcomes.append(await pool.execute("add", {"x": x}) - x)
                except WorkerLost as error:
                    outcomes.append(error)

        async def assassin() -> None:
            for _ in range(10):
                ready = pool.workers()
                if ready:
                    send_signal(ready[0], signal.SIGKILL)
                enough = min(len(outcomes) + 10, 320)
                await until(partial(reached, enough), "calls go on")

        await asyncio.gather(assassin(), *map(caller, range(8)))
        assert len(outcomes) == 320
        assert all(result == 1 or isinstance(result, WorkerLost) for result in outcomes)
        await until_full(pool)
        assert_settled(pool)


# --- B: late and unwanted calls ------------------------------------------------------------------


@pytest.mark.parametrize("command", ["spin", "hold_gil", "stubborn"])
async def test_14_a_late_call_frees_its_caller_at_once_and_its_slot_soon(command: str) -> None:
    async with new_pool(size=1, cancel_grace=0.1) as pool:
        start = time.monotonic()
        with pytest.raises(CallTimeout) as caught:
            await pool.execute(command, timeout=0.1)
        assert pool.stats().stopping == 1, "its caller did not wait until it has stopped"
        assert time.monotonic() - start < 5.0
        assert caught.value.limit == "total"
        assert caught.value.outcome is Outcome.UNKNOWN
        assert float(caught.value.ran_s or 0) >= 0.09
        assert await pool.execute("add", {"x": 1}, timeout=10) == 2
        await until_full(pool)
        assert_settled(pool)


async def test_14_a_sleeping_call_is_interrupted_and_its_worker_replaced(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with new_pool(size=1, cancel_grace=5.0) as pool:
        before = await pool.execute("pid")
        with pytest.raises(CallTimeout):
            await pool.execute("sleep", {"started": str(started)}, timeout=1.0)
        assert started.exists()
        assert await pool.execute("pid", timeout=4) != before
        await until(lambda: not alive(before), "the interrupted worker is gone")


async def test_a_call_that_looks_at_cancelled_keeps_its_worker() -> None:
    async with new_pool(size=1, cancel_grace=5.0) as pool:
        before = await pool.execute("pid")
        unwanted = asyncio.create_task(pool.execute("polite"))
        await until_computing(pool)
        unwanted.cancel()
        assert await pool.execute("how_stopped", timeout=4) == "cancelled"
        assert await pool.execute("pid") == before


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_cancelled_caller_stops_an_async_call_and_keeps_its_worker(
    tmp_path: Path, concurrency: int
) -> None:
    started = tmp_path / "started"
    async with new_pool(size=1, cancel_grace=5.0, concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        running = asyncio.create_task(pool.execute("async_forever", {"started": str(started)}))
        await until(started.exists, "the call runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: pool.stats().stopping == 0, "the worker confirms")
        assert await pool.execute("how_stopped") == "task cancelled"
        assert await pool.execute("pid") == before
        assert pool.stats().cancelled == 1


async def test_a_call_that_waits_too_long_says_that_it_never_started(tmp_path: Path) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await gate.wait()

    async with new_pool(size=1, host_functions={"hold": hold}) as pool:
        busy = asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
        await entered.wait()
        with pytest.raises(CallTimeout) as caught:
            await pool.execute("add", {"x": 1}, timeout=0.05)
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NONE, True)
        waiting = asyncio.create_task(pool.execute("add", {"x": 1}))
        await until(lambda: pool.stats().queued == 1, "it is queued")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert pool.stats().queued == 0
        gate.set()
        await busy
        assert_settled(pool)


async def test_a_late_call_takes_its_nested_calls_with_it() -> None:
    stopped = asyncio.Event()

    async def hold(call: HostCall) -> None:
        assert 0 < float(call.remaining() or 0) <= 1.0
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    async with new_pool(size=1, host_functions={"hold": hold}) as pool:
        before = await pool.execute("pid")
        with pytest.raises(CallTimeout):
            await pool.execute("call_host", {"name": "hold", "args": {}}, timeout=1.0)
        await asyncio.wait_for(stopped.wait(), 5)
        # It stopped where it waited for the host, so nothing was broken off.
        assert await pool.execute("pid") == before


async def test_16_a_frozen_worker_delays_nobody_else_and_is_killed_at_the_deadline() -> None:
    async with new_pool(cancel_grace=0.1, look_ahead=0) as pool:
        frozen = await pool.execute("pid", session_id="s")
        os.kill(frozen, signal.SIGSTOP)
        late = asyncio.create_task(pool.execute("pid", session_id="s", timeout=0.5))
        await until(lambda: pool.stats().running == 1, "the frozen one has a call")
        others = await asyncio.gather(*(pool.execute("pid") for _ in range(19)))
        assert frozen not in others
        with pytest.raises(CallTimeout):
            await late
        await until(lambda: not alive(frozen), "it is killed")
        await until_full(pool)
        assert_settled(pool)


async def test_closing_without_draining_ends_running_calls_with_a_typed_error() -> None:
    pool = new_pool()
    await pool.start()
    running = [asyncio.create_task(pool.execute("hold_gil")) for _ in range(4)]
    await until(lambda: pool.stats().running == 2, "two run, two wait")
    await pool.aclose(drain=False)
    results = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(result, PoolClosed) for result in results)
    assert_settled(pool)


# --- the host's own death ------------------------------------------------------------------------

HOST = """
import asyncio, os, sys
from snakepit import Pool, PythonAdapter

async def main():
    async with Pool(PythonAdapter("pool_worker:Worker"), size=3) as pool:
        grandchild = await pool.execute("start_grandchild")
        calls = [asyncio.create_task(pool.execute("hold_gil")) for _ in range(2)]
        while pool.stats().running < 2:
            await asyncio.sleep(0)
        pids = [info.pid for info in pool.workers()]
        with open(f"/proc/{pids[0]}/stat") as file:
            keeper = file.read().rpartition(")")[2].split()[1]
        if sys.argv[1] == "forked" and os.fork() == 0:
            os.close(1)
            await asyncio.sleep(3600)
        print(keeper, grandchild, *pids, flush=True)
        await asyncio.gather(*calls)

asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["plain", "forked"])
def test_the_host_is_killed_and_nothing_is_left_within_a_second(mode: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOST), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as host:
        assert host.stdout is not None
        pids = [int(pid) for pid in host.stdout.readline().split()]
        assert len(pids) == 5
        host.kill()
        took = wait_until(lambda: not any(map(alive, pids)), "keeper, workers, grandchild are gone")
        os.killpg(host.pid, signal.SIGKILL)
    assert took < 1.0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
