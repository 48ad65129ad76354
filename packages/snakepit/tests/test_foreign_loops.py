"""A pool that is called from event loops of other threads than its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from gated_pool import Reluctant
from processes import until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    Outcome,
    PoolClosed,
    PoolNotReady,
    RemoteError,
)
from snakepit.loops.foreign_loops import Crossing, run_there

T = TypeVar("T")


def new_pool(**options: Any) -> Pool:
    return Pool(PythonAdapter("pool_worker:Worker"), **{"size": 1, **options})


async def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own, in another thread; one that says so when another
    thread touches it.
    """
    return await asyncio.to_thread(asyncio.run, work, debug=True)


async def test_a_call_from_another_loop_has_its_result_or_its_error() -> None:
    async def call(pool: Pool) -> int:
        with pytest.raises(RemoteError, match="no good") as caught:
            await pool.execute("fail", {"message": "no good"})
        assert isinstance(caught.value, ValueError)
        with pytest.raises(ConfigurationError, match="affinity"):
            await pool.execute("add", {"x": 1}, affinity="none")  # type: ignore[arg-type]
        result: int = await pool.execute("add", {"x": 1}, priority="high", idempotency_key="k")
        return result

    async with new_pool() as pool:
        assert await elsewhere(call(pool)) == 2


async def test_two_hundred_calls_from_two_loops_each_have_their_own_result() -> None:
    async def calls(pool: Pool, base: int) -> list[int]:
        numbers = range(base, base + 100)
        return list(await asyncio.gather(*(pool.execute("add", {"x": n}) for n in numbers)))

    async with new_pool(size=2) as pool:
        found = await asyncio.gather(*(elsewhere(calls(pool, base)) for base in (0, 1000)))
        assert found == [list(range(1, 101)), list(range(1001, 1101))]
        assert pool.stats().succeeded == 200


async def test_a_deadline_holds_there_too() -> None:
    async with new_pool() as pool:
        with pytest.raises(CallTimeout) as caught:
            await elsewhere(pool.execute("spin", timeout=0.2))
        assert caught.value.limit == "total"


async def test_what_is_cancelled_there_is_stopped_here(tmp_path: Path) -> None:
    started = tmp_path / "started"

    async def call(pool: Pool) -> None:
        task = asyncio.create_task(pool.execute("async_forever", {"started": str(started)}))
        await until(started.exists, "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with new_pool() as pool:
        await elsewhere(call(pool))
        assert await pool.execute("how_stopped") == "task cancelled"
        assert pool.stats().cancelled == 1


async def test_a_call_within_a_call_knows_it_from_there() -> None:
    """With one worker, which waits for it, it would wait for ever if it did not."""

    def sum_up(call: HostCall, x: int) -> int:
        return int(asyncio.run(pool.execute("add", {"x": x}, timeout=10.0)))

    async with new_pool(host_functions={"sum_up": sum_up}) as pool:
        assert await pool.execute("call_host", {"name": "sum_up", "args": {"x": 4}}) == 5


async def test_the_calls_of_a_session_go_to_its_worker() -> None:
    async def calls(pool: Pool) -> str:
        async with pool.session() as session:
            pids = [await session.execute("pid", affinity="strict_queue") for _ in range(6)]
            assert len(set(pids)) == 1
            assert pool.worker_of_session(session.session_id)
        return session.session_id

    async with new_pool(size=2) as pool:
        await pool.await_ready()
        session_id = await elsewhere(calls(pool))
        assert pool.worker_of_session(session_id) is None


# --- streams --------------------------------------------------------------------------


async def test_a_stream_brings_all_its_items_in_order_and_then_its_error() -> None:
    async def items(pool: Pool) -> list[int]:
        assert [n async for n in pool.execute_stream("count", {"n": 200})] == list(range(200))
        failing = pool.execute_stream("count", {"n": 5, "fail_at": 3})
        found = [await anext(failing) for _ in range(3)]
        with pytest.raises(RemoteError, match="at 3"):
            await anext(failing)
        return found

    async with new_pool() as pool:
        assert await elsewhere(items(pool)) == [0, 1, 2]


async def test_a_stream_is_never_far_ahead_and_leaving_it_stops_its_producer() -> None:
    async def first(pool: Pool) -> int:
        async with aclosing(pool.execute_stream("produced", {"n": 10**9})) as items:
            async for item in items:
                return int(item)
        return -1

    async with new_pool() as pool:
        assert await elsewhere(first(pool)) == 0
        assert await pool.execute("how_many_produced", timeout=10.0) <= 130


async def test_a_stream_that_nobody_closes_is_closed_with_its_loop() -> None:
    async def first(pool: Pool) -> AsyncGenerator[Any]:
        items = pool.execute_stream("count", {"n": 10**9})
        assert await anext(items) == 0
        return items

    async with new_pool() as pool:
        kept = await elsewhere(first(pool))
        assert await pool.execute("how_stopped", timeout=10.0) == "generator closed"
        await kept.aclose()


async def test_a_step_of_a_stream_can_be_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def step(pool: Pool) -> None:
        items = pool.execute_stream("astuck", {"log": str(log)})
        assert await anext(items) == 1
        task = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await until(log.exists, "its producer is closed")

    async with Pool(PythonAdapter("stream_worker:Producer"), size=1) as pool:
        await elsewhere(step(pool))
        assert [n async for n in pool.execute_stream("count", {"n": 2})] == [0, 1]


# --- the end of a pool, and of its loop --------------------------------------------------


async def test_a_pool_can_be_closed_from_another_loop() -> None:
    async def close(pool: Pool) -> None:
        await pool.aclose()
        with pytest.raises(PoolClosed, match="is closed"):
            await pool.execute("add", {"x": 1})

    pool = new_pool()
    await pool.start()
    await elsewhere(close(pool))
    assert not pool.health().live


@pytest.fixture
def home() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if loop.is_running():
        loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_a_loop_that_stops_leaves_nobody_waiting(
    home: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    pool, started = new_pool(), tmp_path / "started"
    there = asyncio.run_coroutine_threadsafe(pool.start(), home)
    await asyncio.wrap_future(there)
    items = pool.execute_stream("count", {"n": 10**9})
    assert await anext(items) == 0
    call = asyncio.create_task(pool.execute("async_forever", {"started": str(started)}))
    step = asyncio.create_task(anext(pool.execute_stream("count", {"n": 1})))
    await until(lambda: pool.stats().queued == 2, "both wait behind the stream")
    home.call_soon_threadsafe(home.stop)
    await until(lambda: not home.is_running(), "it has stopped")
    for waiting in (call, step):
        with pytest.raises(PoolClosed, match="has stopped") as caught:
            await waiting
        assert caught.value.outcome is Outcome.UNKNOWN
    with pytest.raises(ConfigurationError, match="another event loop"):
        await pool.execute("add", {"x": 1})
    await items.aclose()
    await asyncio.to_thread(home.run_until_complete, pool.aclose(drain=False))
    assert not started.exists()


async def test_a_session_is_left_in_peace_while_its_pools_loop_stops(
    home: asyncio.AbstractEventLoop,
) -> None:
    pool = Pool(Reluctant(), size=1)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pool.start(), home))
    go_on = threading.Event()
    home.call_soon_threadsafe(go_on.wait)
    leaving = asyncio.create_task(pool.session().__aexit__(None, None, None))
    await asyncio.sleep(0)
    home.call_soon_threadsafe(home.stop)
    go_on.set()
    await leaving
    await asyncio.to_thread(home.run_until_complete, pool.aclose(drain=False))


