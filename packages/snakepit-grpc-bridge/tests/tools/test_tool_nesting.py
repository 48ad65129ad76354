"""Tools of the host that call tools: within their limits, and never without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from state_services import State, running_state

from snakepit.errors import CallDepthExceeded, CallTimeout, QueueTimeout
from snakepit_grpc_bridge.errors import ToolExecutionFailed

LIMIT = 30.0


async def call(state: State, name: str, **parameters: Any) -> Any:
    """In time: what waits for itself would wait for ever."""
    async with asyncio.timeout(LIMIT):
        return await state.tools.call(name, parameters, "s")


# --- limits of concurrency ------------------------------------------------------------------------


async def test_a_tool_that_calls_itself_does_not_wait_for_itself() -> None:
    async with running_state() as state:
        outermost: list[str] = []

        async def dive(depth: int, who: str = "") -> int:
            if who:
                outermost.append(who)
            below = await call(state, "dive", depth=depth - 1) if depth else -1
            if who:
                outermost.append(who)
            return int(below) + 1

        await state.tools.register("dive", dive, concurrency=1)
        # Calls from elsewhere wait for each other as before: none begins inside another one.
        many = [call(state, "dive", depth=5, who=f"call {n}") for n in range(10)]
        assert await asyncio.gather(*many) == [5] * 10
        assert outermost[::2] == outermost[1::2]
        assert len(set(outermost)) == 10


async def test_tools_with_limits_may_call_each_other() -> None:
    async with running_state() as state:

        async def ping(depth: int) -> int:
            return int(await call(state, "pong", depth=depth)) + 1

        async def pong(depth: int) -> int:
            return int(await call(state, "ping", depth=depth - 1)) if depth else 0

        await state.tools.register("ping", ping, concurrency=1)
        await state.tools.register("pong", pong, concurrency=1, timeout=LIMIT)
        assert await call(state, "ping", depth=3) == 4
        assert await call(state, "pong", depth=3) == 3


async def test_what_outlives_its_call_waits_as_others_do() -> None:
    async with running_state() as state:
        over, go = asyncio.Event(), asyncio.Event()
        log: list[str] = []
        left: list[asyncio.Task[Any]] = []

        async def later() -> None:
            await over.wait()
            await call(state, "tool", what="late")

        async def tool(what: str) -> None:
            log.append(f"{what} begins")
            if what == "first":
                left.append(asyncio.create_task(later()))
            if what == "second":
                over.set()
                await go.wait()
            log.append(f"{what} ends")

        await state.tools.register("tool", tool, concurrency=1)
        await call(state, "tool", what="first")
        second = asyncio.create_task(call(state, "tool", what="second"))
        await over.wait()
        for _ in range(20):  # turns of the loop in which it would begin
            await asyncio.sleep(0)
        go.set()
        await asyncio.gather(second, *left)
        steps = [
            f"{what} {step}" for what in ("first", "second", "late") for step in ("begins", "ends")
        ]
        assert log == steps


async def test_the_maker_of_a_stream_is_inside_its_call_and_the_consumer_is_not() -> None:
    async with running_state() as state:

        async def numbers(depth: int) -> AsyncIterator[int]:
            yield depth
            if depth:
                async for number in state.tools.stream("numbers", {"depth": depth - 1}, "s"):
                    yield number

        await state.tools.register("numbers", numbers, concurrency=1)
        async with asyncio.timeout(LIMIT):
            items = state.tools.stream("numbers", {"depth": 3}, "s")
            assert [item async for item in items] == [3, 2, 1, 0]
        await state.tools.register("numbers", numbers, concurrency=1, timeout=0.05, replace=True)
        items = state.tools.stream("numbers", {"depth": 0}, "s")
        assert await anext(items) == 0
        with pytest.raises(QueueTimeout):
            await anext(state.tools.stream("numbers", {"depth": 0}, "s"))
        await items.aclose()
        again = state.tools.stream("numbers", {"depth": 0}, "s")
        assert [item async for item in again] == [0]


# --- limits of time -------------------------------------------------------------------------------


async def test_the_limit_of_time_counts_the_wait_for_others() -> None:
    async with running_state() as state:
        await state.tools.register("never", asyncio.Event().wait, concurrency=1, timeout=0.05)
        with pytest.raises(CallTimeout, match="its wait for earlier calls included"):
            await call(state, "never")
        calls = [call(state, "never") for _ in range(6)]
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, CallTimeout)
        # Their times are over together: they do not get theirs one after the other.
        assert isinstance(others[-1], QueueTimeout)


async def test_a_call_whose_turn_does_not_come_in_time_has_not_run() -> None:
    async with running_state() as state:
        begun = 0

        async def numbers() -> AsyncIterator[int]:
            nonlocal begun
            begun += 1
            yield begun

        await state.tools.register("numbers", numbers, concurrency=1, timeout=0.02)
        first = state.tools.stream("numbers", session_id="s")
        await anext(first)  # holds its place as long as it is open
        with pytest.raises(QueueTimeout, match=r"'numbers' did not run: it waited 0\.02 s") as late:
            await anext(state.tools.stream("numbers", session_id="s"))
        assert begun == 1
        assert late.value.retryable
        assert late.value.details["tool"] == "numbers"
        assert late.value.details["limit"] == "tool"
        await first.aclose()
        outcomes = [one.outcome for one in await state.tools.audit("s")]
        assert sorted(outcomes) == ["cancelled", "queue_timeout"]


# --- depth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [None, 1])
async def test_recursion_on_the_host_ends_at_the_depth_of_all_calls(
    concurrency: int | None,
) -> None:
    async with running_state() as state:
        depth = 0

        async def again() -> None:
            nonlocal depth
            depth += 1
            await call(state, "again")

        await state.tools.register("again", again, concurrency=concurrency)
        for _ in range(2):  # what has failed leaves nothing behind
            depth = 0
            with pytest.raises(CallDepthExceeded, match="'again' is nested 33 calls deep"):
                await call(state, "again")
            assert depth == 32
        # One after the other is no depth.
        await state.tools.register("one", lambda: 1)
        assert [await call(state, "one") for _ in range(100)] == [1] * 100


async def test_recursion_of_plain_functions_ends_there_too() -> None:
    async with running_state() as state:
        loop = asyncio.get_running_loop()
        depth = 0

        def again() -> None:
            nonlocal depth
            depth += 1
            asyncio.run_coroutine_threadsafe(call(state, "again"), loop).result(LIMIT)

        await state.tools.register("again", again)
        with pytest.raises(CallDepthExceeded, match="33 calls deep"):
            await call(state, "again")
        assert depth == 32


async def test_streams_in_streams_end_there_too() -> None:
    async with running_state() as state:
        depth = 0

        async def again() -> AsyncIterator[int]:
            nonlocal depth
            depth += 1
            async for item in state.tools.stream("again", session_id="s"):
                yield item

        await state.tools.register("again", again)
        with pytest.raises(CallDepthExceeded, match="33 calls deep"):
            await anext(state.tools.stream("again", session_id="s"))
        assert depth == 32


# --- replaced -------------------------------------------------------------------------------------


async def test_a_call_goes_on_with_the_tool_that_it_began_with() -> None:
    async with running_state() as state:
        entered, go = asyncio.Event(), asyncio.Event()

        async def old() -> str:
            entered.set()
            await go.wait()
            return "old"

        async def old_items() -> AsyncIterator[str]:
            yield "old 1"
            yield "old 2"

        async def new_items() -> AsyncIterator[str]:
            yield "new"

        def fails() -> None:
            raise LookupError

        for concurrency in (None, 1):
            await state.tools.register("tool", old, concurrency=concurrency, replace=True)
            await state.tools.register("items", old_items, concurrency=concurrency, replace=True)
            running = asyncio.create_task(call(state, "tool"))
            items = state.tools.stream("items", session_id="s")
            await entered.wait()
            assert await anext(items) == "old 1"
            # A new one is not bound by the limits of those that the old one still has.
            await state.tools.register("tool", lambda: "new", concurrency=concurrency, replace=True)
            await state.tools.register("items", new_items, concurrency=concurrency, replace=True)
            assert await call(state, "tool") == "new"
            async with asyncio.timeout(LIMIT):
                new = [item async for item in state.tools.stream("items", session_id="s")]
            assert new == ["new"]
            await state.tools.register("tool", fails, replace=True)
            go.set()
            assert await running == "old"
            assert [item async for item in items] == ["old 2"]
            with pytest.raises(ToolExecutionFailed):
                await call(state, "tool")
            entered.clear()
            go.clear()
