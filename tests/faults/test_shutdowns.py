"""Part G: the end of pools and programs, in order and out of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_pool import (
    WORKER,
    Baseline,
    answer,
    assert_serves,
    faulty_pool,
    fresh_calls,
    import_path,
    keeper_of,
    new_pool,
    outcomes_of,
    pids_of,
    resident_bytes,
    settled,
)
from host_kill import MARK, marked
from processes import alive, wait_until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import PoolClosed, PoolStartFailed, RemoteError, WorkerLost

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


async def test_57_a_drain_finishes_what_runs_and_what_waits_and_refuses_the_rest() -> None:
    gate = asyncio.Event()

    async def hold(call: HostCall) -> str:
        await gate.wait()
        return "held"

    pool = new_pool(host_functions={"hold": hold})
    await pool.start()
    await fresh_calls(pool)
    running = [asyncio.create_task(pool.execute("call_host", {"name": "hold"})) for _ in range(2)]
    await settled(lambda: pool.stats().running == 2, "two run")
    waiting = [asyncio.create_task(pool.execute("add", {"x": i})) for i in range(5)]
    await settled(lambda: pool.stats().queued == 5, "five wait")
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="is closing"):
        await pool.execute("add", {"x": 1})
    gate.set()
    assert await outcomes_of(*running) == ["held", "held"]
    assert await outcomes_of(*waiting) == [1, 2, 3, 4, 5]
    await closing


async def test_57_a_drain_ends_in_time_when_everything_is_stuck() -> None:
    pool = new_pool(size=3)
    await pool.start()
    await fresh_calls(pool)
    (nested,) = [await pool.execute("start_family", {"kind": "child"})]
    stuck = [asyncio.create_task(pool.execute(c)) for c in ("spin", "hold_gil", "sleep")]
    await settled(lambda: pool.stats().running == 3, "all are stuck")
    waiting = asyncio.create_task(pool.execute("echo", {"value": ["x" * 1000] * 10_000}))
    pids = [*pids_of(pool), keeper_of(pool), *nested]
    start = time.monotonic()
    await pool.aclose(timeout=0.5)
    assert time.monotonic() - start < 5.0
    errors = await outcomes_of(*stuck, waiting)
    assert all(isinstance(error, PoolClosed) for error in errors)
    assert [error.outcome for error in errors] == [*["unknown"] * 3, "none"]
    await settled(lambda: not any(map(alive, pids)), "the whole tree is gone")
    await assert_serves(PythonAdapter(WORKER))


@pytest.mark.parametrize("when", ["before it waits", "while calls run"])
async def test_57_a_second_call_cuts_a_drain_short(when: str) -> None:
    pool = new_pool(size=2)
    await pool.start()
    await fresh_calls(pool)
    pids = [*pids_of(pool), keeper_of(pool)]
    stuck = [asyncio.create_task(pool.execute(command)) for command in ("spin", "hold_gil")]
    await settled(lambda: pool.stats().running == 2, "both are stuck")
    draining = asyncio.create_task(pool.aclose(timeout=3600.0))
    if when == "while calls run":
        await settled(lambda: not pool.health().ready, "it waits for them")
    start = time.monotonic()
    await asyncio.gather(*(pool.aclose(drain=False) for _ in range(3)), draining)
    assert time.monotonic() - start < 5.0
    errors = await outcomes_of(*stuck)
    assert all(isinstance(error, PoolClosed) for error in errors)
    await settled(lambda: not any(map(alive, pids)), "the whole tree is gone")


async def test_59_a_pool_that_is_closed_right_after_a_call_answers_it() -> None:
    for number in range(12):
        pool = new_pool(size=1)
        await pool.start()
        call = asyncio.create_task(pool.execute("echo", {"value": number}))
        if number % 3:
            await asyncio.sleep(0)
        await pool.aclose(drain=number % 2 == 0)
        (outcome,) = await outcomes_of(call)
        assert outcome == number or isinstance(outcome, PoolClosed), repr(outcome)


async def test_59_closing_from_everywhere_at_once_ends_once() -> None:
    pool = new_pool()
    await pool.start()
    await fresh_calls(pool)
    pids = pids_of(pool)
    call = asyncio.create_task(pool.execute("add", {"x": 1}))
    closed: list[asyncio.Task[None]] = []
    call.add_done_callback(lambda _: closed.append(asyncio.create_task(pool.aclose())))
    await asyncio.sleep(0)
    os.kill(pids[0], signal.SIGKILL)
    tasks = [asyncio.create_task(pool.aclose()) for _ in range(3)]
    await asyncio.gather(*tasks)
    (outcome,) = await outcomes_of(call)
    assert outcome == 2 or isinstance(outcome, WorkerLost | PoolClosed), repr(outcome)
    await asyncio.gather(*closed)
    await pool.aclose()
    assert not any(map(alive, pids))
    with pytest.raises(PoolClosed):
        await pool.start()


SCRIPT = """
import asyncio, os, sys, threading
from fault_pool import new_pool

