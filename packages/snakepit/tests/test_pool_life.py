"""Opening and closing pools, in order and out of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    AdapterInitFailed,
    ConfigurationError,
    EncodeError,
    PoolBroken,
    PoolClosed,
    PoolStartFailed,
    RemoteError,
    WorkerLost,
)
from snakepit.supervision import restarts
from snakepit.testing import frozen

WORKER = "pool_worker:Worker"


def new_pool(target: str = WORKER, **options: Any) -> Pool:
    return Pool(PythonAdapter(target), **{"size": 1, **options})


def pids_of(pool: Pool) -> list[int]:
    return [int(info.pid or 0) for info in pool.workers()]


def keeper_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_wrong_option_of_aclose_closes_nothing_and_the_next_one_does() -> None:
    pool = new_pool()
    await pool.start()
    pids = pids_of(pool)
    with pytest.raises(ConfigurationError, match="timeout is 0"):
        await pool.aclose(timeout=0)
    await pool.aclose()
    assert not any(map(alive, pids))


async def test_a_cancelled_aclose_goes_on_and_everybody_waits_for_the_same_end() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> str:
        entered.set()
        await gate.wait()
        return "held"

    pool = new_pool(host_functions={"hold": hold})
    await pool.start()
    pids = pids_of(pool)
    running = asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
    await entered.wait()
    first = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    assert not second.done()
    with pytest.raises(PoolClosed, match="is closing"):
        await pool.execute("add", {"x": 1})
    gate.set()
    assert await running == "held"
    await second
    assert not any(map(alive, pids))


def cancel_all_others() -> None:
    """As `asyncio.run` does when its main task has ended."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("drain", [True, False])
async def test_a_close_that_is_cut_off_when_all_tasks_are_cancelled_is_brought_to_its_end(
    drain: bool,
) -> None:
    pool = new_pool()
    await pool.start()
    pids = pids_of(pool)
    call = asyncio.create_task(pool.execute("spin"))
    await until(lambda: pool.stats().running == 1, "it runs")
    closing = asyncio.create_task(pool.aclose(drain=drain, timeout=3600))
    await until(lambda: not pool.health().ready, "the pool closes")
    cancel_all_others()
    await asyncio.wait_for(pool.aclose(), 20.0)
    ended = await asyncio.gather(call, closing, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError | PoolClosed)
    assert not any(map(alive, pids))


async def test_a_pool_can_be_closed_when_all_tasks_were_cancelled_while_a_worker_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakepit.processes.tree._CAUSE_PATIENCE", 3600.0)
    pool = new_pool()
    await pool.start()
    (pid,) = pids_of(pool)
    with frozen(keeper_of(pid)):  # it does not tell how the worker has ended
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not pool.health().ready, "its end is noticed")
        cancel_all_others()
        await until(lambda: pool.stats().ready == 0, "it is given up")
    await asyncio.wait_for(pool.aclose(), 20.0)


async def test_a_call_in_flight_may_finish_what_it_is_made_of_while_the_pool_drains() -> None:
    draining = asyncio.Event()

    async def nested(call: HostCall) -> Any:
        closing.append(asyncio.create_task(pool.aclose()))
        await asyncio.sleep(0)
        draining.set()
        return await pool.execute("add", {"x": 1}, session_id=call.session_id)

    closing: list[asyncio.Task[None]] = []
    pool = new_pool(host_functions={"nested": nested})
    await pool.start()
    args = {"name": "nested", "args": {}}
    assert await pool.execute("call_host", args, session_id="s") == 2
    await asyncio.gather(*closing)
    assert draining.is_set()


async def test_a_pool_may_be_closed_by_one_of_its_host_functions() -> None:
    async def close(call: HostCall) -> None:
        await pool.aclose(drain=False)

    pool = new_pool(host_functions={"close": close})
    await pool.start()
    pids = pids_of(pool)
    with pytest.raises(PoolClosed):
        await pool.execute("call_host", {"name": "close", "args": {}})
    await pool.aclose()
    assert not any(map(alive, pids))


async def test_a_pool_closed_before_its_start_does_not_start() -> None:
    pool = new_pool()
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await pool.start()


async def test_a_pool_closed_while_it_starts_leaves_nothing_and_takes_no_calls() -> None:
    pool = new_pool()
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="still starting"):
        await pool.execute("add", {"x": 1})
    await pool.aclose()
    with pytest.raises((PoolClosed, PoolStartFailed)):
        await starting


async def test_calls_after_a_failed_start_are_refused() -> None:
    pool = new_pool("pool_worker:Broken")
    with pytest.raises(PoolStartFailed):
        await pool.start()
    with pytest.raises(PoolClosed):
        await pool.execute("never", timeout=5)


