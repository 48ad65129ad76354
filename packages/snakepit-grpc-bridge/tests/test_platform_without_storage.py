"""A whole platform, with workers, whose storage goes away under it and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from endless_work import EndlessWork
from full_disks import can_mount, on_a_disk_of_its_own
from platform_hosts import heard, started
from postgres_cluster import PostgresCluster
from running_platform import running_platform

from snakepit.errors import QueueTimeout
from snakepit.testing import Gate
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge import platform as platform_module
from snakepit_grpc_bridge.errors import OutcomeUnknown, StorageBusy, StorageUnavailable
from snakepit_grpc_bridge.storage import open_storage

pytestmark = pytest.mark.slow


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Platforms wait for a server that is away for half a second, not for five."""
    monkeypatch.setattr(platform_module, "open_storage", partial(open_storage, timeout=0.5))


@contextlib.contextmanager
def ended(cluster: PostgresCluster, how: signal.Signals) -> Iterator[None]:
    """For the block, the server is not there."""
    cluster.stop(how)
    try:
        yield
    finally:
        cluster.start()


AWAY = {
    "stopped": lambda cluster: ended(cluster, signal.SIGINT),
    "crashed": lambda cluster: ended(cluster, signal.SIGQUIT),
    "frozen": PostgresCluster.frozen,
}


@contextlib.asynccontextmanager
async def calls_under_way(
    platform: Platform, gate: Gate
) -> AsyncIterator[asyncio.Future[tuple[int, int]]]:
    """Two calls that run, one in the session "s" and one without, and wait for a gate."""
    call = partial(platform.python.call, "state_programs.passes", [gate.key])
    calls = asyncio.gather(call(session_id="s"), call())
    await gate.reached(2)
    yield calls
    await calls


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", AWAY)
async def test_a_server_that_goes_away_under_a_platform(
    own_cluster: PostgresCluster, how: str
) -> None:
    url = own_cluster.url(own_cluster.new_database())
    async with running_platform(storage=url, workers=4) as platform:
        released = asyncio.Event()

        async def release(session_id: str) -> None:
            if session_id == "short":
                released.set()

        platform.sessions.on_close(release)
        workers = {worker.pid for worker in platform.pool.workers()}
        work = await EndlessWork.start(platform)
        with Gate() as gate:
            async with calls_under_way(platform, gate) as calls:
                await platform.sessions.start("short", ttl=1)
                with AWAY[how](own_cluster):
                    await work.fails()
                    gate.open()
                    # They need nothing of the storage, and so don't wait for it.
                    assert set(await calls) <= workers
        await work.is_done()
        await released.wait()
        await work.stop()
        await work.check()
        assert {worker.pid for worker in platform.pool.workers()} == workers
        assert platform.pool.stats().workers_lost == 0
    told = {type(reason) for reason in work.reasons()}
    assert StorageUnavailable in told
    assert told <= {StorageUnavailable, StorageBusy, OutcomeUnknown}


async def test_a_call_does_not_wait_for_the_storage_beyond_its_own_time(
    own_cluster: PostgresCluster,
) -> None:
    """The storage itself would wait for longer, and end with another error."""
    url = own_cluster.url(own_cluster.new_database())
    async with running_platform(storage=url) as platform:
        await platform.sessions.start("s")
        with own_cluster.frozen():
            for session_id in ("s", None):
                with pytest.raises(QueueTimeout, match="storage did not answer"):
                    await platform.python.call(
                        "state_programs.pid", session_id=session_id, timeout=0.3
                    )
        assert await platform.python.call("state_programs.pid", session_id="s")


@pytest.mark.parametrize(
    ("how", "reason"), [("full_disk", "storage_full"), ("limited_files", "storage_unavailable")]
)
async def test_no_room_for_what_a_platform_writes(tmp_path: Path, how: str, reason: str) -> None:
    disk: tuple[str, ...] = ()
    if how == "full_disk":
        if not can_mount():
            pytest.skip("a small disk can't be mounted here (unshare --mount)")
        disk = on_a_disk_of_its_own(tmp_path, 100_000_000)
    async with started("fill", f"sqlite:///{tmp_path}/state.db", how, prefix=disk) as host:
        said = await heard(host)
        assert await host.wait() == 0
    assert said["reasons"] == [reason]
    assert set(said["read"]) <= {60_000, 2_000_000}
    assert said["called"]
    assert said["lost"] == 0
