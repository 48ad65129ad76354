"""What every error of a call says of it: which call, which worker, how long it waited and ran."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
from gated_pool import gated_pool, hold_all

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    EncodeError,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    RemoteError,
    SessionWorkerUnavailable,
    SnakepitError,
    StreamBroken,
    UnknownCommand,
    WorkerLost,
)
from snakepit.testing import Die, Fail, Gate, ManualClock, Reply, ScriptedAdapter, Stream, until


def place_and_time(error: BaseException) -> tuple[Any, float, float]:
    assert isinstance(error, SnakepitError)
    assert error.details["correlation_id"]
    return error.details.get("worker_id"), error.details["queued_s"], error.details["ran_s"]


# --- where the time went, on a clock that stands still --------------------------------------------


async def ended(pool: Pool, **options: Any) -> BaseException:
    with pytest.raises(SnakepitError) as caught:
        await pool.execute("work", **options)
    return caught.value


async def stream_ended(pool: Pool, **options: Any) -> BaseException:
    with pytest.raises(SnakepitError) as caught:
        async for _ in pool.execute_stream("work", **options):
            pass
    return caught.value


@pytest.mark.parametrize(
    ("call", "step", "options", "kind"),
    [
        (ended, lambda after: Fail(ValueError("no"), after), {}, RemoteError),
        (ended, lambda after: Die(after=after), {}, WorkerLost),
        (ended, lambda after: Reply(after=asyncio.Event()), {"timeout": 5}, CallTimeout),
        (stream_ended, lambda after: Stream([1], Die(), after), {}, StreamBroken),
        (stream_ended, lambda after: Stream([1], Fail(ValueError("no")), after), {}, RemoteError),
    ],
)
def test_an_error_of_a_call_that_ran_says_where_and_how_long(
    call: Callable[..., Any], step: Callable[..., Any], options: Any, kind: type[SnakepitError]
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        adapter = ScriptedAdapter({"work": [Reply(after=first), step(second)]})
        async with Pool(adapter, size=1) as pool:
            (worker,) = pool.workers()
            before = asyncio.create_task(pool.execute("work"))
            await clock.advance(0.0)
            assert pool.stats().running == 1
            fails = asyncio.create_task(call(pool, **options))
            await clock.advance(0.0)
            assert pool.stats().queued == 1
            await clock.advance(2.0)
            first.set()
            await before
            await clock.advance(0.0)
            assert pool.stats().running == 1
            await clock.advance(3.0)
            second.set()
            error = await fails
            assert isinstance(error, kind)
            assert place_and_time(error) == (worker.worker_id, 2.0, 3.0)

    clock.run(scenario())


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"timeout": 2}, CallTimeout), ({"queue_timeout": 2}, QueueTimeout), ({}, PoolClosed)],
)
def test_an_error_of_a_call_that_only_waited_names_no_worker(
    options: Any, kind: type[SnakepitError]
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        adapter = ScriptedAdapter({"work": [Reply(after=asyncio.Event())]})
        async with Pool(adapter, size=1) as pool:
            busy = asyncio.create_task(ended(pool))
            await clock.advance(0.0)
            assert pool.stats().running == 1
            fails = asyncio.create_task(ended(pool, **options))
            await clock.advance(0.0)
            assert pool.stats().queued == 1
            await clock.advance(2.0)
            await pool.aclose(drain=False)
            error = await fails
            assert isinstance(error, kind)
            assert place_and_time(error) == (None, 2.0, 0.0)
            assert place_and_time(await busy)[1:] == (0.0, 2.0)

    clock.run(scenario())


# --- with processes ------------------------------------------------------------------------------


def new_pool(target: str = "pool_worker:Worker", **options: Any) -> Pool:
    return Pool(PythonAdapter(target), **{"size": 1, **options})


@pytest.mark.parametrize(
    ("command", "args", "kind"),
    [
        ("fail", {"message": "no"}, RemoteError),
        ("die", {"number": int(signal.SIGKILL)}, WorkerLost),
        ("unencodable", {}, EncodeError),
        ("no_such", {}, UnknownCommand),
        ("echo", {"value": object()}, EncodeError),
    ],
)
async def test_every_kind_of_error_of_a_worker_names_it(
    command: str, args: dict[str, Any], kind: type[SnakepitError]
) -> None:
    async with new_pool() as pool:
        (worker,) = pool.workers()
        with pytest.raises(kind) as caught:
            await pool.execute(command, args)
        worker_id, queued_s, ran_s = place_and_time(caught.value)
        assert worker_id == worker.worker_id
        assert queued_s == 0.0 <= ran_s


async def test_calls_of_a_batch_each_say_where_their_own_time_went() -> None:
    async with new_pool("batch_worker:Worker") as pool:
        (worker,) = pool.workers()
        with Gate() as gate:
            holding = asyncio.create_task(pool.execute("hold", {"gate": gate.key}))
            await gate.reached()
            first = asyncio.create_task(pool.execute("wrong", {"what": "raise"}))
            await until(lambda: pool.stats().queued == 1, "it waits")
            second = asyncio.create_task(pool.execute("wrong", {"what": "raise"}))
            await asyncio.sleep(0)
            gate.open()
            await holding
        await asyncio.wait((first, second))
        errors: list[Any] = [first.exception(), second.exception()]
        (one, one_queued, one_ran), (other, other_queued, other_ran) = map(place_and_time, errors)
        assert one == other == worker.worker_id
        assert one_queued > other_queued > 0.0
        assert min(one_ran, other_ran) > 0.0
        ids = [error.details[name] for error in errors for name in ("correlation_id", "batch_id")]
        assert len(set(ids)) == 3, "one id each, and that of their batch"


# --- errors of other calls -----------------------------------------------------------------------


async def test_an_error_that_a_nested_call_let_through_goes_on_to_speak_of_that_call() -> None:
    told: list[dict[str, Any]] = []

    async def ask(call: HostCall) -> None:
        try:
            await inner.execute("fail", {"message": "deep inside"})
        except RemoteError as error:
            told.append(dict(error.details))
            raise

    async with (
        new_pool(name="inner") as inner,
        new_pool(name="outer", host_functions={"ask": ask}) as outer,
    ):
        with pytest.raises(ValueError, match="deep inside") as caught:
            await outer.execute("call_host", {"name": "ask", "args": {}})
        assert isinstance(caught.value, RemoteError)
        assert caught.value.details == told[0]
        assert str(told[0]["worker_id"]).startswith("inner-")


async def test_a_refusal_of_a_nested_call_is_not_mixed_with_the_outer_call() -> None:
    async with gated_pool(queue_limit=0) as (inner, gate):
        held = await hold_all(inner, gate)

        async def ask(call: HostCall) -> None:
            await inner.execute("add", {"x": 1})

        async with new_pool(name="outer", host_functions={"ask": ask}) as outer:
            with pytest.raises(PoolSaturated) as caught:
                await outer.execute("call_host", {"name": "ask", "args": {}})
            worker_id, queued_s, ran_s = place_and_time(caught.value)
            assert (worker_id, ran_s) == (None, 0.0)
            assert queued_s >= 0.0
        gate.opened.set()
        await asyncio.gather(*held)


async def test_what_an_error_says_of_another_worker_stays() -> None:
    """The worker that a strict call of a session waited for is not one that had the call."""
    async with gated_pool(size=2) as (pool, gate):
        options: dict[str, Any] = {"session_id": "ada", "affinity": "strict_queue"}
        held = await hold_all(pool, gate, **options)
        home = pool.worker_of_session("ada")
        waits = asyncio.create_task(pool.execute("add", {"x": 1}, **options))
        await until(lambda: pool.stats().queued == 1, "it waits")
        assert pool.recycle(str(home))
        with pytest.raises(SessionWorkerUnavailable) as caught:
            await waits
        worker_id, queued_s, ran_s = place_and_time(caught.value)
        assert (worker_id, ran_s) == (home, 0.0)
        assert queued_s > 0.0
        gate.opened.set()
        await asyncio.gather(*held)
