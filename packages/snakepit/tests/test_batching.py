"""Calls that a pool sends together: gathered, answered one by one, failed one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import pytest

from snakepit import Adapter, HostCall, InlineAdapter, Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    EncodeError,
    Outcome,
    PoisonCall,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    SnakepitError,
    WorkerLost,
)
from snakepit.testing import Gate, ManualClock, kill_worker, until

WORKER = "batch_worker:Worker"
Calls = list[asyncio.Task[Any]]


def new_pool(kind: Callable[..., Adapter] = PythonAdapter, **options: Any) -> Pool:
    return Pool(kind(WORKER), **{"size": 1, **options})


@asynccontextmanager
async def busy(pool: Pool) -> AsyncIterator[None]:
    """While this lasts, the one worker runs another call."""
    with Gate() as gate:
        holding = asyncio.create_task(pool.execute("hold", {"gate": gate.key}))
        await gate.reached()
        yield
        gate.open()
        await holding


def submit(pool: Pool, command: str, *all_args: dict[str, Any], **options: Any) -> Calls:
    return [asyncio.create_task(pool.execute(command, args, **options)) for args in all_args]


async def sizes(pool: Pool) -> list[int]:
    seen = await pool.execute("seen")
    found: list[int] = seen["sizes"]
    return found


async def errors(calls: Calls) -> list[Any]:
    await asyncio.wait(calls)
    return [call.exception() for call in calls]


# --- gathering -----------------------------------------------------------------------------------


async def test_calls_that_wait_for_a_worker_go_together() -> None:
    async with new_pool() as pool:
        async with busy(pool):
            calls = submit(pool, "double", *({"x": n} for n in range(20)))
            await until(lambda: pool.stats().queued == 3, "they wait, in three batches")
        assert await asyncio.gather(*calls) == [2 * n for n in range(20)]
        assert await sizes(pool) == [8, 8, 4]
        assert await pool.execute("seen_commands") == ["double"]
        assert (pool.stats().batches, pool.stats().batched) == (3, 20)


async def test_a_batch_takes_calls_until_it_starts() -> None:
    async with new_pool() as pool:
        async with busy(pool):
            calls = submit(pool, "double", {"x": 1})
            await until(lambda: pool.stats().queued == 1, "it waits")
            calls += submit(pool, "double", {"x": 2, "times": 5})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert pool.stats().queued == 1
        assert await asyncio.gather(*calls) == [2, 10]
        assert await sizes(pool) == [2]


async def test_while_a_worker_is_free_no_call_waits_for_others() -> None:
    async with new_pool() as pool:
        assert [await pool.execute("double", {"x": n}) for n in range(3)] == [0, 2, 4]
        assert await sizes(pool) == [1, 1, 1]


async def test_batches_are_not_sent_ahead_where_nothing_could_join_them() -> None:
    async with new_pool(look_ahead=7) as pool:
        with Gate() as opened, Gate() as gate:
            opened.open()
            for _ in range(50):  # a short command, as the pool knows by now
                await pool.execute("wait", {"gate": opened.key, "die": False})
            args = {"gate": gate.key, "die": False}
            calls = submit(pool, "wait", args)
            await gate.reached()
            calls += submit(pool, "wait", args)
            await until(lambda: pool.stats().queued == 1, "it waits")
            calls += submit(pool, "wait", args)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gate.open()
            await asyncio.gather(*calls)
        assert (await sizes(pool))[-2:] == [1, 2]


def test_calls_wait_for_others_for_max_wait_or_until_the_batch_is_full() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with new_pool(InlineAdapter) as pool:
            calls = submit(pool, "double_later", {"x": 1})
            await clock.advance(9.0)
            calls += submit(pool, "double_later", {"x": 2})
            await clock.advance(0.5)
            assert pool.stats().batches == 0
            await clock.advance(0.5)
            assert await asyncio.gather(*calls) == [2, 4]
            full = submit(pool, "double_later", *({"x": n} for n in range(4)))
            await asyncio.gather(*full)
            assert await sizes(pool) == [2, 4]

    clock.run(scenario())


async def test_priorities_do_not_mix() -> None:
    async with new_pool() as pool:
        async with busy(pool):
            low = submit(pool, "double", {"x": 1}, {"x": 2}, priority="low")
            await until(lambda: pool.stats().queued_low == 1, "they wait")
            high = submit(pool, "double", {"x": 3}, priority="high")
            await until(lambda: pool.stats().queued == 2, "all wait")
        await asyncio.gather(*low, *high)
        assert await sizes(pool) == [1, 2]


async def test_sessions_mix_unless_they_are_strict() -> None:
    async with new_pool() as pool:
        await pool.execute("seen", session_id="ada")
        async with busy(pool):
            calls = []
            for affinity in ("hint", "strict_queue"):
                for session_id in ("ada", "bob", "ada"):
                    options: dict[str, Any] = {"session_id": session_id, "affinity": affinity}
                    calls += submit(pool, "double", {"x": 1}, **options)
            await until(lambda: pool.stats().queued == 3, "all wait")
        await asyncio.gather(*calls)
        seen = await pool.execute("seen")
    found = sorted(zip(seen["sessions"], seen["sizes"], strict=True), key=str)
    assert found == [("ada", 2), ("bob", 1), (None, 3)]


# --- answers and errors --------------------------------------------------------------------------


async def test_a_call_that_fails_fails_alone() -> None:
    async with new_pool() as pool:
        async with busy(pool):
            bad: list[dict[str, Any]] = [{"x": "two"}, {"y": 1}, {"x": object()}, {"x": "object"}]
            good = submit(pool, "double", {"x": 1})
            failing = submit(pool, "double", *bad)
            good += submit(pool, "double", {"x": 6})
            await until(lambda: pool.stats().queued == 1, "they wait together")
        assert await asyncio.gather(*good) == [2, 12]
        raised, wrong, unsent, unsendable = await errors(failing)
        assert await sizes(pool) == [4]
    assert isinstance(raised, ValueError)
    assert str(raised) == "two is no number"
    assert isinstance(wrong, TypeError)
    assert isinstance(unsent, EncodeError)
    assert (unsent.path, unsent.outcome) == ("args.x", Outcome.NONE)
    assert isinstance(unsendable, EncodeError)
    assert (unsendable.path, unsendable.outcome) == ("result", Outcome.DONE)


async def test_a_batch_with_nothing_to_send_holds_no_slot() -> None:
    async with new_pool() as pool:
        (error,) = await errors(submit(pool, "double", {"x": object()}))
        assert isinstance(error, EncodeError)
        assert await pool.execute("double", {"x": 1}) == 2
        assert pool.stats().running == 0


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("raise", ValueError, "all of them"),
        ("few", ConfigurationError, "returned 0 results for 2 calls"),
        ("none", ConfigurationError, "returned a NoneType for 2 calls"),
        ("text", ConfigurationError, "returned a str for 2 calls"),
    ],
)
async def test_what_goes_wrong_with_all_of_them_is_told_to_each(
    what: str, kind: type[Exception], message: str
) -> None:
    async with new_pool() as pool:
        one, other = await errors(submit(pool, "wrong", {"what": what}, {"what": what}))
    assert one is not other
    one.details["attempts"] = 7
    assert "attempts" not in other.details
    for error in (one, other):
        assert isinstance(error, kind)
        assert isinstance(error, SnakepitError)
        assert message in str(error)
        assert error.outcome is Outcome.DONE


async def test_results_are_views_of_the_array_that_the_command_returned() -> None:
    pytest.importorskip("numpy")
    async with new_pool() as pool:
        calls = submit(pool, "rows", *({"x": float(n), "width": 20_000} for n in range(4)))
        results = await asyncio.gather(*calls)
        assert [(row.shape, row[-1]) for row in results] == [((20_000,), n) for n in range(4)]
        assert len({id(row.base) for row in results}) == 1
        assert pool.workers()[0].shared_memory_bytes >= 4 * 160_000
        numbers = await asyncio.gather(*submit(pool, "scalars", {"x": 1.0}, {"x": 2.5}))
    assert numbers == [2.0, 5.0]
    assert {type(number) for number in numbers} == {float}


# --- deadlines and cancellation ------------------------------------------------------------------


def test_each_call_keeps_its_own_deadline_while_it_waits() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with new_pool(InlineAdapter) as pool:
            async with busy(pool):
                late = submit(pool, "double", {"x": 1}, timeout=5.0)
                impatient = submit(pool, "double", {"x": 2}, queue_timeout=3.0)
                patient = submit(pool, "double", {"x": 3}, timeout=50.0)
                await clock.advance(3.0)
                assert isinstance(impatient[0].exception(), QueueTimeout)
                await clock.advance(2.0)
                error = late[0].exception()
                assert isinstance(error, CallTimeout)
                assert (error.outcome, error.queued_s, error.ran_s) == (Outcome.NONE, 5.0, 0.0)
            assert await patient[0] == 6
            assert await sizes(pool) == [1]

    clock.run(scenario())


@pytest.mark.parametrize("limit", ["timeout", "run_timeout"])
def test_each_call_keeps_its_own_deadline_while_it_runs(limit: str) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with new_pool(InlineAdapter) as pool:
            with Gate() as gate:
                args = {"gate": gate.key, "die": False}
                late = submit(pool, "wait", args, **{limit: 5.0}, idempotent=True)
                patient = submit(pool, "wait", args)
                await gate.reached()
                await clock.advance(5.0)
                error = late[0].exception()
                assert isinstance(error, CallTimeout)
                assert (error.outcome, error.retryable) == (Outcome.UNKNOWN, True)
                assert pool.stats().running == 1
                gate.open()
                assert await patient[0] == 1

    clock.run(scenario())


async def test_the_worker_knows_the_time_of_the_last_of_them() -> None:
    async with new_pool() as pool:
        calls = submit(pool, "time_left", {"n": 1}, timeout=100.0)
        calls += submit(pool, "time_left", {"n": 2}, timeout=200.0)
        assert all(100.0 < left <= 200.0 for left in await asyncio.gather(*calls))
        calls = submit(pool, "time_left", {"n": 1}, timeout=100.0)
        calls += submit(pool, "time_left", {"n": 2})
        assert await asyncio.gather(*calls) == [None, None]


async def test_a_call_that_is_cancelled_while_it_waits_is_not_sent() -> None:
    async with new_pool() as pool:
        async with busy(pool):
            calls = submit(pool, "double", {"x": 1}, {"x": 2})
            await until(lambda: pool.stats().queued == 1, "they wait")
            calls[0].cancel()
            await asyncio.wait(calls[:1])
            assert calls[0].cancelled()
        assert await calls[1] == 4
        async with busy(pool):
            only = submit(pool, "double", {"x": 1})
            await until(lambda: pool.stats().queued == 1, "it waits")
            only[0].cancel()
            await asyncio.wait(only)
            assert pool.stats().queued == 0
        assert await sizes(pool) == [1]


async def test_a_batch_that_nobody_waits_for_is_stopped_and_one_that_somebody_does_is_not() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def held(call: HostCall, n: list[int]) -> None:
        entered.set()
        await release.wait()

    async with new_pool(cancel_grace=20.0, host_functions={"held": held}) as pool:
        calls = submit(pool, "wait_async", {"n": 1}, {"n": 2})
        await entered.wait()
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        release.set()
        assert await calls[1] == 2

        entered.clear()
        release.clear()
        calls = submit(pool, "wait_async", {"n": 1}, {"n": 2})
        await entered.wait()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
        assert (await pool.execute("seen"))["cancelled"] == 1
        assert pool.stats().workers_lost == 0


# --- workers that die ----------------------------------------------------------------------------


async def test_a_lost_worker_fails_each_call_and_says_what_holds_for_it() -> None:
    async with new_pool() as pool:
        with Gate() as gate:
            args = {"gate": gate.key, "die": True}
            calls = submit(pool, "wait", args)
            calls += submit(pool, "wait", {**args, "die": False}, idempotent=True)
            await gate.reached()
            gate.open()
            plain, idempotent = await errors(calls)
    for error, retryable in ((plain, False), (idempotent, True)):
        assert isinstance(error, WorkerLost)
        assert (error.signal, error.outcome) == ("SIGKILL", Outcome.UNKNOWN)
        assert error.retryable is retryable


async def test_a_fence_holds_for_all_of_a_batch() -> None:
    def fence_and_kill(call: HostCall, n: list[int]) -> None:
        call.fence()
        kill_worker(pool)

    async with new_pool(host_functions={"kill": fence_and_kill}) as pool:
        calls = submit(pool, "ask", *({"name": "kill", "n": n} for n in (1, 2)), idempotent=True)
        lost = await errors(calls)
    assert [(type(error), error.retryable) for error in lost] == [(WorkerLost, False)] * 2


async def test_12_a_call_that_kills_its_workers_is_found_among_those_it_went_with() -> None:
    async with new_pool() as pool:
        with Gate() as gate:
            gate.open()
            good = {"gate": gate.key, "die": False}
            deadly = {"gate": gate.key, "die": True}
            both = submit(pool, "wait", good, deadly)
            assert all(isinstance(error, WorkerLost) for error in await errors(both))
            # Both are suspects now, and each goes alone.
            both = submit(pool, "wait", good, deadly)
            good_error, deadly_error = await errors(both)
            assert good_error is None
            assert isinstance(deadly_error, WorkerLost)
            deaths = 2
            while isinstance((await errors(submit(pool, "wait", deadly)))[0], WorkerLost):
                deaths += 1
            assert deaths == 3  # half of the first, and all of the others
            (error,) = await errors(submit(pool, "wait", deadly))
            assert isinstance(error, PoisonCall)
            assert await pool.execute("wait", good) == 0


# --- the pool's limits and its end ---------------------------------------------------------------


async def test_a_full_queue_refuses_all_of_a_batch() -> None:
    async with new_pool(queue_limit=1) as pool:
        async with busy(pool):
            waiting = submit(pool, "double", *({"x": n} for n in range(8)))
            await until(lambda: pool.stats().queued == 1, "the queue is full")
            refused = await errors(submit(pool, "double", {"x": 8}, {"x": 9}))
            assert all(isinstance(error, PoolSaturated) for error in refused)
        await asyncio.gather(*waiting)


async def test_closing_sends_what_was_gathered_or_fails_it() -> None:
    async with new_pool() as pool:
        calls = submit(pool, "double_later", {"x": 1}, {"x": 2})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [2, 4]

    pool = new_pool()
    await pool.start()
    calls = submit(pool, "double_later", {"x": 1}, {"x": 2})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.aclose(drain=False)
    for error in await errors(calls):
        assert isinstance(error, PoolClosed)
        assert error.outcome is Outcome.NONE


# --- nesting -------------------------------------------------------------------------------------


async def test_45_a_batched_call_on_behalf_of_the_only_workers_call_does_not_wait_for_it() -> None:
    async def double(call: HostCall, n: Any) -> Any:
        return await pool.execute("double", {"x": n}, timeout=20.0)

    async with new_pool(host_functions={"double": double}) as pool:
        assert await pool.execute("ask_alone", {"name": "double", "n": 4}) == 8
        assert await pool.execute("ask", {"name": "double", "n": 4}) == [4, 4]


async def test_45_a_call_on_behalf_of_the_only_workers_call_joins_no_batch_that_waits_for_it() -> (
    None
):
    async def double(call: HostCall, n: Any) -> Any:
        waiting.append(asyncio.create_task(outside(n), context=Context()))
        await until(lambda: pool.stats().queued == 1, "a batch waits for the worker")
        return await pool.execute("double", {"x": n}, timeout=20.0)

    def outside(n: Any) -> Any:
        return pool.execute("double", {"x": n + 1})

    waiting: Calls = []
    async with new_pool(host_functions={"double": double}) as pool:
        assert await pool.execute("ask_alone", {"name": "double", "n": 4}) == 8
        assert await asyncio.gather(*waiting) == [10]


async def test_45_a_batch_serves_all_that_its_calls_are_nested_in() -> None:
    """Callers in one pool, each waiting for a call of the other; those go together, and the batch
    itself needs the first pool, whose slots are all taken by those who wait."""
    count = 40

    async def ask_back(call: HostCall, n: int) -> Any:
        return await back.execute("ask", {"name": "double", "n": n}, timeout=20.0)

    async def double(call: HostCall, n: list[int]) -> Any:
        return len(n), await front.execute("double", {"x": n[0]}, timeout=20.0)

    front = new_pool(
        InlineAdapter, name="front", concurrency=count, host_functions={"back": ask_back}
    )
    back = new_pool(InlineAdapter, name="back", host_functions={"double": double})
    async with front, back:
        calls = submit(front, "ask_alone", *({"name": "back", "n": n} for n in range(count)))
        results = await asyncio.gather(*calls)
    assert max(size for size, _ in results) > 1
