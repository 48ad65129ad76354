"""Programs as workers: how they are started, limited and supervised, and what is said of those that
are no workers. With real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until

from snakepit import Pool, ProgramAdapter, ResourceLimits
from snakepit.errors import (
    AdapterInitFailed,
    CallTimeout,
    ConfigurationError,
    EncodeError,
    PoolStartFailed,
    ResourceLimitExceeded,
    VersionMismatch,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.testing import kill_keeper, kill_worker, worker_pid

TINY = str(Path(__file__).parent / "tiny_worker.py")


def tiny(way: str = "serves", **options: Any) -> ProgramAdapter:
    return ProgramAdapter([sys.executable, TINY, way], **options)


@contextlib.asynccontextmanager
async def tiny_pool(size: int = 1, **options: Any) -> AsyncIterator[Pool]:
    async with Pool(tiny(**options), size=size, quarantine_after=None) as pool:
        yield pool


# --- a program that is a worker ------------------------------------------------------------------


async def test_a_program_that_speaks_the_protocol_serves_a_pool() -> None:
    async with tiny_pool(size=2, config={"locale": "de", "depth": 3}) as pool:
        calls = (pool.execute("echo", {"value": number}) for number in range(20))
        assert [value for value, _ in await asyncio.gather(*calls)] == list(range(20))
        welcome = await pool.execute("config")
        assert welcome["config"] == {"locale": "de", "depth": 3}
        assert welcome["target"].endswith("tiny_worker.py serves")
        assert (welcome["features"], welcome["sys_path"], welcome["limits"]) == ([], None, {})


async def test_a_worker_that_can_not_give_back_calls_is_sent_none_ahead() -> None:
    async with tiny_pool() as pool:
        for number in range(300):  # commands are known to be short
            await pool.execute("echo", {"value": number})
        calls = (pool.execute("echo", {"value": 1, "look": True}) for _ in range(20))
        assert await asyncio.gather(*calls) == [[1, False]] * 20


async def test_it_is_born_with_its_descriptors_environment_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_API_KEY", "sk-1")
    monkeypatch.chdir(tmp_path)
    adapter = tiny(env={"GREETING": "Hello"}, withhold=["*_API_KEY"])
    monkeypatch.chdir("/")
    async with Pool(adapter, size=1) as pool:
        facts = await pool.execute("facts")
        assert facts["cwd"] == str(tmp_path)
        assert facts["env"]["GREETING"] == "Hello"
        assert "SECRET_API_KEY" not in facts["env"]
        assert facts["env"]["SNAKEPIT_WORKER_PID"] == str(worker_pid(pool))
        # Its standard streams, its channels and mark, and the folder that it lists.
        assert facts["fds"][:6] == [0, 1, 2, 3, 4, 5]
        assert len(facts["fds"]) == 7


async def test_a_program_is_found_in_the_path_that_its_workers_get(tmp_path: Path) -> None:
    program = tmp_path / "tiny"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{TINY}' \"$@\"\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    adapter = ProgramAdapter(["tiny", "serves"], env={"PATH": path})
    async with Pool(adapter, size=1) as pool:
        assert await pool.execute("echo", {"value": 1}) == [1, False]
    assert repr(adapter) == "ProgramAdapter(['tiny', 'serves'])"


# --- supervision ---------------------------------------------------------------------------------


def limits_of(pid: int) -> dict[str, list[str]]:
    """The soft and the hard limits of a process, by the kernel's names."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


async def test_its_limits_are_set_before_it_starts() -> None:
    limits = ResourceLimits(memory=512 << 20, open_files=77)
    async with tiny_pool(limits=limits) as pool:
        found = limits_of(worker_pid(pool))
        assert found["Max data size"] == [str(512 << 20)] * 2
        assert found["Max open files"] == ["77", "77"]


async def test_a_program_that_has_used_up_its_cpu_time_is_ended() -> None:
    async with tiny_pool(limits=ResourceLimits(cpu_time=1)) as pool:
        with pytest.raises(ResourceLimitExceeded):
            await pool.execute("burn", timeout=30)


