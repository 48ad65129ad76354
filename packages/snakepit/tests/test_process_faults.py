"""What the tree of processes survives. Numbers are those of the scenarios in docs/faults.md."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool
from processes import alive, until, until_computing, wait_until

from snakepit import Pool, PythonAdapter
from snakepit.adapters import process_adapter
from snakepit.errors import CallTimeout, WorkerLost
from snakepit.processes import template_client, tree
from snakepit.processes.linux import children_of
from snakepit.testing import Gate, frozen

WORKER = "process_worker:Worker"


def new_pool(**options: Any) -> Pool:
    adapter = {name: options.pop(name) for name in ("start", "python") if name in options}
    return CheckedPool(PythonAdapter(WORKER, **adapter), **{"size": 2, **options})


def pids_of(pool: Pool) -> set[int]:
    return {info.pid for info in pool.workers() if info.pid is not None}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def keeper_of(pool: Pool) -> int:
    return parent_of(next(iter(pids_of(pool))))


def template_of(pool: Pool) -> int:
    (template,) = set(children_of(keeper_of(pool))) - pids_of(pool)
    return template


async def until_full(pool: Pool, *, without: set[int]) -> None:
    """Wait until all workers are ready, and none of them is in ``without``."""

    def full() -> bool:
        return len(pids_of(pool)) == pool.stats().size and not pids_of(pool) & without

    await until(full, "the pool is at its size again")


async def until_nothing_else_runs(pool: Pool) -> None:
    """Wait until below the keeper there are the pool's workers and one template, no others."""

    def settled() -> bool:
        return len(children_of(keeper_of(pool))) == pool.stats().size + 1

    await until(settled, "no doubled workers")


# --- the keeper as a backstop --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["spin", "hold_gil"])
async def test_14_a_late_call_is_ended_though_the_hosts_loop_is_blocked(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_adapter, "_BACKSTOP_DELAY", 0.3)
    async with new_pool(cancel_grace=0.1) as pool:
        late_pid = await pool.execute("pid", session_id="late")
        (quick_pid,) = pids_of(pool) - {late_pid}
        late = asyncio.create_task(pool.execute(command, session_id="late", timeout=1.0))
        quick = asyncio.create_task(pool.execute("pid", timeout=1.0))
        await asyncio.sleep(0)
        assert pool.stats().running == 2, "both are sent"
        # Blocks the loop: no timer of the host runs until the keeper has done it.
        wait_until(lambda: not alive(late_pid), "the keeper kills the late worker")
        assert alive(quick_pid), "a result that the host has not read is not late"
        with pytest.raises(CallTimeout):
            await late
        assert await quick == quick_pid
        await until_full(pool, without={late_pid})
        assert alive(quick_pid)


async def test_with_concurrency_the_keeper_names_its_reason_to_the_other_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_adapter, "_BACKSTOP_DELAY", 0.3)
    async with new_pool(size=1, concurrency=2, cancel_grace=0.1) as pool:
        pid = await pool.execute("pid")
        late = asyncio.create_task(pool.execute("spin", timeout=0.2))
        sibling = asyncio.create_task(pool.execute("spin"))
        await asyncio.sleep(0)
        wait_until(lambda: not alive(pid), "the keeper kills the worker")
        with pytest.raises(CallTimeout):
            await late
        with pytest.raises(WorkerLost, match="past its deadline"):
            await sibling


# --- the keeper and the template -----------------------------------------------------------------


async def test_9_a_keeper_that_dies_under_many_workers_costs_their_calls_and_not_the_pool() -> None:
    async with new_pool(size=10) as pool:
        before = pids_of(pool)
        daemon = await pool.execute("start_daemon")
        os.kill(keeper_of(pool), signal.SIGKILL)
        await until_full(pool, without=before)
        assert await pool.execute("pid") in pids_of(pool)
        await until(lambda: not any(map(alive, before)), "the old ones died with their parent")
        await until(lambda: not alive(daemon), "the next keeper ends what was left")
        await until_nothing_else_runs(pool)


async def test_9_calls_that_end_with_the_keeper_are_not_taken_for_what_kills_workers() -> None:
    async with CheckedPool(PythonAdapter("pool_worker:Worker"), size=2) as pool:
        before = pids_of(pool)
        with Gate() as gate:
            args = {"gate": gate.key}
            calls = [asyncio.create_task(pool.execute("wait_at_gate", args)) for _ in range(2)]
            await gate.reached(2)
            os.kill(keeper_of(pool), signal.SIGKILL)
            for call in calls:
                with pytest.raises(WorkerLost, match="with its keeper process"):
                    await call
            await until_full(pool, without=before)
            gate.open()
            assert await pool.execute("wait_at_gate", args) == ""