async def test_a_frozen_keeper_and_a_frozen_worker_do_not_keep_a_pool_open() -> None:
    pool = new_pool()
    await pool.start()
    worker = pids_of(pool)[0]
    keeper = keeper_of(worker)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    await asyncio.wait_for(pool.aclose(drain=False), 10)
    await until(lambda: not alive(worker) and not alive(keeper), "both are gone")


async def test_an_adapter_serves_one_pool_at_a_time() -> None:
    adapter = PythonAdapter(WORKER)
    async with Pool(adapter, size=1) as pool:
        with pytest.raises(AdapterInitFailed, match="create one for each"):
            await Pool(adapter, size=1).start()
        assert await pool.execute("add", {"x": 1}) == 2
    async with Pool(adapter, size=1) as again:
        assert await again.execute("add", {"x": 1}) == 2


async def test_an_environment_that_can_not_be_passed_on_is_refused_at_once() -> None:
    for env in ({"X": 5}, {"X": "a\0b"}, {"": "x"}):
        with pytest.raises(ConfigurationError, match="env has"):
            PythonAdapter(WORKER, env=env)  # type: ignore[arg-type]


FORGETFUL = """
import asyncio
from processes import alive, wait_until
from test_pool_life import keeper_of, new_pool, pids_of

async def forget():
    pool = new_pool()
    await pool.start()
    return [*pids_of(pool), keeper_of(pids_of(pool)[0])]

async def use():
    async with new_pool() as pool:
        assert await pool.execute("add", {"x": 1}) == 2

loop = asyncio.new_event_loop()
left = loop.run_until_complete(forget())
loop.close()
assert all(map(alive, left))
asyncio.run(use())
wait_until(lambda: not any(map(alive, left)), "what was left is gone")
print("gone")
"""


def test_a_loop_that_ended_without_closing_leaves_nothing_once_another_pool_starts() -> None:
    # In a process of its own: what a dead loop still holds can't be closed.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ended = subprocess.run(
        [sys.executable, "-c", FORGETFUL],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=False,
    )
    assert ended.stdout == "gone\n", ended.stderr


async def test_many_queued_calls_that_can_not_be_sent_all_get_their_error() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await gate.wait()

    async with new_pool(host_functions={"hold": hold}) as pool:
        busy = asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
        await entered.wait()
        bad = [asyncio.create_task(pool.execute("echo", {"value": object()})) for _ in range(900)]
        await until(lambda: pool.stats().queued == 900, "all wait")
        gate.set()
        await busy
        results = await asyncio.gather(*bad, return_exceptions=True)
        assert all(isinstance(result, EncodeError) for result in results)
        assert await pool.execute("add", {"x": 1}) == 2


async def test_a_host_function_that_raises_anything_answers() -> None:
    class Odd(BaseException):
        pass

    def stop(call: HostCall) -> Any:
        return next(iter([]))

    async def odd(call: HostCall) -> None:
        raise Odd("out of the ordinary")

    async with new_pool(host_functions={"stop": stop, "odd": odd}) as pool:
        for name in ("stop", "odd"):
            with pytest.raises(RemoteError):
                await pool.execute("call_host", {"name": name, "args": {}}, timeout=10)


async def test_blocked_host_functions_starve_no_others() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def block(call: HostCall) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    def quick(call: HostCall) -> str:
        return "quick"

    functions = {"block": block, "quick": quick}
    async with new_pool(concurrency=64, host_functions=functions) as pool:
        blocked = [
            asyncio.create_task(pool.execute("acall_host", {"name": "block", "args": {}}))
            for _ in range(40)
        ]
        await until(lambda: pool.stats().running == 40, "all block")
        assert await pool.execute("acall_host", {"name": "quick", "args": {}}) == "quick"
        release.set()
        await asyncio.gather(*blocked)


async def test_a_broken_pools_waiting_calls_end_with_its_last_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "_LONGEST_DELAY", 0.1)
    async with new_pool(size=2, cancel_grace=0.1, quarantine_after=None) as pool:
        stuck = asyncio.create_task(pool.execute("stubborn"))
        await until(lambda: pool.stats().running == 1, "one is stuck")
        killers = [
            asyncio.create_task(pool.execute("die", {"number": int(signal.SIGKILL)}))
            for _ in range(8)
        ]
        waiting = asyncio.create_task(pool.execute("add", {"x": 1}, priority="low"))
        for error in await asyncio.gather(*killers, return_exceptions=True):
            assert isinstance(error, WorkerLost)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        with pytest.raises(PoolBroken):
            await asyncio.wait_for(waiting, 10)


async def test_a_pool_raises_in_a_fork_of_its_host_and_goes_on_in_the_host() -> None:
    async with new_pool() as pool:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pool.execute("pid").send(None)
            except PoolBroken:
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await pool.execute("pid", timeout=10.0)
