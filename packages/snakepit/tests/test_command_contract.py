"""The contract of a class's commands, wherever they run: in processes, or in the host's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from contextvars import Context
from typing import Any

import pytest
from processes import until

from snakepit import Adapter, HostCall, InlineAdapter, Pool, PythonAdapter
from snakepit.errors import (
    CallDepthExceeded,
    EncodeError,
    Outcome,
    PoolSaturated,
    RemoteError,
    StreamingNotSupported,
    UnknownCommand,
)
from snakepit.wire.credit import WINDOW

BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 8])
Kind = Callable[..., Adapter]


@pytest.fixture(params=[PythonAdapter, InlineAdapter])
def kind(request: pytest.FixtureRequest) -> Kind:
    """An adapter's class."""
    found: Kind = request.param
    return found


def new_pool(kind: Kind, **options: Any) -> Pool:
    return Pool(kind("pool_worker:Worker", config={"base": 10}), **{"size": 1, **options})


@BOTH_PROFILES
async def test_runs_sync_and_async_commands(concurrency: int, kind: Kind) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        assert await pool.execute("add", {"x": 1, "y": 2}) == 13
        assert await pool.execute("async_add", {"x": 5}) == 15


@BOTH_PROFILES
async def test_an_exception_keeps_its_type_message_traceback_and_cause(
    concurrency: int, kind: Kind
) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        with pytest.raises(ValueError, match="bad thing") as caught:
            await pool.execute("fail", {"message": "bad thing"})
    error = caught.value
    assert isinstance(error, RemoteError)
    assert "pool_worker.py" in str(error.remote_traceback)
    assert isinstance(error.__cause__, KeyError)


@BOTH_PROFILES
@pytest.mark.parametrize("how", ["system_exit", "keyboard_interrupt", "generator_exit"])
async def test_exceptions_that_end_programs_end_only_the_call(
    how: str, concurrency: int, kind: Kind
) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        with pytest.raises(RemoteError):
            await pool.execute("leave", {"how": how})
        assert await pool.execute("pid") == before


