"""The pool with real worker processes: calls, sessions, errors, streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import snakepit
from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    ConfigurationError,
    PoolClosed,
)

WORKER = "pool_worker:Worker"
BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 8])


def new_pool(**options: Any) -> Pool:
    return Pool(PythonAdapter(WORKER, config={"base": 10}), **{"size": 1, **options})


async def test_a_spawned_worker_serves_as_a_forked_one_does() -> None:
    adapter = PythonAdapter(WORKER, config={"base": 1}, start="spawn")
    async with Pool(adapter, size=1) as pool:
        assert await pool.execute("add", {"x": 1}) == 3


@pytest.mark.parametrize("args", [[1], "text", 5])
async def test_arguments_that_are_no_mapping_are_refused_and_hold_no_slot(args: Any) -> None:
    async with new_pool() as pool:
        with pytest.raises(ConfigurationError, match="pass a mapping"):
            await pool.execute("echo", args)
        assert await pool.execute("add", {"x": 1}) == 12
        assert pool.stats().submitted == 1


async def test_calls_of_a_session_go_to_its_worker_and_others_are_spread() -> None:
    async with new_pool(size=3) as pool:
        pids = {await pool.execute("pid", session_id="a") for _ in range(20)}
        spread = {await pool.execute("pid") for _ in range(20)}
        stats = pool.stats()
    assert len(pids) == 1
    assert len(spread) == 3
    assert (stats.session_hits, stats.session_misses) == (19, 0)


async def test_a_session_falls_back_to_a_free_worker_when_its_own_is_busy() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(call: HostCall) -> None:
        entered.set()
        await gate.wait()

    async with new_pool(size=2, host_functions={"hold": hold}) as pool:
        own = await pool.execute("pid", session_id="a")
        busy = asyncio.create_task(
            pool.execute("call_host", {"name": "hold", "args": {}}, session_id="a")
        )
        await entered.wait()
        assert await pool.execute("pid", session_id="a") != own
        gate.set()
        await busy
        assert pool.stats().session_misses == 1


def test_session_ids_are_unguessable_and_of_the_known_form() -> None:
    first, second = snakepit.generate_session_id(), snakepit.generate_session_id()
    assert first != second
    assert first.startswith("session_")
    assert len(first) == 40
    int(first.removeprefix("session_"), 16)


# --- streams ---------------------------------------------------------------------------------


# --- calling back ----------------------------------------------------------------------------


async def test_threads_of_a_command_call_the_host_side_by_side() -> None:
    async def double(call: HostCall, n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async with new_pool(host_functions={"double": double}) as pool:
        args = {"name": "double", "count": 16}
        assert await pool.execute("call_host_in_threads", args) == [2 * i for i in range(16)]


# --- options and life ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": -1}, "size is -1"),
        ({"size": True}, "size is True"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"queue_limit": -1}, "queue_limit is -1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"cancel_grace": -1.0}, "cancel_grace is -1.0"),
        ({"start_timeout": float("nan")}, "start_timeout is nan"),
    ],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_pool(**options)


async def test_a_zero_or_negative_timeout_of_a_call_is_refused() -> None:
    async with new_pool() as pool:
        for timeout in (0, -1.0, float("inf")):
            with pytest.raises(ConfigurationError, match="timeout"):
                await pool.execute("add", {"x": 1}, timeout=timeout)
        assert pool.stats().submitted == 0


async def test_a_pool_that_is_not_open_refuses_calls() -> None:
    pool = new_pool()
    with pytest.raises(PoolClosed, match="async with"):
        await pool.execute("add", {"x": 1})
    async with pool:
        pass
    with pytest.raises(PoolClosed, match="closed"):
        await pool.execute("add", {"x": 1})
    with pytest.raises(PoolClosed, match="create a new one"):
        await pool.start()
    await pool.aclose()


def test_a_pool_used_in_another_loop_says_so() -> None:
    async def open_pool() -> Pool:
        pool = new_pool()
        await pool.start()
        return pool

    first = asyncio.new_event_loop()
    pool = first.run_until_complete(open_pool())
    try:
        with pytest.raises(ConfigurationError, match="another event loop"):
            asyncio.run(pool.execute("add", {"x": 1}))
    finally:
        first.run_until_complete(pool.aclose())
        first.close()


async def test_a_worker_inherits_the_environment_less_what_is_withheld(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    monkeypatch.setenv("HARMLESS", "yes")
    adapter = PythonAdapter(WORKER, env={"EXTRA": "1"}, withhold=("*_API_KEY",))
    async with Pool(adapter, size=1) as pool:
        names = ["SOME_API_KEY", "HARMLESS", "EXTRA"]
        seen = await pool.execute("environment", {"names": names})
    assert seen == {"SOME_API_KEY": None, "HARMLESS": "yes", "EXTRA": "1"}


async def test_two_pools_share_one_keeper() -> None:
    async with new_pool(name="a") as a, new_pool(name="b") as b:
        parents = {_parent(await pool.execute("pid")) for pool in (a, b)}
        assert len(parents) == 1


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
