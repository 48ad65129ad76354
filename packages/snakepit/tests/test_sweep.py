"""Processes that a killed host has left, and how the next one finds them. Scenario 67."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool
from processes import alive, until, wait_until

from snakepit import PythonAdapter, sweep_orphans
from snakepit.processes.linux import children_of
from snakepit.processes.sweep import RunMark
from snakepit.worker.marks import RUN_VARIABLE

pytestmark = pytest.mark.alone
PAUSE = "import signal; signal.pause()"
HOST = """
import asyncio, os, signal
from snakepit import Pool, PythonAdapter

async def main():
    async with Pool(PythonAdapter("process_worker:Worker"), size=1) as pool:
        daemon = await pool.execute("start_daemon")
        forked = await pool.execute("fork_daemon")
        with open(f"/proc/{pool.workers()[0].pid}/stat") as file:
            keeper = file.read().rpartition(")")[2].split()[1]
        print(keeper, daemon, forked, flush=True)
        signal.pause()

asyncio.run(main())
"""


@contextlib.contextmanager
def process(mark: str | None) -> Iterator[int]:
    """A process that would live for ever, with a run's mark in its environment."""
    env = dict(os.environ) if mark is None else {**os.environ, RUN_VARIABLE: mark}
    with subprocess.Popen([sys.executable, "-c", PAUSE], env=env) as started:
        try:
            # Before it executes the program its environment is that of this process.
            wait_until(lambda: PAUSE in command_line(started.pid), "it has started")
            yield started.pid
        finally:
            started.kill()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def ended_process() -> int:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    return ended.pid


def found() -> dict[int, str]:
    return {orphan.pid: orphan.run_id for orphan in sweep_orphans(dry_run=True)}


@contextlib.contextmanager
def host_with_daemons() -> Iterator[tuple[int, int, list[int]]]:
    """A host, its keeper, and what its worker has started in sessions of their own."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", HOST],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as host:
        try:
            assert host.stdout is not None
            keeper, *daemons = map(int, host.stdout.readline().split())
            assert len(daemons) == 2
            yield host.pid, keeper, daemons
        finally:
            host.kill()


def kill_together(host: int, keeper: int) -> None:
    """Kill a host and its keeper such that neither sees the other's end."""
    os.kill(keeper, signal.SIGSTOP)
    os.kill(host, signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not alive(host) and not alive(keeper), "both are dead")


def test_67_what_host_and_keeper_left_when_they_were_killed_together_is_found_and_killed() -> None:
    with host_with_daemons() as (host, keeper, daemons):
        assert found().keys().isdisjoint(daemons), "their host lives"
        kill_together(host, keeper)
        assert all(map(alive, daemons)), "nobody was left to end them"
        looked = sweep_orphans(dry_run=True)
        assert set(daemons) <= {orphan.pid for orphan in looked}
        assert {orphan.host_pid for orphan in looked if orphan.pid in daemons} == {host}
        assert all(map(alive, daemons)), "looking kills nothing"
        assert set(daemons) <= {orphan.pid for orphan in sweep_orphans()}
        wait_until(lambda: not any(map(alive, daemons)), "they are killed")
        assert found().keys().isdisjoint(daemons)


async def test_67_the_next_keeper_ends_what_an_earlier_host_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with host_with_daemons() as (host, keeper, daemons):
        kill_together(host, keeper)
        async with CheckedPool(PythonAdapter("process_worker:Worker"), size=1) as pool:
            await until(lambda: not any(map(alive, daemons)), "they are killed")
            assert await pool.execute("pid")
            await until(lambda: "an earlier host had left" in caplog.text, "it is logged")


def test_67_a_host_whose_number_was_given_to_another_process_is_gone() -> None:
    mark = RunMark.new()
    assert not mark.host_is_gone()
    assert mark._replace(started=mark.started - 1).host_is_gone()
    with process(str(mark._replace(run_id="reused", started=mark.started - 1))) as pid:
        assert found() == {**found(), pid: "reused"}


@pytest.mark.parametrize(
    "change",
    [
        {},  # of this very process, which lives
        {"started": 0},  # where start times are not known
        {"namespaces": "pid:[1],time:[1]"},  # of another container
    ],
)
def test_67_what_may_have_a_living_host_is_left_alone(change: dict[str, Any]) -> None:
    mark = RunMark.new()._replace(run_id="mine")
    if change:
        mark = mark._replace(host_pid=ended_process(), **change)
    with process(str(mark)) as pid:
        assert pid not in {orphan.pid for orphan in sweep_orphans()}
        assert alive(pid)


@pytest.mark.parametrize(
    "text", [None, "", "x", "a/b/c/d", "a/1/-1/d", "a/1/2", "a/1/2/3/4", "///"]
)
def test_67_foreign_processes_and_junk_are_left_alone(text: str | None) -> None:
    with process(text) as pid:
        assert pid not in {orphan.pid for orphan in sweep_orphans()}
        assert alive(pid)


def test_67_a_frozen_keeper_of_a_killed_host_is_an_orphan_too() -> None:
    with host_with_daemons() as (host, keeper, daemons):
        os.kill(keeper, signal.SIGSTOP)
        everything = [keeper, *daemons, *children_of(keeper)]
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not alive(host), "the host is dead")
        assert {keeper, *daemons} <= {orphan.pid for orphan in sweep_orphans()}
        wait_until(lambda: not any(map(alive, everything)), "all are gone")


def test_a_mark_survives_its_way_through_the_environment() -> None:
    mark = RunMark.new()
    assert RunMark.parse(str(mark)) == mark
    assert mark.host_pid == os.getpid()
    assert RunMark.new().run_id != mark.run_id
