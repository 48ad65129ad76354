"""Platforms in several processes on one database, one after the other and at the same time."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import numpy as np
import pytest
from cryptography.fernet import Fernet
from platform_child import TIMES, WRITERS
from platform_hosts import heard, started
from running_platform import running_platform

from snakepit_grpc_bridge.errors import ToolNotFound, ValidationFailed

pytestmark = pytest.mark.slow

HOSTS, WORKERS = 2, 2


async def be_killed(url: str, key: str) -> None:
    """A host fills the session "s", and is killed."""
    async with started("build_up", url, key) as host:
        assert await heard(host) == {"done": True}
        assert await host.wait() == -signal.SIGKILL


async def test_counting_by_many_workers_of_two_hosts_is_exact(database_url: str) -> None:
    async with running_platform(storage=database_url) as platform:
        await platform.sessions.start("s", concurrency=HOSTS * WORKERS)
        async with contextlib.AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(started("count", database_url))
                for _ in range(HOSTS)
            ]
            assert [await heard(host) for host in hosts] == [{"ready": True}] * HOSTS
            for host in hosts:
                assert host.stdin is not None
                host.stdin.write(b"\n")
            pids = [pid for host in hosts for pid in (await heard(host))["pids"]]
            assert [await host.wait() for host in hosts] == [0] * HOSTS
        assert len(set(pids)) == HOSTS * WORKERS
        record = await platform.variables.get_variable("s", "n")
        assert record.value == HOSTS * WORKERS * WRITERS * TIMES
        assert record.version == record.value - 1  # each write was one


async def test_a_session_goes_on_after_its_host_was_killed(database_url: str) -> None:
    key = Fernet.generate_key().decode()
    await be_killed(database_url, key)
    async with running_platform(storage=database_url, secret_keys=[key]) as platform:
        variables, tools = platform.variables, platform.tools
        session = await platform.sessions.get("s")
        assert session.metadata == {"user": "ada"}
        assert (session.affinity, session.concurrency) == ("strict_queue", 3)
        assert await variables.get("s", "n") == 3
        with pytest.raises(ValidationFailed, match="at most 5"):
            await variables.set("s", "n", 6)
        assert [each.value for each in await variables.history("s", "n")] == [2, 1]
        assert (await variables.rollback("s", "n", 0)).value == 1
        assert np.array_equal(await variables.get("s", "weights"), np.arange(200_000.0))
        assert (await variables.get("s", "key")).reveal() == "hunter2-hunter2"
        assert await variables.get("s", "by_worker") == 1
        # A tool by its path is there again; a function of the process that died is not.
        assert await tools.call("rate", {}, "s") == 4.0
        assert [tool.name for tool in await tools.list(session_id="s")] == ["rate"]
        with pytest.raises(ToolNotFound):
            await tools.call("mine", {}, "s")


async def test_secrets_are_in_no_file_as_they_are(sqlite_url: str) -> None:
    await be_killed(sqlite_url, Fernet.generate_key().decode())
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    stored = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"strict_queue" in stored  # it is this that was looked through
    assert b"hunter2" not in stored