async def test_limits_that_can_not_be_had_fail_the_start() -> None:
    adapter = tiny(limits=ResourceLimits(open_files=1 << 40))
    with pytest.raises(PoolStartFailed, match=r"can't be executed.*limits"):
        async with Pool(adapter, size=1):
            pass


async def test_a_program_that_is_killed_or_late_is_replaced_with_all_it_has_started() -> None:
    async with tiny_pool() as pool:
        daemon = await pool.execute("daemon")
        first = kill_worker(pool)
        await until(lambda: pool.stats().ready == 1 and worker_pid(pool) != first, "replaced")
        await until(lambda: not alive(daemon), "what it has started is gone")
        with pytest.raises(CallTimeout):
            await pool.execute("burn", timeout=0.1)
        assert await pool.execute("echo", {"value": 2}) == [2, False]


async def test_a_killed_keeper_takes_its_programs_along_and_the_pool_goes_on() -> None:
    adapter = tiny()
    async with Pool(adapter, size=1) as pool:
        pid = worker_pid(pool)
        running = asyncio.create_task(pool.execute("burn"))
        await until(lambda: pool.stats().running == 1, "it runs")
        kill_keeper(adapter)
        with pytest.raises(WorkerLost):
            await running
        await until(lambda: not alive(pid), "it has ended")
        assert await pool.execute("echo", {"value": 3}) == [3, False]


async def test_an_adapter_serves_one_pool_at_a_time() -> None:
    adapter = tiny()
    async with Pool(adapter, size=1):
        with pytest.raises(AdapterInitFailed, match="used by another pool"):
            async with Pool(adapter, size=1):
                pass
    async with Pool(adapter, size=1) as pool:
        assert await pool.execute("echo", {"value": 4}) == [4, False]


# --- programs that are no workers ----------------------------------------------------------------

NO_WORKERS = {
    "exits": ["exited with 3", "no licence found"],
    "says nothing": ["not ready within 3 s", "said nothing on its channel", "waiting for input"],
    "greets and waits": ["not ready within 3 s", "has introduced itself"],
    "prints its frames": ["not ready within 3 s", "said nothing on its channel"],
    "writes garbage": ["broke the protocol", "type 47"],
    "speaks version 2": ["speaks the protocol versions [2], this host [1]", "its library"],
    "has odd versions": ["speaks the protocol versions [[1]"],
}


@pytest.mark.parametrize("way", NO_WORKERS)
async def test_what_is_wrong_with_a_program_is_told_by_its_name(way: str) -> None:
    slow = "3 s" in NO_WORKERS[way][0]
    # Long enough for an interpreter to start, and to say what it has to.
    pool = Pool(tiny(way), size=1, start_timeout=3.0 if slow else 30.0)
    with pytest.raises(PoolStartFailed) as caught:
        async with pool:
            pass
    for part in ["tiny_worker.py", *NO_WORKERS[way]]:
        assert part in str(caught.value)
    cause = caught.value.__cause__
    expected = VersionMismatch if "version" in way else WorkerStartFailed
    assert type(cause) is expected


async def test_a_program_that_is_gone_by_now_fails_the_start(tmp_path: Path) -> None:
    program = tmp_path / "tiny"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    adapter = ProgramAdapter([str(program)])
    program.unlink()
    with pytest.raises(PoolStartFailed, match="No such file") as caught:
        async with Pool(adapter, size=1):
            pass
    assert str(program) in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program"], "there is no program 'no-such-program'"),
        ([TINY], "there is no program"),  # it may not be executed
        ([], "command is empty"),
        ("node worker.js", "has to be a sequence of texts"),
        (["node", 7], "has to be a sequence of texts"),
    ],
)
def test_a_wrong_command_fails_where_it_is_given(command: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ProgramAdapter(command)


def test_other_wrong_options_fail_where_they_are_given() -> None:
    with pytest.raises(EncodeError, match="config"):
        tiny(config={"x": object()})
    with pytest.raises(ConfigurationError, match="env"):
        tiny(env={"A=B": "c"})
    with pytest.raises(ConfigurationError, match="limits"):
        tiny(limits=7)
