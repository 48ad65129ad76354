"""How long the consumer of a stream waits: for an item, and in all."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool
from processes import until

from snakepit import Pool, PythonAdapter
from snakepit.errors import CallTimeout, ConfigurationError, Outcome

BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 4])


def new_pool(**options: Any) -> Pool:
    return CheckedPool(
        PythonAdapter("stream_worker:Producer"), **{"size": 1, "name": "s", **options}
    )


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def pause(seconds: float) -> None:
    """Let time pass that is more than a limit."""
    await asyncio.to_thread(threading.Event().wait, seconds)


@pytest.fixture
def gates(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"gate{i}") for i in range(2)]
    for name in names:
        os.mkfifo(name)
    return names


async def open_gate(gate: str) -> None:
    await asyncio.to_thread(Path(gate).write_text, "item")


@BOTH_PROFILES
@pytest.mark.parametrize("items_before", [0, 1])
async def test_75_a_stream_that_brings_no_item_for_too_long_is_stopped(
    items_before: int, concurrency: int, gates: list[str]
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        stream = pool.execute_stream("after_gate", {"gates": gates}, idle_timeout=1.0, timeout=60)
        if items_before:
            _, item = await asyncio.gather(open_gate(gates[0]), anext(stream))
            assert item == "item"
        with pytest.raises(CallTimeout, match=r"stream_idle limit of 1 s") as caught:
            await anext(stream)
        assert caught.value.limit == "stream_idle"
        assert (caught.value.ran_s or 0) >= 1.0
        assert caught.value.outcome is Outcome.UNKNOWN
        await until(lambda: pool.stats().timed_out == 1, "it is counted")


async def test_75_the_time_between_two_steps_of_the_consumer_is_no_stall(gates: list[str]) -> None:
    async with new_pool(size=1) as pool:
        stream = pool.execute_stream("after_gate", {"gates": gates}, idle_timeout=1.0)
        await asyncio.gather(open_gate(gates[0]), anext(stream))
        await pause(1.5)  # and nothing comes meanwhile
        _, item = await asyncio.gather(open_gate(gates[1]), anext(stream))
        assert item == "item"
        assert await all_of(stream) == []


async def test_75_the_first_limit_that_is_reached_ends_a_stream(gates: list[str]) -> None:
    async with new_pool(timeout=0.2, stream_idle_timeout=30) as pool:
        with pytest.raises(CallTimeout) as caught:
            await anext(pool.execute_stream("after_gate", {"gates": gates}))
        assert caught.value.limit == "total"


async def test_75_a_pools_idle_limit_holds_for_streams_that_have_none_of_their_own(
    gates: list[str],
) -> None:
    async with new_pool(stream_idle_timeout=0.2) as pool:
        with pytest.raises(CallTimeout) as caught:
            await anext(pool.execute_stream("after_gate", {"gates": gates}))
        assert caught.value.limit == "stream_idle"
        unlimited = pool.execute_stream("after_gate", {"gates": gates}, idle_timeout=None)
        step = asyncio.ensure_future(anext(unlimited))
        assert not (await asyncio.wait([step], timeout=0.5))[0]
        await open_gate(gates[0])
        assert await step == "item"
        await unlimited.aclose()


async def test_75_waiting_for_a_worker_is_no_stall_of_the_stream(gates: list[str]) -> None:
    async with new_pool() as pool:
        first = pool.execute_stream("after_gate", {"gates": gates})
        step = asyncio.ensure_future(anext(first))
        await until(lambda: pool.stats().running == 1, "the worker is taken")
        queued = asyncio.ensure_future(
            anext(pool.execute_stream("count", {"n": 1}, idle_timeout=0.2))
        )
        assert not (await asyncio.wait([queued], timeout=0.5))[0]
        for gate in gates:
            await open_gate(gate)
        assert [await step, *await all_of(first)] == ["item", "item"]
        assert await queued == 0


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "1", True])
async def test_51_a_silly_idle_limit_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="stream_idle_timeout"):
        new_pool(stream_idle_timeout=limit)
    async with new_pool() as pool:
        with pytest.raises(ConfigurationError, match="idle_timeout"):
            await anext(pool.execute_stream("count", {"n": 1}, idle_timeout=limit))
        assert pool.stats().submitted == 0
