"""Part E: more than a pool can take, and what it must not forget, hold up or run meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fault_pool import (
    SETTLE,
    WORKER,
    Baseline,
    after_check,
    answer,
    assert_serves,
    faulty_pool,
    fresh_calls,
    new_pool,
    outcomes_of,
    pids_of,
    resident_bytes,
    settled,
)

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    CallDepthExceeded,
    CallTimeout,
    EncodeError,
    Outcome,
    PoolClosed,
    PoolSaturated,
)
from snakepit.supervision.monitor import Answering
from snakepit.testing import Direction, FaultyAdapter, FrameProxy, FrameRule, Tamper
from snakepit.wire.frames import FrameType

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


class Gate:
    """A host function that holds the calls which reach it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0

    async def __call__(self, call: HostCall) -> str:
        self.inside += 1
        await self.open.wait()
        return "through"


async def test_40_what_is_refused_or_late_in_the_queue_never_runs() -> None:
    gate = Gate()

    async def hold(call: HostCall) -> str:
        return await gate(call)

    async with faulty_pool(size=1, queue_limit=5, host_functions={"hold": hold}) as pool:
        busy = asyncio.create_task(pool.execute("call_host", {"name": "hold"}))
        await settled(lambda: gate.inside == 1, "the one worker is busy")
        calls = [
            asyncio.create_task(pool.execute("note", {"number": number}, timeout=0.1))
            for number in range(20)
        ]
        ends = Counter(type(outcome).__name__ for outcome in await outcomes_of(*calls))
        assert ends == {"CallTimeout": 5, "PoolSaturated": 15}
        for call in calls:
            error = call.exception()
            assert isinstance(error, CallTimeout | PoolSaturated)
            assert (error.outcome, error.retryable) == (Outcome.NONE, True)
        gate.open.set()
        assert await busy == "through"
        assert await pool.execute("noted") == []


@pytest.mark.parametrize("end", ["cancelled", "late"])
async def test_41_calls_that_end_in_the_queue_leave_no_trace(end: str) -> None:
    """Twenty thousand, in waves; dead entries do not count against the limit of the queue."""
    gate = Gate()

    async def hold(call: HostCall) -> str:
        return await gate(call)

    async with faulty_pool(size=1, queue_limit=1000, host_functions={"hold": hold}) as pool:
        busy = asyncio.create_task(pool.execute("call_host", {"name": "hold"}))
        await settled(lambda: gate.inside == 1, "the one worker is busy")
        memory = 0
        for wave in range(20):
            limit = 0.05 if end == "late" else None
            calls = [
                asyncio.create_task(
                    pool.execute("add", {"x": 1}, session_id=f"{wave}-{i}", timeout=limit)
                )
                for i in range(1000)
            ]
            await asyncio.sleep(0)
            assert pool.stats().queued == 1000
            if end == "cancelled":
                for call in calls:
                    call.cancel()
            await outcomes_of(*calls)
            assert pool.stats().queued == 0
            if wave == 9:
                memory = resident_bytes()
        assert resident_bytes() - memory < 10 << 20
        gate.open.set()
        await busy


async def test_42_five_thousand_calls_at_once_need_no_threads_and_starve_nobody() -> None:
    async with faulty_pool(queue_limit=5000) as pool:
        threads = threading.active_count()
        calls = [
            asyncio.create_task(pool.execute("echo", {"value": i}, session_id=f"s{i % 50}"))
            for i in range(5000)
        ]
        await asyncio.sleep(0)
        assert threading.active_count() <= threads
        assert await outcomes_of(*calls) == list(range(5000))


async def test_42_calls_of_one_session_run_in_their_order() -> None:
    async with faulty_pool(size=1, queue_limit=1000) as pool:
        calls = [
            asyncio.create_task(pool.execute("note", {"number": i}, session_id="one"))
            for i in range(500)
        ]
        await outcomes_of(*calls)
        assert await pool.execute("noted") == list(range(500))


async def test_42_a_hundred_streams_at_once_all_come_whole() -> None:
    async def items(n: int) -> list[int]:
        return [item async for item in pool.execute_stream("acount", {"n": n})]

    async with faulty_pool(concurrency=50, queue_limit=200) as pool:
        streams = [asyncio.create_task(items(100 + i)) for i in range(100)]
        assert await outcomes_of(*streams) == [list(range(100 + i)) for i in range(100)]


