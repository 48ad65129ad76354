"""What a pool makes of its size: by what it is told, the machine and the adapter."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool

from snakepit import Devices, Pool, PythonAdapter, ResourceLimits, Sizing
from snakepit.errors import ConfigurationError
from snakepit.hardware import usable_cpus
from snakepit.hardware.memory import Memory
from snakepit.supervision.sizing import default_size, sizing_of
from snakepit.testing import ScriptedAdapter

WORKER = "pool_worker:Worker"
MIB = 1 << 20


@pytest.fixture
def big_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processors, and memory for a hundred times 10 MiB."""
    monkeypatch.setattr("snakepit.supervision.sizing.usable_cpus", lambda: 8)
    monkeypatch.setattr(
        "snakepit.supervision.sizing.detect_memory", lambda: Memory(total=10**12, limit=1000 * MIB)
    )


@pytest.mark.usefixtures("big_machine")
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 8),
        ({"limits": ResourceLimits(cpu_time=5)}, 8),
        ({"limits": ResourceLimits(memory=100 * MIB)}, 8),
        ({"limits": ResourceLimits(memory=300 * MIB)}, 3),
        ({"limits": ResourceLimits(memory=3000 * MIB)}, 1),
        ({"devices": Devices([0, 1, 2])}, 3),
        ({"devices": Devices(range(10))}, 10),
        ({"devices": Devices([0, 1, 2], workers_per_device=4)}, 12),
        ({"devices": Devices([0, 1, 2, 3], devices_per_worker=2)}, 2),
        ({"devices": Devices([0], workers_per_device=None)}, 8),
        ({"devices": Devices([0, 1, 2]), "limits": ResourceLimits(memory=600 * MIB)}, 1),
    ],
)
def test_the_default_size_is_what_the_machine_has_room_for(
    options: dict[str, Any], size: int
) -> None:
    adapter = PythonAdapter(WORKER, **options)
    assert default_size(adapter) == size
    assert Pool(adapter).stats().size == size
    assert sizing_of(Sizing(), adapter) == Sizing(min=1, max=size)


def test_the_default_size_of_this_machine_is_its_processors() -> None:
    assert Pool(ScriptedAdapter({})).stats().size == usable_cpus()


def test_a_number_is_a_fixed_size() -> None:
    sizing = sizing_of(5, ScriptedAdapter({}))
    assert (sizing.min, sizing.most, sizing.spares) == (5, 5, 0)


@pytest.mark.usefixtures("big_machine")
def test_the_largest_size_is_at_least_the_smallest_and_leaves_room_for_spare_workers() -> None:
    assert sizing_of(Sizing(min=20), ScriptedAdapter({})).most == 20
    adapter = PythonAdapter(WORKER, devices=Devices([0, 1, 2, 3]))
    assert sizing_of(Sizing(spares=1), adapter).most == 3


@pytest.mark.parametrize(
    "size",
    [4, Sizing(min=4), Sizing(min=1, max=4), Sizing(min=3, max=3, spares=1), Sizing(spares=3)],
)
def test_more_workers_than_there_are_devices_for_are_refused(size: int | Sizing) -> None:
    adapter = PythonAdapter(WORKER, devices=Devices([0, 1, 2]))
    with pytest.raises(ConfigurationError, match="has devices for 3") as caught:
        Pool(adapter, size=size)
    assert caught.value.details["worker_limit"] == 3


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"min": 0}, "min"),
        ({"min": 2.0}, "min"),
        ({"max": 0}, "max"),
        ({"min": 3, "max": 2}, "max"),
        ({"max": True}, "max"),
        ({"spares": -1}, "spares"),
        ({"queue_wait": 0}, "queue_wait"),
        ({"idle": -1.0}, "idle"),
        ({"idle": float("nan")}, "idle"),
        ({"idle": timedelta(0)}, "idle"),
    ],
)
def test_impossible_sizings_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is"):
        Sizing(**options)


@pytest.mark.parametrize("size", [0, -3, 1.5, "4", True, object()])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="size is"):
        Pool(ScriptedAdapter({}), size=size)


# --- what follows the size -----------------------------------------------------------------------

CAPS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS"]


@pytest.mark.parametrize(
    ("size", "share", "start"),
    [
        (1, "16", "template"),
        (3, "5", "template"),
        (3, "5", "spawn"),
        (32, "1", "template"),
        (Sizing(min=1, max=4), "4", "template"),
    ],
)
async def test_25_native_threads_are_limited_to_a_share_of_the_processors_there_may_be_used(
    size: int | Sizing, share: str, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.adapters.process_adapter.usable_cpus", lambda: 16)
    for name in CAPS:
        monkeypatch.delenv(name, raising=False)
    async with CheckedPool(PythonAdapter(WORKER, start=start), size=size) as pool:
        limits = await pool.execute("environment", {"names": CAPS})
        assert limits == dict.fromkeys(CAPS, share)


async def test_25_a_resized_pools_thread_limits_follow_with_a_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakepit.adapters.process_adapter.usable_cpus", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    async def limit() -> str:
        found = await pool.execute("environment", {"names": ["OMP_NUM_THREADS"]})
        return str(found["OMP_NUM_THREADS"])

    async with CheckedPool(PythonAdapter(WORKER), size=2) as pool:
        assert await limit() == "8"
        pool.resize(4)
        await pool.await_ready(10.0)
        assert {await limit() for _ in range(8)} == {"8"}
        await pool.reload()
        assert {await limit() for _ in range(8)} == {"4"}


QUOTA = """
import asyncio
from snakepit import Pool, PythonAdapter

async def main():
    async with Pool(PythonAdapter("pool_worker:Worker")) as pool:
        found = await pool.execute("environment", {"names": ["OMP_NUM_THREADS"]})
        print(pool.stats().size, found["OMP_NUM_THREADS"])

asyncio.run(main())
"""


def quota_group() -> Path | None:
    """A control group of version 1 or 2 that this test may make and set a quota to, if any."""
    for parent in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        group = Path(parent) / f"snakepit-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if any((group / name).exists() for name in ("cpu.max", "cpu.cfs_quota_us")):
            return group
        group.rmdir()
    return None


def test_25_a_pool_in_a_control_group_with_a_quota_has_as_many_workers_as_that_allows() -> None:
    """Real control groups, where the machine lets this test make one."""
    group = quota_group()
    if group is None:
        pytest.skip("this machine lets nobody make control groups; test_cgroups.py has copies")
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("50000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("50000")
        ended = subprocess.run(
            ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"',
             str(group), sys.executable, "-c", QUOTA],
            capture_output=True, text=True, timeout=50, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )  # fmt: skip
    finally:
        _remove(group)
    assert (ended.stdout, ended.returncode) == ("1 1\n", 0), ended.stderr


def _remove(group: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()
