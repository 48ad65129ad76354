"""What ends a worker when nobody is left to do it: the kernel, with its parent's death."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from after_check import assert_serves
from processes import alive, wait_until

from snakepit import PythonAdapter
from snakepit.processes.linux import IS_LINUX
from snakepit.processes.vitals import read_vitals

HOST = """
import asyncio
import sys

from snakepit import Pool, PythonAdapter

async def main(start, started):
    adapter = PythonAdapter("supervised_worker:Worker", start=start)
    async with Pool(adapter, size=1) as pool:
        print(adapter.keeper_pid, pool.workers()[0].pid, flush=True)
        await pool.execute("hold_gil_and_burn", {"started": started, "rounds": 10**12})

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def host_with_a_deaf_worker(start: str, started: Path) -> Iterator[tuple[int, int, int]]:
    """The pids of a host, its keeper and its worker, in which no Python code runs any more."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST, start, str(started)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    ) as host:
        assert host.stdout is not None
        keeper, worker = map(int, host.stdout.readline().split())
        try:
            wait_until(started.exists, "the call has begun")
            before = ticks_of(worker)
            wait_until(lambda: ticks_of(worker) > before + 5, "it is in C code")
            yield host.pid, keeper, worker
        finally:
            for pid in (host.pid, keeper, worker):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def ticks_of(pid: int) -> int:
    vitals = read_vitals(pid)
    assert vitals is not None
    return vitals.cpu_ticks


@pytest.mark.skipif(not IS_LINUX, reason="elsewhere the kernel does not do it")
@pytest.mark.parametrize("start", ["template", "spawn"])
def test_67_a_deaf_worker_ends_when_host_and_keeper_are_killed_together(
    start: str, tmp_path: Path
) -> None:
    with host_with_a_deaf_worker(start, tmp_path / "started") as (host, keeper, worker):
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that neither sees the other's end
            os.kill(keeper, number)
            os.kill(host, number)
        wait_until(lambda: not alive(keeper) and not alive(host), "both are killed")
        # At once: a little later the next keeper of anybody here would end it, too.
        assert is_killed(worker)
        wait_until(lambda: not alive(worker), "it ends")
    asyncio.run(assert_serves(PythonAdapter("pool_worker:Worker")))


def is_killed(pid: int) -> bool:
    """Whether a process has been sent SIGKILL, also if it has not ended of it yet."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    pending = int(fields["ShdPnd"], 16)
    return fields["State"][0] in "ZX" or bool(pending >> (signal.SIGKILL - 1) & 1)