async def main(how):
    pool = new_pool()
    await pool.start()
    await pool.execute("add", {"x": 1})
    stream = pool.execute_stream("count", {"n": 10**9})
    await anext(stream)
    match how:
        case "returns": return
        case "raises": raise RuntimeError("the program's own")
        case "exits": sys.exit(7)
        case "os_exit": os._exit(8)
        case "collected":
            del pool, stream
            return
        case "in a thread":
            threading.Thread(target=lambda: sys.exit(9)).start()
            return

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("returns", 0),
        ("raises", 1),
        ("exits", 7),
        ("os_exit", 8),
        ("collected", 0),
        ("in a thread", 0),
    ],
)
def test_60_a_program_that_closes_nothing_ends_with_its_own_exit_code(
    how: str, code: int, tmp_path: Path
) -> None:
    ended, mark, seconds = run_script(SCRIPT, how)
    assert ended.returncode == code, ended.stderr
    assert seconds < 10.0
    wait_until(lambda: not marked(mark), "no orphan is left")
    noise = [line for line in ended.stderr.splitlines() if line and "RuntimeError" not in line]
    assert how == "raises" or noise == [], ended.stderr
    asyncio.run(assert_serves(PythonAdapter(WORKER)))


def run_script(code: str, *arguments: str, **options: Any) -> tuple[Any, str, float]:
    """Run a program that may leave processes; they have the mark that is returned."""
    mark = os.urandom(16).hex()
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, MARK: mark, "PYTHONPATH": import_path()},
        stdin=subprocess.DEVNULL,
        capture_output=options.pop("capture_output", True),
        text=True,
        timeout=50,
        check=False,
        **options,
    )
    return ended, mark, time.monotonic() - start


@pytest.mark.parametrize("outlet", ["closed pipe", "full disk"])
def test_60_a_broken_outlet_does_not_keep_a_program_from_ending(outlet: str) -> None:
    code = """
    import asyncio, logging, sys
    from fault_pool import new_pool

    async def main():
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
        async with new_pool() as pool:
            await pool.execute("print_much", {"megabytes": 1})

    logging.raiseExceptions = False
    try:
        asyncio.run(main())
    finally:
        import os
        os._exit(5)
    """
    if outlet == "closed pipe":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    try:
        ended, mark, _ = run_script(
            code, capture_output=False, stdout=write, stderr=subprocess.DEVNULL
        )
    finally:
        os.close(write)
    assert ended.returncode == 5
    wait_until(lambda: not marked(mark), "no orphan is left")


class Unruly(PythonAdapter):
    """An adapter whose last step fails."""

    def __init__(self, how: str) -> None:
        super().__init__("fault_worker:Victim")
        self.how = how

    async def terminate(self, reason: str) -> None:
        await super().terminate(reason)
        if self.how == "raises":
            raise RuntimeError("terminate failed")
        if self.how == "hangs":
            await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_62_a_step_of_the_end_that_fails_keeps_no_other_from_running(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from snakepit.supervision import workforce

    monkeypatch.setattr(workforce, "_TERMINATE_PATIENCE", 0.2)
    pool = Pool(Unruly(how), host_functions={"answer": answer})
    await pool.start()
    await fresh_calls(pool)
    pids = pids_of(pool)
    await asyncio.wait_for(pool.aclose(), 10)
    assert not any(map(alive, pids))
    assert "terminate() failed" in caplog.text
    await assert_serves(PythonAdapter(WORKER))


class _Bad(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("a handler that raises")


@pytest.fixture
def bad_log_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # or else each one is shown on stderr
    handler = _Bad()
    logging.getLogger("snakepit").addHandler(handler)
    yield
    logging.getLogger("snakepit").removeHandler(handler)


@pytest.mark.usefixtures("bad_log_handler")
async def test_63_a_log_handler_that_raises_stops_nothing() -> None:
    """It is called where deaths are handled, and where output is read."""
    async with faulty_pool() as pool:
        await pool.execute("print_much", {"megabytes": 1})
        with pytest.raises(WorkerLost):
            await pool.execute("die", {"how": "kill"}, timeout=10)
        assert await pool.execute("add", {"x": 1}, timeout=10) == 2


@pytest.mark.parametrize("kind", ["Exception", "CancelledError", "GeneratorExit"])
async def test_63_a_host_function_that_ends_badly_answers_its_worker(kind: str) -> None:
    errors: dict[str, BaseException] = {
        "Exception": ValueError("as told"),
        "CancelledError": asyncio.CancelledError(),
        "GeneratorExit": GeneratorExit(),
    }

    async def bad(call: HostCall) -> None:
        raise errors[kind]

    async with faulty_pool(host_functions={"bad": bad}) as pool:
        (outcome,) = await outcomes_of(
            asyncio.create_task(pool.execute("call_host", {"name": "bad"}, timeout=10))
        )
        assert isinstance(outcome, Exception), repr(outcome)
        assert not isinstance(outcome, asyncio.TimeoutError)


async def test_63_an_adapter_whose_starts_always_fail_later_breaks_the_pool_loudly() -> None:
    class Fickle(PythonAdapter):
        starts = 0

        async def start_worker(self, spec: Any) -> Any:
            self.starts += 1
            if self.starts > 1:
                raise RuntimeError("no more")
            return await super().start_worker(spec)

    adapter = Fickle("fault_worker:Victim")
    from snakepit.supervision import restarts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restarts, "_LONGEST_DELAY", 0.05)
        async with Pool(adapter, size=1, host_functions={"answer": answer}) as pool:
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"how": "kill"}, timeout=10)
            (error,) = await outcomes_of(
                asyncio.create_task(pool.execute("add", {"x": 1}, timeout=30))
            )
            assert type(error).__name__ == "PoolBroken", repr(error)
            assert "no more" in str(error.__cause__)