async def test_9_a_frozen_keeper_is_replaced_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "_SPAWN_PATIENCE", 1.0)  # the next keeper has to start, too
    monkeypatch.setattr(tree, "_KILL_PATIENCE", 0.2)
    async with new_pool(cancel_grace=0.1) as pool:
        before = pids_of(pool)
        keeper, template = keeper_of(pool), template_of(pool)
        os.kill(keeper, signal.SIGSTOP)
        # Without its help: a worker that does not stop is killed, and its successor forked.
        unwanted = asyncio.create_task(pool.execute("hold_gil"))
        await until_computing(pool)
        unwanted.cancel()
        await until(lambda: not all(map(alive, before)), "the stuck worker is killed")
        stuck = {pid for pid in before if not alive(pid)}
        await until_full(pool, without=stuck)
        assert alive(keeper)
        assert alive(template)
        # Another template takes a keeper.
        now = pids_of(pool)
        os.kill(template, signal.SIGKILL)
        os.kill(next(iter(now)), signal.SIGKILL)
        await until_full(pool, without=now)
        assert await pool.execute("pid") not in now
        await until(lambda: not alive(keeper), "the frozen keeper is gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_9_a_template_that_is_lost_while_it_forks_answers_each_request_once(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number == signal.SIGSTOP:
        monkeypatch.setattr(template_client, "_FORK_PATIENCE", 1.0)
    async with new_pool(size=4) as pool:
        before = pids_of(pool)
        template = template_of(pool)
        os.kill(template, signal.SIGSTOP)  # so that the requests wait in it
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().starting == 4, "all four are asked for")
        if number == signal.SIGKILL:
            os.kill(template, number)
        await until_full(pool, without=before)
        await until(lambda: not alive(template), "the lost template is gone")
        assert await pool.execute("pid") in pids_of(pool)
        await until_nothing_else_runs(pool)


async def test_9_a_keeper_that_is_late_to_tell_how_a_worker_ended_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "_CAUSE_PATIENCE", 0.001)
    monkeypatch.setattr(tree, "_LATE_CAUSE_PATIENCE", 30.0)
    async with new_pool(size=1) as pool:
        with frozen(keeper_of(pool)):
            dying = asyncio.create_task(pool.execute("die"))
            await asyncio.wait([dying], timeout=0.2)
            assert not dying.done()
        with pytest.raises(WorkerLost) as caught:
            await dying
        assert (caught.value.signal, caught.value.reason) == ("SIGKILL", "crash")


async def test_9_a_keeper_that_never_tells_how_a_worker_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "_LATE_CAUSE_PATIENCE", 0.05)
    async with new_pool(size=1) as pool:
        with frozen(keeper_of(pool)):
            with pytest.raises(WorkerLost) as caught:
                await pool.execute("die")
            assert (caught.value.signal, caught.value.exit_code) == (None, None)
            assert "unknown cause" in str(caught.value)


async def test_9_a_template_that_dies_again_and_again_is_started_again() -> None:
    async with new_pool() as pool:
        keeper = keeper_of(pool)
        for _ in range(3):
            before = pids_of(pool)
            (template,) = set(children_of(keeper)) - before
            victim = next(iter(before))
            os.kill(template, signal.SIGKILL)
            os.kill(victim, signal.SIGKILL)
            await until_full(pool, without={victim})
            await until(lambda: len(children_of(keeper)) == 3, "two workers, one template")
            await pool.execute("pid")  # deaths with no call between them would end the pool


# --- what a worker is born with, and what it starts ----------------------------------------------


@pytest.mark.parametrize("start", ["template", "spawn"])
@pytest.mark.parametrize("python", [None, sys.executable])
async def test_7_a_worker_is_born_with_its_own_descriptors_and_no_others(
    start: str, python: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if python is not None:  # its path is its own
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        async with new_pool(size=3, start=start, python=python) as pool:
            for _ in range(3):
                found = await pool.execute("descriptors_at_birth")
                stdin, stdout, stderr, *others = found
                assert (stdin, stdout) == ("/dev/null", stderr), found
                kinds = sorted(name.partition(":")[0] for name in others)
                # Its two channels, its mark, the file for its stacks, both ends of the pipe that
                # wakes its main thread, and its output once more for the stacks of a crash.
                memory, pipes, sockets = ["/memfd"] * 2, ["pipe"] * 3, ["socket"] * 2
                assert kinds == [*memory, *pipes, *sockets], found
                own = {name for name in others if name.startswith("pipe")} - {stderr}
                assert len(own) == 1, found
                assert os.readlink(f"/proc/self/fd/{write}") not in found
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("command", ["start_child", "start_daemon"])
async def test_8_what_a_worker_has_started_ends_with_it(command: str) -> None:
    async with new_pool() as pool:
        pid = await pool.execute("pid", session_id="a")
        started = await pool.execute(command, session_id="a")
        assert parent_of(started) == pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(started), "it ends, also in a session of its own")
        await until_full(pool, without={pid})


async def test_8_a_fork_in_a_session_of_its_own_ends_when_its_worker_is_killed() -> None:
    async with new_pool(cancel_grace=0.1) as pool:
        pid = await pool.execute("pid", session_id="a")
        daemon = await pool.execute("fork_daemon", session_id="a")
        unwanted = asyncio.create_task(pool.execute("hold_gil", session_id="a"))
        await until_computing(pool)
        unwanted.cancel()
        await until(lambda: not alive(daemon) and not alive(pid), "it ends with its worker")


async def test_8_a_daemon_of_a_living_worker_is_left_alone() -> None:
    async with Pool(
        PythonAdapter(WORKER), size=2
    ) as pool:  # unchecked: it keeps that until its end
        first = await pool.execute("pid", session_id="a")
        (second,) = pids_of(pool) - {first}
        daemon = await pool.execute("start_daemon", session_id="a")
        os.kill(second, signal.SIGKILL)
        await until_full(pool, without={second})
        assert alive(daemon)
    await until(lambda: not alive(daemon), "it ends with its worker")
