"""A host that forks while its pool is open, as servers do that load first and fork then: the child
is told at once, and whatever it does, the parent's pool goes on.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from gated_pool import adapter

from snakepit import Pool
from snakepit.errors import PoolBroken


def in_fork(do: Callable[[], object]) -> bool:
    """Do something in a fork of this process; whether it went well there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        except BaseException:  # it must not get into the parent's frames
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refused(do: Callable[[], object]) -> None:
    with pytest.raises(PoolBroken, match="does not survive a fork"):
        do()


def every_use(pool: Pool, worker_id: str) -> list[Callable[[], object]]:
    """All that would reach a worker. What is async is refused at its first step."""
    return [
        lambda: pool.execute("pid").send(None),
        lambda: pool.execute_in_session("ada", "pid").send(None),
        lambda: pool.execute_stream("count").__anext__().send(None),
        lambda: pool.release_session("ada"),
        lambda: pool.resize(2),
        lambda: pool.recycle(worker_id),
        pool.reset_restarts,
        lambda: pool.reload().send(None),
        lambda: pool.await_ready(1.0).send(None),
        lambda: pool.dump_stacks(worker_id).send(None),
    ]


async def test_each_use_in_a_fork_is_refused_at_once_and_the_host_goes_on() -> None:
    async with Pool(adapter(), size=1) as pool:
        worker = pool.workers()[0]
        for use in every_use(pool, worker.worker_id):
            assert in_fork(partial(refused, use))
        assert await pool.execute("pid", timeout=10.0) == worker.pid


async def test_a_fork_has_pools_of_its_own() -> None:
    async def use_another() -> None:
        async with Pool(adapter(), size=1) as pool:
            assert await pool.execute("add", {"x": 1}, timeout=10.0) == 12

    async with Pool(adapter(), size=1) as pool:
        assert in_fork(lambda: asyncio.run(use_another()))
        assert await pool.execute("add", {"x": 1}, timeout=10.0) == 12


# The child leaves by all the frames it has inherited: those of the pool, and of its event loop.
LEAVING = """
import asyncio, os, sys
from processes import until
from snakepit import Pool, PythonAdapter

async def main():
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call):
        held.set()
        await go_on.wait()
        return "held"

    adapter = PythonAdapter("pool_worker:Worker")
    async with Pool(adapter, size=2, host_functions={"hold": hold}) as pool:
        running = asyncio.create_task(pool.execute("call_host", {"name": "hold", "args": {}}))
        await held.wait()
        child = os.fork()
        if child == 0:
            HOW
        os.waitpid(child, 0)
        go_on.set()
        assert await running == "held"
        before = {info.pid for info in pool.workers()}
        assert await pool.execute("add", {"x": 1}, timeout=10.0) == 2
        os.kill(pool.workers()[0].pid, 9)
        pool.resize(3)
        await until(lambda: len({info.pid for info in pool.workers()} - before) == 2, "new ones")
        await pool.await_ready(10.0)
        print("served", len(pool.workers()))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "how", ["sys.exit(0)", "return", "raise RuntimeError", "await pool.aclose(timeout=1.0); return"]
)
def test_a_fork_that_leaves_by_all_frames_harms_nothing_of_its_parents(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVING.replace("HOW", how)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert (done.stdout, done.returncode) == ("served 3\n", 0), done.stderr
