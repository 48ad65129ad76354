"""Pools over a script: real queues, deadlines and replacements, and no process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from snakepit import Pool, validate_implementation
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    EncodeError,
    PoolStartFailed,
    RemoteError,
    StreamBroken,
    StreamingNotSupported,
    UnknownCommand,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.testing import Die, Fail, Reply, ScriptedAdapter, Step, Stream, assert_no_leaks, until


async def collect(pool: Pool, command: str, **options: Any) -> list[Any]:
    async with aclosing(pool.execute_stream(command, **options)) as items:
        return [item async for item in items]


def test_it_is_an_adapter() -> None:
    assert validate_implementation(ScriptedAdapter({})) == []


async def test_steps_answer_calls_in_order() -> None:
    script = ScriptedAdapter({"add": [Reply(1), Fail(ValueError("no")), Reply((2, {3}))]})
    async with assert_no_leaks(), Pool(script, size=2) as pool:
        assert await pool.execute("add", {"x": 1}) == 1
        with pytest.raises(ValueError, match="no") as caught:
            await pool.execute("add", {"x": 2})
        assert isinstance(caught.value, RemoteError)
        assert await pool.execute_in_session("s", "add", {"x": 3}, timeout=5) == (2, {3})
    script.assert_done()
    first, _, last = script.calls
    assert (first.command, first.args, first.session_id, first.timeout) == (
        "add",
        {"x": 1},
        None,
        None,
    )
    assert last.session_id == "s"
    assert last.timeout is not None
    assert 0 < last.timeout <= 5


async def test_functions_answer_any_number_of_calls() -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    async def numbers(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    script = ScriptedAdapter({"echo": lambda value: value, "later": later, "numbers": numbers})
    async with Pool(script, size=1) as pool:
        assert [await pool.execute("echo", {"value": v}) for v in (1, "b")] == [1, "b"]
        assert await pool.execute("later", {"x": 1}) == 2
        assert await collect(pool, "numbers", args={"n": 3}) == [0, 1, 2]


async def test_streams_end_fail_or_die_after_their_items() -> None:
    endings: list[Step] = [
        Stream([1, 2]),
        Stream([1], Fail(KeyError("k"))),
        Stream([1], Die()),
        Fail(OSError("disk")),
    ]
    script = ScriptedAdapter({"count": endings})
    async with Pool(script, size=1) as pool:
        assert await collect(pool, "count") == [1, 2]
        for error in (KeyError, StreamBroken):
            items = pool.execute_stream("count")
            assert await anext(items) == 1
            with pytest.raises(error):
                await anext(items)
        with pytest.raises(OSError, match="disk"):
            await collect(pool, "count")
    script.assert_done()


async def test_an_answer_waits_for_its_event() -> None:
    free = asyncio.Event()
    script = ScriptedAdapter({"slow": [Reply("done", after=free)], "quick": [Reply()]})
    async with Pool(script, size=1) as pool:
        slow = asyncio.create_task(pool.execute("slow"))
        await script.called("slow")
        quick = asyncio.create_task(pool.execute("quick"))
        await until(lambda: pool.stats().queued == 1, "the second call waits")
        assert not slow.done()
        free.set()
        assert await slow == "done"
        assert await quick is None
    assert [call.command for call in script.calls] == ["slow", "quick"]


async def test_a_late_answer_is_a_timeout_and_frees_the_worker() -> None:
    script = ScriptedAdapter({"slow": [Reply(after=asyncio.Event())], "quick": [Reply(1)]})
    async with Pool(script, size=1) as pool:
        with pytest.raises(CallTimeout):
            await pool.execute("slow", timeout=0.01)
        assert await pool.execute("quick") == 1
        assert pool.stats().workers_lost == 0


async def test_a_death_costs_the_calls_of_that_worker_and_no_others() -> None:
    free = asyncio.Event()
    script = ScriptedAdapter(
        {"stay": [Reply("ok", free), Reply("again")], "die": [Die(signal="SIGSEGV")]}
    )
    async with Pool(script, size=2) as pool:
        stay = asyncio.create_task(pool.execute("stay"))
        survivor = (await script.called("stay")).worker_id
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("die", idempotent=True)
        assert caught.value.details["signal"] == "SIGSEGV"
        assert caught.value.details["phase"] == "call"
        assert caught.value.retryable
        assert caught.value.worker_id != survivor
        await until(lambda: pool.stats().ready == 2, "it is replaced")
        assert caught.value.worker_id not in script.workers
        free.set()
        assert await stay == "ok"
        assert await pool.execute("stay") == "again"
        assert pool.stats().workers_lost == 1


async def test_workers_die_on_cue_with_what_waits_behind_them() -> None:
    script = ScriptedAdapter({"hang": [Reply(after=asyncio.Event())], "next": [Reply("next")]})
    async with Pool(script, size=1) as pool:
        hang = asyncio.create_task(pool.execute("hang"))
        worker = script.workers[(await script.called("hang")).worker_id]
        waiting = asyncio.create_task(pool.execute("next"))
        await until(lambda: pool.stats().queued == 1, "the second call waits")
        worker.die(exit_code=7)
        worker.die()
        with pytest.raises(WorkerLost) as caught:
            await hang
        assert (caught.value.details["exit_code"], caught.value.details["signal"]) == (7, None)
        assert await waiting == "next"
        [idle] = script.workers.values()
        idle.die()
        await until(lambda: pool.stats().workers_lost == 2, "the idle one is lost too")
        await until(lambda: pool.stats().ready == 1, "and replaced")


async def test_starts_can_fail() -> None:
    error = WorkerStartFailed("no such device")
    with pytest.raises(PoolStartFailed, match="no such device"):
        await Pool(ScriptedAdapter({}, starts=[error, error]), size=2).start()
    script = ScriptedAdapter({"hello": [Reply("hello")]}, starts=[error, None])
    async with Pool(script, size=2) as pool:
        await until(lambda: pool.stats().ready == 2, "the failed one is tried again")
        assert await pool.execute("hello") == "hello"


async def test_what_could_not_travel_to_a_process_does_not_travel_here() -> None:
    script = ScriptedAdapter({"echo": lambda value: value, "bad": [Reply(object())]})
    async with Pool(script, size=1) as pool:
        with pytest.raises(EncodeError, match=r"args\.value"):
            await pool.execute("echo", {"value": object()})
        with pytest.raises(EncodeError, match="result"):
            await pool.execute("bad")
        mutable = [1]
        assert await pool.execute("echo", {"value": mutable}) is not mutable


async def test_the_script_and_the_calls_are_compared() -> None:
    script = ScriptedAdapter({"once": [Reply(1)], "never": [Reply(2), Stream([])]})
    async with Pool(script, size=1) as pool:
        with pytest.raises(AssertionError, match="not used: once"):
            script.assert_done()
        await pool.execute("once")
        with pytest.raises(RemoteError, match="no step left for 'once'"):
            await pool.execute("once")
        with pytest.raises(UnknownCommand, match="other"):
            await pool.execute("other")
    with pytest.raises(AssertionError) as caught:
        script.assert_done()
    text = str(caught.value)
    for part in ("not used: never: Reply(value=2", "not used: never: Stream", "command='other'"):
        assert part in text
    with pytest.raises(TimeoutError, match="'never' was called 0 of 1 times"):
        await script.called("never", timeout=0.01)


async def test_calling_a_stream_as_a_call_or_the_reverse_is_refused() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    script = ScriptedAdapter({"stream": [Stream([1])], "one": [Reply(1)], "items": items, "f": int})
    async with Pool(script, size=1) as pool:
        for command in ("stream", "items"):
            with pytest.raises(StreamingNotSupported, match="execute_stream"):
                await pool.execute(command)
        for command in ("one", "f"):
            with pytest.raises(StreamingNotSupported, match=r"execute\("):
                await collect(pool, command)


def test_a_script_holds_steps() -> None:
    with pytest.raises(ConfigurationError, match=r"'greet' holds 'hello'; write Reply"):
        ScriptedAdapter({"greet": ["hello"]})  # type: ignore[list-item]