async def test_a_program_that_ends_the_tasks_of_its_loop_ends_those_of_others(
    home: asyncio.AbstractEventLoop,
) -> None:
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    def end_all() -> None:
        for task in asyncio.all_tasks(home):
            task.cancel()

    waiting = asyncio.create_task(run_there(home, work()))
    await asyncio.to_thread(begun.wait)
    home.call_soon_threadsafe(end_all)
    with pytest.raises(PoolClosed, match="closed while this call ran"):
        await waiting


def crossing_to(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> Crossing[None]:
    return Crossing(loop.call_soon_threadsafe, work, concurrent.futures.Future(), "pool")


async def test_what_could_not_begin_is_told_and_closed() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    work = asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="has stopped"):
        crossing_to(closed, work).begin()
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_what_its_loop_never_came_to_is_closed_with_the_loop() -> None:
    loop, work = asyncio.new_event_loop(), asyncio.sleep(0)
    crossing = crossing_to(loop, work)
    crossing.begin()
    loop.close()
    crossing.give_up()
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_another_loop_waits_until_the_workers_are_ready() -> None:
    adapter, home = Reluctant(), asyncio.get_running_loop()

    async def ready(pool: Pool) -> int:
        with pytest.raises(PoolNotReady, match="1 of 2"):
            await pool.await_ready(0.01)
        waiting = asyncio.create_task(pool.await_ready())
        await asyncio.sleep(0)
        home.call_soon_threadsafe(adapter.gate.set)
        await waiting
        return len(pool.workers())

    async with Pool(adapter, size=2) as pool:
        assert await elsewhere(ready(pool)) == 2


async def test_nobody_waits_for_workers_of_a_loop_that_has_stopped(
    home: asyncio.AbstractEventLoop,
) -> None:
    pool = Pool(Reluctant(), size=2)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pool.start(), home))
    home.call_soon_threadsafe(home.stop)
    await until(lambda: not home.is_running(), "it has stopped")
    with pytest.raises(ConfigurationError, match="another event loop"):
        await pool.await_ready()
    await asyncio.to_thread(home.run_until_complete, pool.aclose(drain=False))


def at_once(pool: Pool) -> tuple[Callable[[], object], ...]:
    """What answers at once, or changes the pool in the loop that it is called in."""
    return (
        lambda: pool.release_session("ada"),
        lambda: pool.session("ada").close(),
        lambda: pool.resize(2),
        lambda: pool.explain("add"),
        lambda: pool.recycle("none"),
        pool.reset_restarts,
    )


async def test_what_answers_at_once_is_only_for_the_pools_own_loop() -> None:
    async def refused(pool: Pool) -> None:
        for use in at_once(pool):
            with pytest.raises(ConfigurationError, match="belongs to another event loop"):
                use()
        for begin in (pool.reload, lambda: pool.dump_stacks("none")):
            with pytest.raises(ConfigurationError, match="belongs to another event loop"):
                await begin()

    async with new_pool() as pool:
        await elsewhere(refused(pool))


async def test_a_thread_without_a_loop_is_refused_and_told_the_way() -> None:
    def refused() -> None:
        for use in at_once(pool):
            with pytest.raises(ConfigurationError, match=r"none here; use it there, by `LoopThr"):
                use()

    async with new_pool() as pool:
        bound = await pool.execute("pid", session_id="ada")
        await asyncio.to_thread(refused)
        assert pool.release_session("ada")
        assert await pool.execute("pid") == bound


def test_what_a_pool_knows_of_a_session_is_forgotten_also_when_its_loop_is_over() -> None:
    with asyncio.Runner() as runner:
        pool = new_pool()
        runner.run(pool.start())
        runner.run(pool.execute("pid", session_id="ada"))
        assert pool.release_session("ada")
        with pytest.raises(ConfigurationError, match="none here"):
            pool.recycle(pool.workers()[0].worker_id)
        runner.run(pool.aclose())
    pool.session("ada").close()
