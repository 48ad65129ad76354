"""Part P and its neighbours: what comes from a worker is data, and what a worker gets is chosen."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fault_pool import (
    Baseline,
    after_check,
    faulty_pool,
    fresh_calls,
    import_path,
    new_pool,
    outcomes_of,
    pids_of,
    processes,
    settled,
)
from hostile_values import hostile_value

from snakepit import HostCall
from snakepit.errors import (
    EncodeError,
    PoolBroken,
    RemoteError,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.supervision import restarts

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


class _Canary:
    """Its unpickling creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


async def test_6_a_death_with_locks_held_holds_up_nobody(tmp_path: Path) -> None:
    import fcntl

    lock = tmp_path / "lock"
    async with faulty_pool() as pool:
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("die_with_a_lock", {"path": str(lock)}, timeout=10)
        assert "half a line" in caught.value.last_output
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_8_a_worker_that_is_replaced_takes_its_family_with_it() -> None:
    for kind in ("child", "multiprocessing", "nested"):
        async with faulty_pool(size=1) as pool:
            family = await pool.execute("start_family", {"kind": kind})
            assert set(family) <= set(processes())
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"how": "kill"}, timeout=10)
            await settled(lambda f=set(family): not f & set(processes()), f"the {kind} is gone")  # type: ignore[misc]


@pytest.mark.parametrize("size", [6])
async def test_10_siblings_do_not_share_random_numbers(size: int) -> None:
    async with faulty_pool(size=size) as pool:
        calls = [
            asyncio.create_task(pool.execute("random_numbers_and_wait", timeout=20))
            for _ in range(size)
        ]
        results = await outcomes_of(*calls)
        numbers = [number for result in results for number in result]
        assert len(set(numbers)) == len(numbers)


async def test_10_fifty_forked_workers_all_answer_after_a_warm_template() -> None:
    async with faulty_pool(size=50, adapter={"preload": ["numpy"]}) as pool:
        calls = [asyncio.create_task(pool.execute("dot", timeout=50)) for _ in range(50)]
        assert await outcomes_of(*calls) == [100.0] * 50


async def test_12_one_deadly_call_among_good_ones_costs_only_itself() -> None:
    async with faulty_pool(queue_limit=1000) as pool:
        calls = [
            asyncio.create_task(
                pool.execute("die", {"how": "kill"}, timeout=30)
                if number % 20 == 0
                else pool.execute("echo", {"value": number}, timeout=30)
            )
            for number in range(200)
        ]
        for number, outcome in enumerate(await outcomes_of(*calls)):
            if number % 20 == 0:
                assert isinstance(outcome, WorkerLost), repr(outcome)
            else:
                assert outcome == number


