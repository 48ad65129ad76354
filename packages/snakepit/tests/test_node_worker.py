"""Workers in Node, in pools: beside Python ones, through crashes, deadlines and host functions."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable
from contextlib import aclosing
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from node_programs import NODE_FOLDER, needs_node
from processes import until, until_computing

from snakepit import HostCall, Pool, ProgramAdapter, PythonAdapter, RecyclePolicy, WorkerSpec
from snakepit.errors import (
    CallTimeout,
    EncodeError,
    PoolStartFailed,
    RemoteError,
    UnknownCommand,
    WorkerLost,
)
from snakepit.testing import kill_worker

pytestmark = needs_node
WORKER = ["node", str(Path(__file__).parent / "node_worker.js")]


def new_pool(config: Any = None, **options: Any) -> Pool:
    adapter = ProgramAdapter(WORKER, config=config)
    return Pool(adapter, **{"size": 1, "quarantine_after": None, **options})


def test_the_librarys_own_tests_pass() -> None:
    files = sorted(str(path) for path in (NODE_FOLDER / "test").glob("*.test.js"))
    done = subprocess.run(
        ["node", "--test", *files], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_started_by_hand_it_says_who_starts_it() -> None:
    done = subprocess.run(WORKER, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "a pool starts this program" in done.stderr


# --- values and errors ---------------------------------------------------------------------------

VALUES: list[Any] = [
    None,
    [True, 1, -(2**31), 2**53, -(2**64), 1.5, float("inf"), "Grüße 🐍", b"\x00\xff"],
    {"a": {1: (2, [3])}, "b": {4, 5}, "c": frozenset({6})},
    [Decimal("-1.10"), UUID(int=7), Path("/tmp/x"), 1.5 - 2j, date(2024, 2, 29)],
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
    [datetime(2024, 2, 29, 12, 30, 0, 1), timedelta(days=-1, microseconds=1)],
    datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-3))),
]


async def test_values_come_back_as_they_were_sent() -> None:
    async with new_pool() as pool:
        for value in VALUES:
            found = await pool.execute("echo", {"value": value})
            assert (type(found), repr(found)) == (type(value), repr(value))
        grid = np.arange(24, dtype=">f4").reshape(2, 3, 4)
        np.testing.assert_array_equal(await pool.execute("echo", {"value": grid}), grid)
        large = np.arange(1_000_000)
        np.testing.assert_array_equal(await pool.execute("echo", {"value": large}), large)


async def test_what_values_are_in_node() -> None:
    kinds: dict[str, list[Any]] = {
        "number": [1, 1.5, 2**53 - 1],
        "bigint": [2**53, 2**200],
        "string": ["text"],
        "boolean": [True],
        "Uint8Array": [b"bytes"],
        "Array": [[1]],
        "Object": [{}, {"a": 1}],
        "Map": [{1: 2}],
        "Tuple": [(1,)],
        "Set": [{1}],
        "DateTime": [datetime(2024, 2, 29)],
        "NdArray": [np.zeros(3)],
        "SnakepitError": [ValueError("x")],
    }
    async with new_pool() as pool:
        for kind, values in kinds.items():
            for value in values:
                assert await pool.execute("kind_of", {"value": value}) == kind


async def test_errors_say_what_happened_and_where() -> None:
    async with new_pool() as pool:
        with pytest.raises(RemoteError, match="have to be an object, not a number") as caught:
            await pool.execute("call_host", {"name": "inc", "args": 7})
        assert caught.value.remote_type == "TypeError"
        assert "node_worker.js" in str(caught.value.remote_traceback)
        with pytest.raises(UnknownCommand, match="toString"):
            await pool.execute("toString")
        with pytest.raises(EncodeError):
            await pool.execute("echo", {"value": object()})


async def test_what_the_worker_is_configured_with_makes_its_commands() -> None:
    async with new_pool({"greeting": "Moin"}) as pool:
        assert await pool.execute("greet", {"name": "Ada"}) == "Moin, Ada!"
        assert await pool.execute("greet_twice", {"name": "Bo"}) == ["Moin, Bo!"] * 2


# --- deadlines, cancellation, death --------------------------------------------------------------


async def test_a_late_call_that_waits_is_stopped_and_its_worker_kept() -> None:
    async with new_pool() as pool:
        pid = await pool.execute("pid")
        with pytest.raises(CallTimeout):
            await pool.execute("sleep", {"seconds": 60}, timeout=0.1)
        assert await pool.execute("pid") == pid


async def test_an_unwanted_call_that_computes_is_killed_with_its_worker() -> None:
    async with new_pool(cancel_grace=0.1) as pool:
        pid = await pool.execute("pid")
        unwanted = asyncio.create_task(pool.execute("spin"))
        await until_computing(pool)
        unwanted.cancel()
        assert await pool.execute("pid") != pid


async def test_a_crash_costs_its_call_and_is_told_with_the_last_output() -> None:
    async with new_pool(size=2) as pool:
        other = asyncio.create_task(pool.execute("sleep", {"seconds": 0.3}))
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash")
        assert caught.value.signal == "SIGABRT"
        assert "about to abort" in caught.value.last_output
        assert await other > 0
        await until(lambda: pool.stats().ready == 2, "it is replaced")


async def test_an_error_that_nobody_handles_ends_the_worker() -> None:
    async with new_pool() as pool:
        with pytest.raises(WorkerLost, match="nobody waits for me"):
            await pool.execute("forget")


async def test_leaving_a_stream_runs_its_finally_and_keeps_the_worker() -> None:
    async with new_pool() as pool:
        pid = await pool.execute("pid")
        async with aclosing(pool.execute_stream("numbers")) as numbers:
            async for number in numbers:
                if number == 1000:
                    break
        assert await pool.execute("times_cleaned") == 1
        assert await pool.execute("pid") == pid


async def test_it_closes_in_order(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "snakepit.output")
    async with new_pool() as pool:
        await pool.execute("pid")
    assert "closed in order" in caplog.text


# --- functions of the host -----------------------------------------------------------------------


async def test_a_host_function_calls_the_only_worker_again() -> None:
    async def twice(call: HostCall, depth: int) -> list[Any]:
        if depth == 0:
            return [await pool.execute("pid")]
        args = {"name": "twice", "args": {"depth": depth - 1}}
        return [depth, *await pool.execute("call_host", args)]

    async with new_pool(host_functions={"twice": twice}) as pool:
        args = {"name": "twice", "args": {"depth": 4}}
        found = await pool.execute("call_host", args, timeout=20)
        assert found == [4, 3, 2, 1, await pool.execute("pid")]


async def test_a_call_to_the_host_that_is_left_behind_harms_nobody() -> None:
    cancelled = asyncio.Event()

    async def never(call: HostCall) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def inc(call: HostCall, x: int) -> int:
        return x + 1

    async with new_pool(host_functions={"never": never, "inc": inc}) as pool:
        pid = await pool.execute("pid")
        assert await pool.execute("call_host_and_leave") == "left"
        await cancelled.wait()
        await pool.execute("call_host_too_late")
        assert await pool.execute("what_came_too_late") == "no_current_call"
        assert await pool.execute("pid") == pid


async def test_many_calls_at_a_time() -> None:
    together = asyncio.Barrier(8)

    async def meet(call: HostCall) -> None:
        await together.wait()

    async with new_pool(concurrency=8, host_functions={"meet": meet}) as pool:
        args = {"name": "meet", "args": {}}
        calls = (pool.execute("call_host", args, timeout=20) for _ in range(8))
        assert await asyncio.gather(*calls) == [None] * 8


async def test_short_calls_are_sent_ahead_and_given_back_by_a_slow_head() -> None:
    async with new_pool(size=2, spin=0.0) as pool:
        for number in range(200):
            await pool.execute("echo", {"value": number})
        echoes = [pool.execute("echo", {"value": number}) for number in range(50)]
        slow = asyncio.create_task(pool.execute("sleep", {"seconds": 60}))
        assert await asyncio.wait_for(asyncio.gather(*echoes), 20) == list(range(50))
        assert not slow.done()
        slow.cancel()


# --- beside Python -------------------------------------------------------------------------------


async def test_a_pool_in_node_beside_one_in_python() -> None:
    async def kind_of(call: HostCall, value: Any) -> Any:
        return await node.execute("kind_of", {"value": value})

    async with new_pool(name="node") as node:
        adapter = PythonAdapter("snakepit.testing.conformance.worker:Worker")
        async with Pool(adapter, size=1, host_functions={"kind_of": kind_of}) as python:
            args = {"name": "kind_of", "args": {"value": (1, 2)}}
            assert await python.execute("call_host", args, timeout=20) == "Tuple"


def without(pool: Pool, pid: int) -> Callable[[], bool]:
    """Whether a pool has all its workers, and one not any more."""
    return lambda: pool.stats().ready == 4 and pid not in {info.pid for info in pool.workers()}


class MixedAdapter:
    """Starts workers in Node and in Python by turns."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self._adapters: dict[str, Any] = {
            "node": ProgramAdapter(WORKER),
            "python": PythonAdapter("snakepit.testing.conformance.worker:Worker"),
        }

    async def start_worker(self, spec: WorkerSpec) -> Any:
        kind = "python" if len(self.kinds) % 2 else "node"
        self.kinds[spec.worker_id] = kind
        return await self._adapters[kind].start_worker(spec)

    async def execute(self, worker: Any, command: str, args: Any, options: Any) -> Any:
        raise AssertionError("a pool hands its calls to such workers directly")

    async def terminate(self, reason: str) -> None:
        for adapter in self._adapters.values():
            await adapter.terminate(reason)