async def test_64_pools_opened_and_closed_leave_nothing() -> None:
    async with new_pool(size=1) as pool:
        await fresh_calls(pool)
    before, memory = Baseline.take(), 0
    for number in range(8):
        async with new_pool(size=1, name=f"pool{number}") as pool:
            await fresh_calls(pool)
        if number == 2:
            memory = resident_bytes()
    await settled(lambda: not before.excess(), "back at the baseline")
    assert resident_bytes() - memory < 4 << 20


async def test_64_ten_pools_at_once_share_nothing_but_the_keeper() -> None:
    pools = [new_pool(size=1, name=f"pool{number}") for number in range(10)]
    await asyncio.gather(*(pool.start() for pool in pools))
    assert len({keeper_of(pool) for pool in pools}) == 1
    pids = [pid for pool in pools for pid in pids_of(pool)]
    assert len(set(pids)) == 10
    results = [pool.execute("note", {"number": n}) for n, pool in enumerate(pools)]
    assert await asyncio.gather(*results) == list(range(10))
    assert [await pool.execute("noted") for pool in pools] == [[n] for n in range(10)]
    await asyncio.gather(*(pool.aclose() for pool in pools))
    assert not any(map(alive, pids))


async def test_64_two_hundred_replacements_in_one_pool_leave_nothing() -> None:
    async with faulty_pool() as pool:
        memory = 0
        for number in range(200):
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"how": "exit0"}, timeout=10)
            assert await pool.execute("add", {"x": number}, timeout=10) == number + 1
            if number == 50:
                memory = resident_bytes()
        assert resident_bytes() - memory < 6 << 20


async def test_66_a_pool_started_in_a_thread_outlives_that_thread() -> None:
    """The death signal follows the thread that forked; no worker may be forked by one that ends."""

    def run() -> list[int]:
        async def main() -> list[int]:
            async with new_pool() as pool:
                await fresh_calls(pool)
                await asyncio.to_thread(lambda: None)
                pids = pids_of(pool)
                with suppress(WorkerLost):
                    await pool.execute("die", {"how": "kill"}, timeout=10)
                await fresh_calls(pool)
                return pids

        return asyncio.run(main())

    assert len(await asyncio.to_thread(run)) == 2


async def test_66_the_workers_parent_is_the_keeper_and_they_die_with_it() -> None:
    async with faulty_pool(size=3) as pool:
        old = pids_of(pool)
        os.kill(keeper_of(pool), signal.SIGKILL)
        await settled(lambda: not any(map(alive, old)), "they died with their parent")
        await settled(lambda: len(pids_of(pool)) == 3, "they are back")


async def test_2_a_start_that_fails_in_one_pool_leaves_the_other_alone() -> None:
    async with faulty_pool(size=1) as pool:
        with pytest.raises(PoolStartFailed):
            await new_pool(adapter={"config": {"fault": "raise"}}, name="bad").start()
        assert await pool.execute("add", {"x": 1}) == 2


async def test_4_what_ends_a_program_ends_only_the_call() -> None:
    async with faulty_pool(size=1) as pool:
        before = pids_of(pool)
        for how in ("generator_exit", "system_exit", "interrupt", "base"):
            with pytest.raises(RemoteError):
                await pool.execute("raise_base", {"how": how}, timeout=10)
        assert pids_of(pool) == before