async def test_43_large_values_on_their_way_do_not_hold_up_a_close() -> None:
    pool = new_pool()
    await pool.start()
    await fresh_calls(pool)
    value = [b"x" * (1 << 20)] * 20
    calls = [asyncio.create_task(pool.execute("echo", {"value": value})) for _ in range(6)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    calls[-1].cancel()
    start = time.monotonic()
    await pool.aclose(drain=False)
    assert time.monotonic() - start < 5.0
    for outcome in await outcomes_of(*calls):
        assert outcome == value or isinstance(outcome, PoolClosed | asyncio.CancelledError)
    await assert_serves(PythonAdapter(WORKER))


async def test_44_control_is_answered_while_bulk_data_is_on_its_way() -> None:
    """Neither statistics, nor a heartbeat, nor a cancellation queues behind 20 MB: one such call is
    held on its way to the worker, and its result on the way back."""
    gate, proxy = Gate(), FrameProxy()
    to_worker = FrameRule(Tamper.HOLD, FrameType.CALL, direction=Direction.TO_WORKER)
    to_host = FrameRule(Tamper.HOLD, FrameType.RESULT, direction=Direction.TO_HOST)

    async def hold(call: HostCall) -> str:
        return await gate(call)

    async with Pool(
        FaultyAdapter(WORKER, proxy=proxy),
        size=1,
        concurrency=4,
        cancel_grace=SETTLE,
        host_functions={"answer": answer, "hold": hold},
    ) as pool:
        await fresh_calls(pool)
        before, (pid,) = Baseline.take(), pids_of(pool)
        (worker,) = pool._workforce.workers.values()
        assert isinstance(worker, Answering)
        unwanted, wanted = (
            asyncio.create_task(pool.execute("acall_host", {"name": "hold"})) for _ in range(2)
        )
        await settled(lambda: gate.inside == 2, "two calls run")
        proxy.rules = (to_worker, to_host)
        value = ["x" * 1000] * 20_000
        bulk = asyncio.create_task(pool.execute("aecho", {"value": value}))
        await settled(lambda: to_worker.fired, "the arguments are on their way")
        await asyncio.wait_for(worker.ping(), SETTLE)
        assert pool.stats().running == 3
        unwanted.cancel()
        await outcomes_of(unwanted)
        await settled(lambda: pool.stats().stopping == 0, "the worker confirms that it has stopped")
        assert (pool.stats().running, to_host.fired) == (2, False)
        to_worker.release()
        await settled(lambda: to_host.fired, "the result is on its way")
        await asyncio.wait_for(worker.ping(), SETTLE)
        wanted.cancel()  # its caller is told at once; the worker's word comes after the result
        assert isinstance((await outcomes_of(wanted))[0], asyncio.CancelledError)
        assert not bulk.done()
        assert (pool.stats().running, pool.stats().stopping) == (1, 1)
        to_host.release()
        assert await bulk == value
        await settled(lambda: pool.stats().stopping == 0, "it has stopped")
        assert pids_of(pool) == [pid]
        await after_check(pool, before)


async def test_45_a_pool_of_one_that_calls_itself_to_the_limit() -> None:
    async def again(call: HostCall, depth: int) -> int:
        if depth == 0:
            return 0
        args = {"name": "again", "args": {"depth": depth - 1}}
        return 1 + int(await pool.execute("call_host", args))

    async with faulty_pool(size=1, host_functions={"again": again}) as pool:
        args = {"name": "again", "args": {"depth": 11}}
        assert await pool.execute("call_host", args) == 11
        with pytest.raises(CallDepthExceeded):
            await pool.execute("call_host", {"name": "again", "args": {"depth": 100}})


async def test_45_parents_that_wait_for_children_take_no_slot_from_them() -> None:
    """Twelve callers, two workers: each call makes another call of the same pool."""

    async def child(call: HostCall) -> int:
        return int(await pool.execute("add", {"x": 1}))

    async with faulty_pool(host_functions={"child": child}) as pool:
        calls = [
            asyncio.create_task(pool.execute("call_host", {"name": "child"}, timeout=20))
            for _ in range(12)
        ]
        assert await outcomes_of(*calls) == [2] * 12


async def test_45_a_hundred_calls_each_made_by_the_end_of_the_one_before() -> None:
    async with faulty_pool() as pool:
        done = asyncio.Event()
        tasks: list[asyncio.Task[int]] = []

        def start(_: object = None) -> None:
            if len(tasks) == 100:
                done.set()
                return
            tasks.append(asyncio.create_task(pool.execute("add", {"x": len(tasks)})))
            tasks[-1].add_done_callback(start)

        start()
        await asyncio.wait_for(done.wait(), 20)
        assert [task.result() for task in tasks] == [i + 1 for i in range(100)]


async def test_46_a_session_whose_every_call_fails_holds_up_no_other() -> None:
    async with faulty_pool(size=1, queue_limit=1000) as pool:
        bad = [
            asyncio.create_task(pool.execute("echo", {"value": object()}, session_id="bad"))
            for _ in range(100)
        ]
        good = [
            asyncio.create_task(pool.execute("echo", {"value": i}, session_id="good"))
            for i in range(100)
        ]
        assert await outcomes_of(*good) == list(range(100))
        assert all(isinstance(error, EncodeError) for error in await outcomes_of(*bad))


async def test_46_a_pool_that_is_stuck_holds_up_no_other_pool(tmp_path: Path) -> None:
    async with faulty_pool(size=1) as pool, new_pool(size=1, name="stuck") as other:
        stuck = asyncio.create_task(other.execute("hold_gil"))
        await settled(lambda: other.stats().running == 1, "it runs")
        calls = [asyncio.create_task(pool.execute("add", {"x": i})) for i in range(100)]
        assert await outcomes_of(*calls) == [i + 1 for i in range(100)]
        stuck.cancel()
        await outcomes_of(stuck)
        await other.aclose(drain=False)


async def test_69_a_stream_that_nobody_reads_delays_no_other_call() -> None:
    async with faulty_pool(size=1, concurrency=4) as pool:
        before = pids_of(pool)
        unread = pool.execute_stream("acount", {"n": 100_000})
        assert await anext(unread) == 0
        memory = resident_bytes()
        dice = random.Random(69)
        for _ in range(200):
            number = dice.randrange(1000)
            assert await pool.execute("echo", {"value": number}) == number
        assert resident_bytes() - memory < 10 << 20
        assert [await anext(unread) for _ in range(1000)] == list(range(1, 1001))
        await unread.aclose()
        assert pids_of(pool) == before