async def test_an_unknown_command_names_the_nearest(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        with pytest.raises(UnknownCommand, match="did you mean 'add'"):
            await pool.execute("ad")


async def test_a_stream_and_a_call_are_not_mixed_up(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        with pytest.raises(StreamingNotSupported, match="execute_stream"):
            await pool.execute("count", {"n": 1})
        with pytest.raises(StreamingNotSupported, match="execute\\(\\)"):
            await anext(pool.execute_stream("add", {"x": 1}))


async def test_a_value_that_can_not_travel_fails_in_the_caller_and_names_its_path(
    kind: Kind,
) -> None:
    async with new_pool(kind) as pool:
        with pytest.raises(EncodeError) as caught:
            await pool.execute("echo", {"value": [1, {"client": object()}]})
        assert caught.value.path == "args.value[1].client"
        assert await pool.execute("echo", {"value": 1}) == 1


async def test_an_inner_errors_outcome_is_not_that_of_the_call_whose_code_let_it_through(
    kind: Kind,
) -> None:
    async def full(call: HostCall) -> None:
        raise PoolSaturated("full")

    async with new_pool(kind, host_functions={"full": full}) as pool:
        with pytest.raises(PoolSaturated) as inner:
            await pool.execute("call_host", {"name": "full", "args": {}})
        with pytest.raises(UnknownCommand) as missing:
            await pool.execute("call_host", {"name": "missing", "args": {}})
        with pytest.raises(EncodeError) as result:
            await pool.execute("unencodable")
    for error in (inner.value, missing.value, result.value):
        assert (error.outcome, error.retryable) == (Outcome.DONE, False)


async def test_wrong_arguments_are_the_callers_type_error(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        with pytest.raises(TypeError, match="unexpected keyword"):
            await pool.execute("add", {"z": 1})


async def test_one_call_waits_for_another_and_a_third_is_refused(kind: Kind) -> None:
    gate = asyncio.Event()
    entered = asyncio.Event()

    async def hold(call: HostCall) -> str:
        entered.set()
        await gate.wait()
        return "held"

    async with new_pool(kind, queue_limit=1, host_functions={"hold": hold}) as pool:
        first = asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
        await entered.wait()
        second = asyncio.create_task(pool.execute("add", {"x": 1}))
        await asyncio.sleep(0)
        assert pool.stats().queued == 1
        with pytest.raises(PoolSaturated, match="queue_limit"):
            await pool.execute("add", {"x": 1})
        gate.set()
        assert (await first, await second) == ("held", 12)


async def test_a_call_that_waits_for_its_sessions_worker_moves_on_when_that_is_forgotten(
    kind: Kind,
) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await gate.wait()

    async with new_pool(kind, size=2, host_functions={"hold": hold}) as pool:
        busy = asyncio.create_task(
            pool.execute("call_host", {"name": "hold", "args": {}}, session_id="a")
        )
        await entered.wait()
        waiting = asyncio.create_task(
            pool.execute("add", {"x": 1}, session_id="a", affinity="strict_queue")
        )
        await until(lambda: pool.stats().queued == 1, "it waits, though a worker is free")
        assert pool.release_session("a")
        assert await waiting == 12
        gate.set()
        await busy


async def test_a_queued_call_belongs_to_its_caller_and_not_to_whoever_made_room_for_it(
    kind: Kind,
) -> None:
    depths: list[int] = []

    async def note(call: HostCall) -> None:
        depths.append(len(call.parent.chain))

    async def nested(call: HostCall) -> Any:
        args = {"name": "note", "args": {}}
        queued.append(asyncio.ensure_future(outside(args)))
        await until(lambda: pool.stats().queued == 1, "the other call waits")
        return await pool.execute("call_host", args, session_id=call.session_id)

    def outside(args: dict[str, Any]) -> Any:
        return asyncio.create_task(pool.execute("call_host", args), context=Context())

    queued: list[asyncio.Future[Any]] = []
    async with new_pool(kind, host_functions={"note": note, "nested": nested}) as pool:
        await pool.execute("call_host", {"name": "nested", "args": {}}, session_id="s")
        await asyncio.gather(*queued)
    assert depths == [1, 0]


async def test_a_session_handle_forgets_its_worker_at_its_end(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        async with pool.session() as session:
            assert await session.execute("context") == {
                "session_id": session.session_id,
                "command": "context",
            }
            assert pool.worker_of_session(session.session_id) is not None
        assert pool.worker_of_session(session.session_id) is None


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["count", "async_count"])
async def test_a_stream_yields_all_items_in_order(
    command: str, concurrency: int, kind: Kind
) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        items = [item async for item in pool.execute_stream(command, {"n": 500})]
    assert items == list(range(500))


@BOTH_PROFILES
async def test_an_error_in_a_stream_arrives_after_the_items_before_it(
    concurrency: int, kind: Kind
) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        stream = pool.execute_stream("count", {"n": 200, "fail_at": 100})
        items = [await anext(stream) for _ in range(100)]
        with pytest.raises(ValueError, match="at 100"):
            await anext(stream)
    assert items == list(range(100))


@BOTH_PROFILES
async def test_leaving_a_stream_early_closes_the_generator_and_keeps_the_worker(
    concurrency: int, kind: Kind
) -> None:
    async with new_pool(kind, concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        async with aclosing(pool.execute_stream("count", {"n": 10**9})) as stream:
            async for item in stream:
                if item == 50:
                    break
        await until(lambda: pool.stats().stopping == 0, "the worker confirms")
        assert await pool.execute("how_stopped") == "generator closed"
        assert await pool.execute("pid") == before
        stats = pool.stats()
        assert (stats.running, stats.stopping, stats.cancelled) == (0, 0, 1)


async def test_a_producer_is_never_more_than_its_credit_ahead(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        async with aclosing(pool.execute_stream("produced", {"n": 10**6})) as stream:
            assert await anext(stream) == 0
        assert await pool.execute("how_many_produced") <= WINDOW.items + 2


async def test_two_streams_on_one_worker_do_not_delay_each_other(kind: Kind) -> None:
    async with new_pool(kind, concurrency=4) as pool:
        async with aclosing(pool.execute_stream("count", {"n": 10**6})) as slow:
            await anext(slow)
            quick = [item async for item in pool.execute_stream("async_count", {"n": 1000})]
        assert quick == list(range(1000))


def upper(call: HostCall, text: str) -> str:
    return f"{call.session_id}:{text.upper()}"


async def numbers(call: HostCall, n: int) -> Any:
    for i in range(n):
        yield i


def sync_numbers(call: HostCall, n: int) -> Any:
    yield from range(n)


async def refuse(call: HostCall) -> None:
    raise LookupError("nothing here")


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["call_host", "acall_host"])
async def test_a_worker_calls_a_host_function(command: str, concurrency: int, kind: Kind) -> None:
    functions = {"upper": upper, "refuse": refuse}
    async with new_pool(kind, concurrency=concurrency, host_functions=functions) as pool:
        args: dict[str, Any] = {"name": "upper", "args": {"text": "ab"}}
        assert await pool.execute(command, args, session_id="s") == "s:AB"
        with pytest.raises(LookupError, match="nothing here"):
            await pool.execute(command, {"name": "refuse", "args": {}})
        with pytest.raises(UnknownCommand, match="refuse"):
            await pool.execute(command, {"name": "refuses", "args": {}})


@BOTH_PROFILES
@pytest.mark.parametrize("command", ["host_stream", "ahost_stream"])
@pytest.mark.parametrize("name", ["numbers", "sync_numbers"])
async def test_a_worker_takes_a_stream_of_the_host(
    command: str, name: str, concurrency: int, kind: Kind
) -> None:
    functions = {"numbers": numbers, "sync_numbers": sync_numbers}
    async with new_pool(kind, concurrency=concurrency, host_functions=functions) as pool:
        result = await pool.execute(command, {"name": name, "n": 200})
    assert result == list(range(200))


async def test_a_sync_command_that_runs_a_loop_of_its_own_can_call_the_host(kind: Kind) -> None:
    async def double(call: HostCall, n: int) -> int:
        return 2 * n

    functions = {"double": double, "numbers": numbers}
    async with new_pool(kind, host_functions=functions) as pool:
        args = {"name": "double", "n": 100}
        assert await pool.execute("call_host_in_own_loop", args) == (200, list(range(100)))


@BOTH_PROFILES
async def test_calls_nest_through_one_worker_without_deadlock(concurrency: int, kind: Kind) -> None:
    async def nest(call: HostCall, n: int) -> Any:
        return await pool.execute("nest", {"n": n}, session_id=call.session_id)

    async with new_pool(kind, concurrency=concurrency, host_functions={"nest": nest}) as pool:
        assert await pool.execute("nest", {"n": 10}, session_id="s") == 10
        assert await pool.execute("nest", {"n": 10}) == 10
        with pytest.raises(CallDepthExceeded):
            await pool.execute("nest", {"n": 100})
        assert pool.stats().running == 0


async def test_many_callbacks_at_once_all_return(kind: Kind) -> None:
    async def double(call: HostCall, n: int) -> int:
        return 2 * n

    async with new_pool(kind, concurrency=32, host_functions={"double": double}) as pool:
        calls = (
            pool.execute("acall_host", {"name": "double", "args": {"n": i}}) for i in range(500)
        )
        assert await asyncio.gather(*calls) == [2 * i for i in range(500)]


async def test_closing_lets_running_calls_finish_and_counts_every_call(kind: Kind) -> None:
    pool = new_pool(kind, size=2)
    await pool.start()
    calls = [asyncio.create_task(pool.execute("add", {"x": i})) for i in range(50)]
    await asyncio.sleep(0)
    await pool.aclose()
    assert await asyncio.gather(*calls) == [i + 11 for i in range(50)]
    stats = pool.stats()
    assert (stats.submitted, stats.succeeded) == (50, 50)


async def test_the_remaining_time_reaches_the_worker(kind: Kind) -> None:
    async with new_pool(kind) as pool:
        remaining = await pool.execute("remaining", timeout=30.0)
        assert 20.0 < remaining <= 30.0
        assert await pool.execute("remaining", timeout=None) is None
