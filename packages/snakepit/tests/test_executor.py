"""The executor, used as the standard one is, and what it can do beyond."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import executor_programs as programs
import numpy as np
import pytest

from snakepit import ProcessPoolExecutor
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    DecodeError,
    PoolBroken,
    PoolClosed,
    PoolStartFailed,
    RemoteError,
    WorkerLost,
)

pytestmark = [
    pytest.mark.slow,
    # Workers of an executor write to this process's own streams.
    pytest.mark.usefixtures("silent_on_stderr"),
]

PROGRAM = Path(programs.__file__)


@pytest.fixture
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(max_workers=2) as executor:
        yield executor


def until_it_exists(path: Path) -> None:
    exists = threading.Event()
    while not path.exists():
        exists.wait(0.005)


def test_it_is_an_executor(executor: ProcessPoolExecutor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    futures = [executor.submit(programs.square, number) for number in range(20)]
    assert all(isinstance(future, Future) for future in futures)
    assert {future.result() for future in as_completed(futures)} == {n * n for n in range(20)}
    done, pending = wait(futures)
    assert (len(done), pending) == (20, set())
    assert list(executor.map(programs.square, range(50), chunksize=7)) == [n * n for n in range(50)]
    assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
    assert next(executor.map(programs.square, iter(int, 1), buffersize=3)) == 0
    assert executor.submit(programs.pid).result() != os.getpid()
    assert executor.submit(programs.parent).result() == (os.getpid(), True)


async def test_it_runs_beside_an_event_loop(executor: ProcessPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    calls = (loop.run_in_executor(executor, programs.square, n) for n in range(10))
    assert await asyncio.gather(*calls) == [n * n for n in range(10)]


def test_calls_come_from_any_thread_and_from_callbacks(executor: ProcessPoolExecutor) -> None:
    results: list[int] = []
    called_back: Future[int] = Future()

    def submit() -> None:
        results.append(executor.submit(programs.square, 3).result())

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [9] * 8

    def chain(_: Future[int]) -> None:
        following = executor.submit(programs.square, 4)
        following.add_done_callback(lambda future: called_back.set_result(future.result()))

    executor.submit(programs.square, 3).add_done_callback(chain)
    assert called_back.result(30) == 16


def test_a_death_costs_its_own_call_alone(executor: ProcessPoolExecutor) -> None:
    futures = [executor.submit(programs.square, number) for number in range(5)]
    dead = executor.submit(programs.die)
    futures += [executor.submit(programs.square, number) for number in range(5, 10)]
    with pytest.raises(WorkerLost, match="SIGKILL") as caught:
        dead.result()
    assert isinstance(caught.value, BrokenExecutor)
    assert [future.result() for future in futures] == [n * n for n in range(10)]
    assert executor.submit(programs.square, 3).result() == 9


def test_a_program_goes_on_under_kills_where_the_standard_one_breaks() -> None:
    good = {
        kind: subprocess.run(
            [sys.executable, PROGRAM, "kill_now_and_then", kind, "100"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        for kind in ("snakepit", "standard")
    }
    assert good["snakepit"].stdout == "90\n", good["snakepit"].stderr
    assert int(good["standard"].stdout) < 90


def test_a_timeout_stops_the_call(executor: ProcessPoolExecutor, tmp_path: Path) -> None:
    limited = executor.with_timeout(1.0)
    blocked = limited.submit(programs.block, str(tmp_path / "a"))
    quick = limited.submit(programs.square, 2)
    with pytest.raises(CallTimeout, match="'block'") as caught:
        blocked.result()
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.ran_s or 0.0) > 0.99
    assert quick.result() == 4
    assert list(limited.map(programs.square, range(3))) == [0, 1, 4]


def test_a_call_that_runs_can_be_stopped(executor: ProcessPoolExecutor, tmp_path: Path) -> None:
    started = tmp_path / "started"
    running = executor.submit(programs.block, str(started))
    until_it_exists(started)
    assert not running.cancel()
    executor.stop(running)
    with pytest.raises(CancelledError):
        running.result(30)
    assert executor.submit(programs.square, 3).result() == 9


def test_errors_keep_their_type_and_show_where_they_were_raised(
    executor: ProcessPoolExecutor,
) -> None:
    with pytest.raises(ValueError, match=r"^wrong$") as caught:
        executor.submit(programs.raise_value_error, "wrong").result()
    assert "raise_value_error" in str(caught.value.__cause__)
    with pytest.raises(RemoteError, match="1 and 2") as odd:
        executor.submit(programs.raise_odd_error).result()
    assert odd.value.remote_type == "executor_programs.OddError"


def test_what_can_not_be_pickled_is_the_futures_error(executor: ProcessPoolExecutor) -> None:
    def local() -> None:
        """Can't be found by its name."""

    for function, args, error in (
        (local, (), AttributeError),
        (programs.square, (programs.Unpicklable(),), TypeError),
        (programs.square, (programs.FailsToUnpickle(),), DecodeError),
        (programs.unpicklable, (), TypeError),
        (programs.fails_to_unpickle, (), DecodeError),
    ):
        future: Future[Any] = executor.submit(function, *args)
        with pytest.raises(error) as caught:
            future.result()
        notes = "".join(getattr(caught.value, "__notes__", ()))
        assert ("cloudpickle" in notes) == (function is local)
    assert executor.submit(programs.square, 3).result() == 9