async def test_workers_in_node_and_in_python_serve_the_same_pool_and_are_replaced() -> None:
    adapter = MixedAdapter()
    async with Pool(adapter, size=4, recycle=RecyclePolicy(max_calls=100)) as pool:
        for _ in range(3):
            calls = [pool.execute("echo", {"value": number}) for number in range(100)]
            assert await asyncio.gather(*calls) == list(range(100))
            is_whole = without(pool, kill_worker(pool))
            await until(is_whole, "the killed one is replaced")
        assert set(adapter.kinds.values()) == {"node", "python"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("serve({});", "there are no commands"),
        ("serve({ answer: 42 });", "the command answer is no function"),
        ("serve(async () => { throw new Error('no such device'); });", "no such device"),
        ("throw new Error('no luck');", "no luck"),
    ],
)
async def test_what_can_not_be_served_fails_the_start(
    code: str, message: str, tmp_path: Path
) -> None:
    program = tmp_path / "worker.mjs"
    index = NODE_FOLDER / "src/index.js"
    program.write_text(f'import {{ serve }} from "{index}";\n{code}\n')
    with pytest.raises(PoolStartFailed, match=message) as caught:
        async with Pool(ProgramAdapter(["node", str(program)]), size=1):
            pass
    assert str(program) in str(caught.value)
