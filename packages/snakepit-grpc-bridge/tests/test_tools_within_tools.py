"""Tools with limits that reach themselves through real workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from running_platform import running_platform

from snakepit.errors import CallDepthExceeded
from snakepit.testing import EventRecorder
from snakepit_grpc_bridge import Platform

pytestmark = pytest.mark.slow

PROGRAMS = "state_programs"


async def run(platform: Platform, session_id: str | None, function: str, *args: Any) -> Any:
    return await platform.python.call(f"{PROGRAMS}.{function}", args, session_id=session_id)


async def test_a_tool_of_the_host_that_a_worker_calls_from_within_it() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        inside: list[str] = []

        async def dive(depth: int) -> int:
            return int(await run(platform, session.id, "dives", depth)) + 1

        async def outermost(who: str) -> int:
            inside.append(who)
            assert set(inside) == {who}  # calls from elsewhere wait
            result = await run(platform, session.id, "call", "again", {"who": who})
            inside.remove(who)
            return int(result)

        async def again(who: str) -> int:
            inside.append(who)
            result = await platform.tools.call("dive", {"depth": 2}, session.id)
            inside.remove(who)
            return int(result)

        tools = platform.tools
        await tools.register("dive", dive, concurrency=1)
        await tools.register("outermost", outermost, concurrency=1)
        await tools.register("again", again, concurrency=1)
        # The host calls first, and a worker.
        assert await tools.call("dive", {"depth": 5}, session.id) == 11
        assert await run(platform, session.id, "dives", 5) == 10
        calls = [tools.call("outermost", {"who": f"{n}"}, session.id) for n in range(4)]
        assert await asyncio.gather(*calls) == [5] * 4


async def test_the_calls_of_a_tool_that_the_host_calls_name_the_command_they_are_a_part_of() -> (
    None
):
    with EventRecorder("snakepit.call.start") as events:
        async with running_platform() as platform, platform.sessions.open() as session:

            async def dive(depth: int) -> int:
                return int(await run(platform, session.id, "dives", depth)) + 1

            await platform.tools.register("dive", dive, concurrency=1)
            assert await platform.tools.call("dive", {"depth": 1}, session.id) == 3
    outer, inner = (each.metadata for each in events.told("snakepit.call.start"))
    assert outer["parent_id"] is None
    assert inner["parent_id"] == outer["correlation_id"]


async def test_tools_with_limits_call_each_other_through_workers() -> None:
    async with running_platform(workers=2) as platform:
        tools = platform.tools

        async def ping(depth: int) -> int:
            given = {"depth": depth - 1}
            return int(await run(platform, None, "call", "pong", given)) if depth > 0 else 0

        async def pong(depth: int) -> int:
            given = {"depth": depth - 1}
            return int(await run(platform, None, "call", "ping", given)) + 1 if depth > 0 else 0

        await tools.register("ping", ping, concurrency=1)
        await tools.register("pong", pong, concurrency=1)
        assert await tools.call("ping", {"depth": 6}) == 3
        assert await run(platform, None, "call", "pong", {"depth": 6}) == 3


async def test_tools_that_would_wait_for_each_other_through_workers_are_told() -> None:
    async with running_platform(workers=2) as platform:
        met = asyncio.Barrier(2)

        def tool(other: str) -> Any:
            async def meet(nested: bool = False) -> Any:
                if nested:
                    return "nested"
                await met.wait()
                calls = [{"nested": True}]
                ends, _ = await run(platform, None, "questions_for_calls", other, calls)
                return ends[0]

            return meet

        await platform.tools.register("ping", tool("pong"), concurrency=1)
        await platform.tools.register("pong", tool("ping"), concurrency=1)
        both = asyncio.gather(platform.tools.call("ping"), platform.tools.call("pong"))
        assert sorted(await both) == ["ToolDeadlock", "nested"]


async def test_a_tool_of_the_workers_that_calls_itself() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        tools = platform.tools
        await tools.register_python_function("dive", f"{PROGRAMS}:dives", concurrency=1)
        for home in (None, session.id):
            assert await tools.call("dive", {"depth": 5}, home) == 5
            assert await run(platform, home, "dives", 5) == 5
        assert (
            await asyncio.gather(*(tools.call("dive", {"depth": 3}) for _ in range(5))) == [3] * 5
        )
        with pytest.raises(CallDepthExceeded, match="33 calls deep"):
            await tools.call("dive", {"depth": 1000}, session.id)
        assert await tools.call("dive", {"depth": 1}, session.id) == 1


async def test_streams_with_limits_from_within_themselves() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        tools, home = platform.tools, session.id

        async def numbers(depth: int) -> AsyncIterator[int]:
            yield depth
            if depth:
                given = {"depth": depth - 1}
                for number in await run(platform, home, "stream", "numbers", given):
                    yield number

        await tools.register("numbers", numbers, concurrency=1)
        assert [item async for item in tools.stream("numbers", {"depth": 3}, home)] == [3, 2, 1, 0]
        assert await run(platform, home, "stream", "numbers", {"depth": 3}) == [3, 2, 1, 0]
        await tools.register_python_function("down", f"{PROGRAMS}:streams_down", concurrency=1)
        assert [item async for item in tools.stream("down", {"start": 3}, home)] == [3, 2, 1]
        assert await run(platform, home, "stream", "down", {"start": 3}) == [3, 2, 1]


async def test_a_call_in_a_worker_goes_on_with_the_tool_that_it_began_with() -> None:
    async with running_platform(workers=3) as platform:
        tools = platform.tools
        entered, go = asyncio.Event(), asyncio.Event()

        async def old() -> str:
            entered.set()
            await go.wait()
            return "old"

        await tools.register("tool", old)
        of_host = asyncio.create_task(run(platform, None, "call", "tool", {}))
        await entered.wait()
        await tools.register("tool", lambda: "new", replace=True)
        assert await run(platform, None, "call", "tool", {}) == "new"

        entered.clear()
        await tools.register("wait", old)
        await tools.register_python_function("path", f"{PROGRAMS}:waits", concurrency=1)
        of_worker = asyncio.create_task(tools.call("path"))
        await entered.wait()
        await tools.register_python_function("path", f"{PROGRAMS}:pid", replace=True)
        assert await tools.call("path") in {worker.pid for worker in platform.pool.workers()}
        go.set()
        assert await of_host == "old"
        assert await of_worker == "waited for old"
