"""Part B: code that does not stop, processes that do not answer, cleaning up that never ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fault_pool import faulty_pool, fresh_calls, new_pool, outcomes_of, pids_of, settled
from processes import alive, until_computing

from snakepit import HostCall
from snakepit.errors import CallTimeout, Outcome, PoolClosed, PoolSaturated

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


@pytest.mark.parametrize("command", ["spin", "sleep", "hold_gil", "backtrack"])
async def test_14_a_call_past_its_deadline_costs_the_others_nothing(command: str) -> None:
    async with faulty_pool(cancel_grace=0.1) as pool:
        late = asyncio.create_task(pool.execute(command, timeout=0.5))
        await settled(lambda: pool.stats().running == 1, "it runs")
        others = 0
        while not late.done():
            assert await pool.execute("add", {"x": others}) == others + 1
            others += 1
        with pytest.raises(CallTimeout) as caught:
            await late
        assert (caught.value.limit, caught.value.outcome) == ("total", Outcome.UNKNOWN)
        # If they had to wait for its end, only the first could have begun before.
        assert others > 1
        victim = {pid for pid in pids_of(pool) if alive(pid)}
        await settled(lambda: pool.stats().stopping == 0, "its slot is free")
        assert len(victim - set(pids_of(pool))) <= 1


@pytest.mark.parametrize("when", ["idle", "in a call", "with a full socket"])
async def test_16_a_frozen_worker_is_replaced_and_its_late_answer_refused(when: str) -> None:
    async with faulty_pool(size=1, cancel_grace=0.1) as pool:
        (victim,) = pids_of(pool)
        if when == "in a call":
            running = asyncio.create_task(pool.execute("spin", timeout=2.0))
            await until_computing(pool)
            os.kill(victim, signal.SIGSTOP)
        else:
            os.kill(victim, signal.SIGSTOP)
            value = ["x" * 1000] * (10_000 if "full" in when else 1)
            running = asyncio.create_task(pool.execute("echo", {"value": value}, timeout=0.5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Whatever could not be written does not hold up the loop: its reader would have to end.
        assert alive(victim)
        (error,) = await outcomes_of(running)
        assert isinstance(error, CallTimeout)
        await settled(lambda: pids_of(pool) not in ([victim], []), "it is replaced")
        assert await pool.execute("echo", {"value": "mine"}, timeout=10) == "mine"
        await settled(lambda: not alive(victim), "it is gone")


@pytest.mark.parametrize("how", ["ignore", "loop"])
async def test_17_a_worker_that_ignores_sigterm_ends_all_the_same(how: str) -> None:
    async with faulty_pool(size=1, cancel_grace=0.1) as pool:
        await pool.execute("ignore_sigterm", {"how": how})
        (victim,) = pids_of(pool)
        unwanted = asyncio.create_task(pool.execute("hold_gil"))
        await until_computing(pool)
        unwanted.cancel()
        await settled(lambda: not alive(victim), "it is gone")
        # It was killed by its pool: no crash that would count against the budget.
        assert pool.stats().workers_lost == 0
        await settled(lambda: bool(pids_of(pool)), "there is another")
        await pool.execute("ignore_sigterm", {"how": how})


async def test_19_calls_that_hang_leave_the_last_slot_to_the_others() -> None:
    gate = asyncio.Event()

    async def hold(call: HostCall) -> None:
        await gate.wait()

    async with faulty_pool(size=2, host_functions={"hold": hold}) as pool:
        stuck = asyncio.create_task(pool.execute("call_host", {"name": "hold"}))
        await settled(lambda: pool.stats().running == 1, "one hangs")
        assert [await pool.execute("add", {"x": i}) for i in range(100)] == [*range(1, 101)]
        gate.set()
        await stuck


async def test_19_when_all_slots_hang_the_others_are_told_and_the_pool_closes_quickly() -> None:
    pool = new_pool(queue_limit=1)
    await pool.start()
    await fresh_calls(pool)
    stuck = [asyncio.create_task(pool.execute("hold_gil")) for _ in range(2)]
    await settled(lambda: pool.stats().running == 2, "all slots are taken")
    with pytest.raises(CallTimeout) as late:
        await pool.execute("add", {"x": 1}, timeout=0.05)
    assert (late.value.outcome, late.value.retryable) == (Outcome.NONE, True)
    waiting = asyncio.create_task(pool.execute("add", {"x": 1}))
    await settled(lambda: pool.stats().queued == 1, "one waits")
    with pytest.raises(PoolSaturated):
        await pool.execute("add", {"x": 1})
    # Which of them, and for how long.
    *hung, queued = pool.calls()
    assert {call.worker_id for call in hung} == {info.worker_id for info in pool.workers()}
    assert [(call.command, call.state) for call in hung] == [("hold_gil", "running")] * 2
    assert all((call.running_s or 0.0) > queued.queued_s for call in hung)
    assert (queued.command, queued.state, queued.worker_id) == ("add", "queued", None)
    start = time.monotonic()
    await pool.aclose(timeout=0.3)
    assert time.monotonic() - start < 5.0
    assert all(isinstance(error, PoolClosed) for error in await outcomes_of(*stuck, waiting))


@pytest.mark.parametrize("what", ["close hook", "thread", "atexit", "destructor"])
async def test_20_cleaning_up_that_never_ends_does_not_keep_the_pool_open(what: str) -> None:
    adapter: dict[str, Any] = {"config": {"close": "hang"}} if what == "close hook" else {}
    pool = new_pool(adapter=adapter)
    await pool.start()
    await fresh_calls(pool)
    command = {
        "thread": "leave_thread_running",
        "atexit": "register_hanging_exit",
        "destructor": "leave_hanging_destructor",
    }.get(what)
    if command is not None:
        await pool.execute(command)
    pids = pids_of(pool)
    start = time.monotonic()
    await pool.aclose(timeout=1.0)
    assert time.monotonic() - start < 5.0
    assert not any(map(alive, pids))


async def test_20_a_task_that_swallows_its_cancellation_costs_its_worker_only(
    tmp_path: Path,
) -> None:
    async with faulty_pool(size=2, cancel_grace=0.1) as pool:
        before = set(pids_of(pool))
        started = tmp_path / "started"
        unwanted = asyncio.create_task(pool.execute("refuse_to_stop", {"started": str(started)}))
        await settled(started.exists, "it has begun")
        unwanted.cancel()
        # Its successor may be there before it is gone.
        await settled(lambda: len(before & set(pids_of(pool))) == 1, "it is gone, and no other")
        await settled(lambda: len(pids_of(pool)) == 2, "it is replaced")