async def test_12_starts_that_always_fail_end_in_a_broken_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker comes up; after that none does."""
    monkeypatch.setattr(restarts, "_LONGEST_DELAY", 0.1)
    flag = tmp_path / "constructed"
    pool = new_pool(
        size=1, target="once_worker:Once", adapter={"config": {"flag": str(flag)}, "start": "spawn"}
    )
    await pool.start()
    with pytest.raises(WorkerLost):
        await pool.execute("die", timeout=10)
    (error,) = await outcomes_of(asyncio.create_task(pool.execute("die", timeout=50)))
    assert isinstance(error, PoolBroken), repr(error)
    assert isinstance(error.__cause__, WorkerStartFailed)
    await pool.aclose()


async def test_116_pickled_bytes_stay_bytes_wherever_they_come_from(tmp_path: Path) -> None:
    """As a result, an item, an argument of a host function, an error, output."""
    canary = tmp_path / "canary"
    bomb = pickle.dumps(_Canary(str(canary)))
    received: list[Any] = []

    async def take(call: HostCall, value: Any) -> None:
        received.append(value)

    async with faulty_pool(host_functions={"take": take}) as pool:
        assert await pool.execute("echo", {"value": bomb}) == bomb
        assert await pool.execute("echo", {"value": {"deep": [bomb]}}) == {"deep": [bomb]}
        await pool.execute("call_host", {"name": "take", "args": {"value": bomb}})
        assert received == [bomb]
        with pytest.raises(RemoteError):
            await pool.execute("raise_bytes", {"value": bomb})
        assert [item async for item in pool.execute_stream("stream_of", {"value": bomb})] == [bomb]
    assert not canary.exists()


def test_116_nothing_of_the_library_imports_an_unpickler(tmp_path: Path) -> None:
    code = (
        "import sys, snakepit.pool.pool, snakepit.adapters.python_adapter, snakepit.wire.codec; "
        "print([name for name in ('cloudpickle', 'dill', 'shelve') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


async def test_117_a_result_that_can_not_travel_fails_its_call_only() -> None:
    async with faulty_pool() as pool:
        before = pids_of(pool)
        for kind in ("object", "lambda", "recursive", "deep", "surrogate", "nested"):
            with pytest.raises(EncodeError):
                await pool.execute("give", {"kind": kind}, timeout=10)
            stream = pool.execute_stream("stream_and_give", {"kind": kind}, timeout=10)
            assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(EncodeError):
                await anext(stream)
        assert pids_of(pool) == before


async def test_117_no_hook_of_a_value_is_ever_called(tmp_path: Path) -> None:
    """An object whose ``__reduce__`` would exit is refused without asking it."""
    async with faulty_pool() as pool:
        for _ in range(10):
            with pytest.raises(EncodeError):
                await pool.execute("give", {"kind": "reduce_exits"}, timeout=10)
            with pytest.raises(EncodeError):
                await pool.execute("echo", {"value": hostile_value("reduce_exits")})
            assert await pool.execute("echo", {"value": "good"}) == "good"


async def test_117_an_error_that_is_hard_to_report_is_reported() -> None:
    async with faulty_pool() as pool:
        before = pids_of(pool)
        for kind in ("broken_text", "two_arguments", "group", "lock", "generator"):
            with pytest.raises(RemoteError) as caught:
                await pool.execute("fail_with", {"kind": kind}, timeout=10)
            assert caught.value.remote_type
        assert pids_of(pool) == before


@pytest.mark.parametrize("start", ["template", "spawn"])
def test_120_files_in_the_working_directory_are_not_imported_in_place_of_libraries(
    start: str, tmp_path: Path
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.mkdir()
    good.mkdir()
    for name in ("json.py", "msgpack.py", "snakepit.py", "asyncio.py"):
        (bad / name).write_text("raise SystemExit('the wrong module')\n")
    (good / "program.py").write_text(
        "import asyncio\n"
        "from fault_pool import fresh_calls, new_pool\n"
        "async def main():\n"
        f"    async with new_pool(adapter={{'start': {start!r}}}) as pool:\n"
        "        await fresh_calls(pool)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, good / "program.py"],
        cwd=bad,
        env={**os.environ, "PYTHONPATH": import_path()},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_120_withheld_secrets_reach_no_worker_and_no_command_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = f"canary-{os.urandom(8).hex()}"
    monkeypatch.setenv("FAULT_API_KEY", token)
    monkeypatch.setenv("FAULT_PUBLIC", "shown")
    async with new_pool(adapter={"withhold": ("*_API_KEY",)}) as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        environment = await pool.execute("environment")
        assert "FAULT_API_KEY" not in environment
        assert environment["FAULT_PUBLIC"] == "shown"
        lines = [await asyncio.to_thread(command_line, pid) for pid in pids_of(pool)]
        assert all(lines)
        assert not any(token.encode() in line for line in lines)
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("die", {"how": "segv"}, timeout=10)
        assert token not in str(caught.value) + caught.value.last_output + caplog.text
        await after_check(pool, before)


async def test_120_a_mask_of_the_host_does_not_open_anything(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with faulty_pool() as pool:
            assert await pool.execute("add", {"x": 1}) == 2
    finally:
        os.umask(old)
