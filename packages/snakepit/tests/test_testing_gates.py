"""Gates hold whoever comes, tell who came, and never keep anybody for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from snakepit import Pool, PythonAdapter
from snakepit.testing import (
    Gate,
    alive,
    apass_gate,
    frozen,
    kill_keeper,
    kill_template,
    kill_worker,
    pass_gate,
    signal_process,
    until,
    wait_until,
    worker_pid,
)


async def test_a_command_waits_at_a_gate() -> None:
    async with Pool(PythonAdapter("pool_worker:Worker"), size=2) as pool:
        with Gate() as gate:
            args = [{"gate": gate.key, "note": note} for note in ("a", "b")]
            calls = [asyncio.create_task(pool.execute("wait_at_gate", arg)) for arg in args]
            arrivals = await gate.reached(2)
            assert {arrival.note for arrival in arrivals} == {"a", "b"}
            assert {arrival.pid for arrival in arrivals} == {info.pid for info in pool.workers()}
            assert not any(call.done() for call in calls)
            gate.open()
            assert await asyncio.gather(*calls) == ["a", "b"]


async def test_an_open_gate_lets_pass_and_a_second_opening_is_nothing() -> None:
    gate = Gate()
    gate.open()
    gate.open()
    pass_gate(gate.key)
    await apass_gate(gate.key)
    assert gate.is_open
    with pytest.raises(RuntimeError, match="open"):
        await gate.reached()


def test_those_who_were_never_looked_at_go_on_too() -> None:
    with Gate() as gate:
        threads = [threading.Thread(target=pass_gate, args=(gate.key,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert len(gate.wait_reached(1)) == 1
    for thread in threads:
        thread.join()


async def test_a_gate_that_nobody_reaches_says_who_came() -> None:
    with Gate() as gate:
        task = asyncio.create_task(apass_gate(gate.key, "early"))
        await gate.reached()
        with pytest.raises(TimeoutError, match=r"1 of 2 .*early"):
            await gate.reached(2, timeout=0.05)
        with pytest.raises(TimeoutError, match="1 of 2"):
            gate.wait_reached(2, timeout=0.01)
    await task


@pytest.mark.parametrize("start", ["", "x"])  # one of the two is cut inside of a character
async def test_a_long_note_is_cut_wherever_that_is(start: str) -> None:
    with Gate() as gate:
        task = asyncio.create_task(apass_gate(gate.key, start + "é" * 1000))
        [arrival] = await gate.reached()
        assert 400 < len(arrival.note) < 1000
        assert arrival.note == start + "é" * (len(arrival.note) - len(start))
    await task


async def test_a_cancelled_waiter_leaves() -> None:
    with Gate() as gate:
        task = asyncio.create_task(apass_gate(gate.key))
        await gate.reached()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def test_the_death_of_the_test_opens_its_gates() -> None:
    program = (
        "import sys; from snakepit.testing import Gate; g = Gate(); print(g.key, flush=True); "
        "g.wait_reached(); print('reached', flush=True); sys.stdin.read()"
    )
    test = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with test:
        assert test.stdout is not None
        parked = threading.Thread(target=pass_gate, args=(test.stdout.readline().strip(),))
        parked.start()
        assert test.stdout.readline() == "reached\n"
        assert parked.is_alive()
        test.kill()
        parked.join()


async def test_processes_can_be_killed_by_name() -> None:
    adapter = PythonAdapter("pool_worker:Worker")
    with pytest.raises(LookupError, match="no keeper"):
        kill_keeper(adapter)
    with pytest.raises(LookupError, match="no template"):
        kill_template(adapter)
    async with Pool(adapter, size=2) as pool:
        first, second = pool.workers()
        assert kill_worker(pool, second.worker_id) == second.pid
        assert kill_worker(pool) == first.pid
        await until(lambda: pool.stats().ready == 2, "both are replaced")
        assert not alive(kill_template(adapter))
        pids = {info.pid for info in pool.workers()}
        assert not alive(kill_keeper(adapter))
        await until(
            lambda: len(pool.workers()) == 2 and not pids & {w.pid for w in pool.workers()},
            "all are replaced",
        )
        with pytest.raises(LookupError, match="no-such"):
            worker_pid(pool, "no-such")


async def test_a_frozen_process_goes_on_afterwards() -> None:
    async with Pool(PythonAdapter("pool_worker:Worker"), size=1) as pool:
        with frozen(worker_pid(pool)):
            call = asyncio.create_task(pool.execute("add", {"x": 1}))
            await asyncio.sleep(0)
            assert not call.done()
        assert await call == 2


def test_a_signal_to_nobody_is_no_signal() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert signal_process(child.pid, signal.SIGTERM) is False
    with pytest.raises(ValueError, match="process group"):
        signal_process(0, signal.SIGTERM)
    with pytest.raises(LookupError), frozen(child.pid):
        pass


async def test_waiting_gives_up_and_says_for_what() -> None:
    with pytest.raises(TimeoutError, match=r"not within 0.01 s: the moon"):
        wait_until(lambda: False, "the moon", timeout=0.01)
    with pytest.raises(TimeoutError, match=r"not within 0.01 s: the moon"):
        await until(lambda: False, "the moon", timeout=0.01)
    assert alive(os.getpid())
