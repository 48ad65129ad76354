"""Tools with limits that would wait for each other: the call that closes the circle is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from state_services import State, running_state

from snakepit_grpc_bridge.errors import ToolDeadlock, ToolExecutionFailed

LIMIT = 30.0


async def call(state: State, name: str, **parameters: Any) -> Any:
    async with asyncio.timeout(LIMIT):
        return await state.tools.call(name, parameters, "s")


async def all_of(state: State, names: Sequence[str]) -> list[Any]:
    calls = (call(state, name) for name in names)
    return await asyncio.gather(*calls, return_exceptions=True)


async def register_ring(state: State, names: Sequence[str], **options: Any) -> None:
    """Tools of which each calls the next one, when all of them run; inside of a ring they don't."""
    met = asyncio.Barrier(len(names))

    def tool(next_one: str) -> Any:
        async def run(nested: bool = False) -> str:
            if nested:
                return "nested"
            await met.wait()
            return str(await call(state, next_one, nested=True))

        return run

    for name, next_one in zip(names, [*names[1:], names[0]], strict=True):
        await state.tools.register(name, tool(next_one), **{"concurrency": 1, **options})


def of_deadlocks(ends: Sequence[Any]) -> list[ToolDeadlock]:
    failed = [end for end in ends if isinstance(end, ToolExecutionFailed)]
    return [end.__cause__ for end in failed if isinstance(end.__cause__, ToolDeadlock)]


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_the_call_that_would_close_a_circle_is_refused_and_the_others_go_on(
    count: int,
) -> None:
    async with running_state() as state:
        names = [f"tool_{number}" for number in range(count)]
        await register_ring(state, names)
        for _ in range(3):  # and nothing of it stays
            ends = await all_of(state, names)
            assert ends.count("nested") == count - 1
            (told,) = of_deadlocks(ends)
            assert told.details["tools"] == names
            assert told.details["tool"] in names
            assert not told.retryable


async def test_a_tool_that_is_told_may_do_without() -> None:
    async with running_state() as state:
        met = asyncio.Barrier(2)

        def tool(other: str) -> Any:
            async def run(nested: bool = False) -> str:
                if nested:
                    return "from the other"
                await met.wait()
                try:
                    return str(await call(state, other, nested=True))
                except ToolDeadlock:
                    return "without"

            return run

        await state.tools.register("a", tool("b"), concurrency=1)
        await state.tools.register("b", tool("a"), concurrency=1)
        assert sorted(await all_of(state, "ab")) == ["from the other", "without"]


async def test_who_waits_for_a_place_that_will_be_free_waits() -> None:
    """All but one of the places are held by calls that wait for the caller."""
    async with running_state() as state:
        go, met = asyncio.Event(), asyncio.Barrier(3)

        async def a(nested: bool = False) -> str:
            if not nested:
                await met.wait()
                return str(await call(state, "b", kind="nested"))
            return "nested"

        async def b(kind: str) -> str:
            if kind == "nested":
                return "nested"
            await met.wait()
            if kind == "calls":
                return str(await call(state, "a", nested=True))
            await go.wait()
            return "went"

        await state.tools.register("a", a, concurrency=1)
        await state.tools.register("b", b, concurrency=2)
        waiting = [
            asyncio.create_task(call(state, "a")),
            asyncio.create_task(call(state, "b", kind="calls")),
            asyncio.create_task(call(state, "b", kind="waits")),
        ]
        for _ in range(20):  # turns of the loop in which they would be told
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        go.set()
        assert await asyncio.gather(*waiting) == ["nested", "nested", "went"]


async def test_a_circle_through_one_of_several_calls_at_a_time() -> None:
    async with running_state() as state:
        met = asyncio.Barrier(2)

        async def quick() -> str:
            return "quick"

        async def a(nested: bool = False) -> Any:
            if nested:
                return "nested"
            await met.wait()
            return await asyncio.gather(call(state, "quick"), call(state, "b", nested=True))

        async def b(nested: bool = False) -> Any:
            if nested:
                return "nested"
            await met.wait()
            return await call(state, "a", nested=True)

        await state.tools.register("quick", quick, concurrency=1)
        await state.tools.register("a", a, concurrency=1)
        await state.tools.register("b", b, concurrency=1)
        assert len(of_deadlocks(await all_of(state, "ab"))) == 1


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_calls_whatever_no_call_waits_for_ever(seed: int) -> None:
    """Random tools call random ones: some are told, and all of them end."""
    chance = random.Random(seed)
    names = [f"tool_{number}" for number in range(chance.randint(2, 5))]
    async with running_state() as state:

        async def run(plan: list[Any]) -> int:
            await asyncio.sleep(0)
            inner = [call(state, name, plan=more) for name, more in plan]
            ends = await asyncio.gather(*inner, return_exceptions=True)
            assert not any(isinstance(end, TimeoutError) for end in ends)
            return len(ends)

        for name in names:
            await state.tools.register(name, run, concurrency=chance.randint(1, 2))

        def plan(depth: int) -> list[Any]:
            if not depth:
                return []
            return [[chance.choice(names), plan(depth - 1)] for _ in range(chance.randint(0, 2))]

        ends = await asyncio.gather(
            *(call(state, chance.choice(names), plan=plan(4)) for _ in range(20))
        )
        assert len(ends) == 20