def test_large_arrays_go_both_ways(executor: ProcessPoolExecutor) -> None:
    array = np.arange(1_000_000.0)
    doubled = executor.submit(np.multiply, array, 2.0).result()
    assert np.array_equal(doubled, array * 2)
    doubled[0] = 1.0  # the caller's own, as with the standard executor


def test_functions_that_have_no_name_go_with_cloudpickle() -> None:
    cloudpickle: Any = pytest.importorskip("cloudpickle")
    with ProcessPoolExecutor(max_workers=1, pickler=cloudpickle) as executor:
        factor = 3
        assert executor.submit(lambda number: number * factor, 5).result() == 15
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 // 0).result()


def test_an_initializer_runs_in_each_worker() -> None:
    options: Any = {"initializer": programs.set_state, "initargs": ("a", 1)}
    with ProcessPoolExecutor(max_workers=2, max_tasks_per_child=2, **options) as executor:
        assert list(executor.map(_state, range(6))) == [["a", 1]] * 6
        pids = [executor.submit(programs.pid).result() for _ in range(5)]
        assert max(map(pids.count, pids)) <= 2


def _state(_: int) -> list[Any]:
    return programs.state()


def test_an_initializer_that_fails_breaks_the_executor() -> None:
    with ProcessPoolExecutor(max_workers=2, initializer=programs.fail_to_start) as executor:
        future = executor.submit(programs.pid)
        with pytest.raises(PoolStartFailed, match="no licence") as caught:
            future.result()
        assert isinstance(caught.value, BrokenExecutor)
        with pytest.raises(BrokenExecutor):
            executor.submit(programs.pid)


def test_shutdown_waits_or_cancels(tmp_path: Path) -> None:
    executor = ProcessPoolExecutor(max_workers=1)
    futures = [executor.submit(programs.square, number) for number in range(30)]
    executor.shutdown()
    assert [future.result() for future in futures] == [n * n for n in range(30)]
    with pytest.raises(RuntimeError, match="after shutdown") as caught:
        executor.submit(programs.square, 1)
    assert isinstance(caught.value, PoolClosed)
    executor = ProcessPoolExecutor(max_workers=1)
    started = tmp_path / "started"
    running = executor.submit(programs.block, str(started))
    until_it_exists(started)
    waiting = [executor.submit(programs.pid) for _ in range(5)]
    executor.kill_workers()
    with pytest.raises(PoolClosed):
        running.result(30)
    assert all(future.cancelled() for future in waiting)
    executor.shutdown()


def test_one_that_is_forgotten_ends_its_workers() -> None:
    executor = ProcessPoolExecutor(max_workers=1)
    worker = executor.submit(programs.pid).result()
    assert executor.submit(programs.pid).result() == worker
    engine = executor._engine
    del executor
    gc.collect()
    assert engine._loop is not None
    engine._loop.join()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_program_that_ends_without_a_shutdown_finishes_its_calls() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "forget", "-"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(map(int, done.stdout.split())) == [n * n for n in range(20)]
    assert done.stderr == ""


def test_an_interrupt_of_the_block_stops_its_calls(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "be_interrupted", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.endswith("KeyboardInterrupt\n"), done.stderr
    assert (tmp_path / "tidy").exists()


def test_a_program_from_standard_input_has_no_main_module_to_import() -> None:
    program = """
from snakepit import ProcessPoolExecutor
from snakepit.errors import DecodeError

def local():
    pass

with ProcessPoolExecutor(max_workers=1) as executor:
    print(executor.submit(abs, -1).result())
    try:
        executor.submit(local).result()
    except DecodeError as error:
        print("cloudpickle" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "1\nTrue\n", done.stderr


def test_an_executor_may_be_used_inside_of_a_worker(executor: ProcessPoolExecutor) -> None:
    assert executor.submit(programs.nested, 7).result() == 49


def test_a_forked_child_can_not_use_it(executor: ProcessPoolExecutor) -> None:
    assert executor.submit(programs.square, 3).result() == 9
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            executor.submit(programs.pid)
        except PoolBroken as error:
            os.write(write, type(error).__mro__[1].__name__.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    told = os.read(read, 100)
    os.close(read)
    assert told == b"PoolBroken"
    assert executor.submit(programs.square, 3).result() == 9


def test_wrong_arguments_are_refused_at_once() -> None:
    options: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"initializer": 1}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"timeout": -1.0}, ConfigurationError),
        ({"pickler": object()}, ConfigurationError),
        ({"mp_context": multiprocessing.get_context("fork")}, ValueError),
    ]
    for wrong, error in options:
        with pytest.raises(error) as caught:
            ProcessPoolExecutor(**wrong)
        assert isinstance(caught.value, ConfigurationError)
