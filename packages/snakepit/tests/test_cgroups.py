"""What control groups allow, read from copies of the kernel's files as containers see them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.hardware.cgroups import cpu_quota, memory_limit, parse_cpu_max
from snakepit.hardware.cpu import usable_cpus
from snakepit.hardware.memory import detect_memory

GIB = 1 << 30


class Machine:
    """A folder with the files that a kernel shows."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def version_2(self, group: str = "/", top: str = "/", point: str = "/sys/fs/cgroup") -> None:
        self.write("/proc/self/cgroup", f"0::{group}\n")
        self.write(
            "/proc/self/mountinfo",
            "23 28 0:22 / /proc rw,nosuid - proc proc rw\n"
            f"35 24 0:30 {top} {point} rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        )

    def version_1(self, group: str = "/", top: str = "/") -> None:
        self.write(
            "/proc/self/cgroup",
            f"11:memory:{group}\n4:cpu,cpuacct:{group}\n1:name=systemd:{group}\n0::{group}\n",
        )
        self.write(
            "/proc/self/mountinfo",
            f"31 24 0:26 {top} /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
            f"36 31 0:31 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"37 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            f"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_25_version_2_in_a_container(machine: Machine) -> None:
    machine.version_2()
    machine.write("/sys/fs/cgroup/cpu.max", "150000 100000\n")
    machine.write("/sys/fs/cgroup/memory.max", f"{GIB}\n")
    assert cpu_quota(machine.root) == 1.5
    assert memory_limit(machine.root) == GIB


def test_25_version_2_on_a_host_the_lowest_limit_on_the_way_up_counts(machine: Machine) -> None:
    machine.version_2(group="/user.slice/user-1000.slice/app.service")
    machine.write("/sys/fs/cgroup/user.slice/user-1000.slice/app.service/cpu.max", "max 100000\n")
    machine.write("/sys/fs/cgroup/user.slice/user-1000.slice/cpu.max", "300000 100000\n")
    machine.write("/sys/fs/cgroup/user.slice/cpu.max", "800000 100000\n")
    machine.write("/sys/fs/cgroup/user.slice/memory.max", f"{4 * GIB}\n")
    machine.write("/sys/fs/cgroup/user.slice/user-1000.slice/app.service/memory.max", "max\n")
    assert cpu_quota(machine.root) == 3.0
    assert memory_limit(machine.root) == 4 * GIB


def test_25_version_1_in_a_container_that_sees_its_hosts_names(machine: Machine) -> None:
    """Without a namespace of its own: the group is named as on the host, and mounted as the top."""
    machine.version_1(group="/docker/0123abcd", top="/docker/0123abcd")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    assert cpu_quota(machine.root) == 2.5
    assert memory_limit(machine.root) == 2 * GIB


def test_25_version_1_below_the_top(machine: Machine) -> None:
    machine.version_1(group="/batch/job 7")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/batch/job 7/cpu.cfs_quota_us", "-1\n")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/batch/job 7/cpu.cfs_period_us", "100000\n")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us", "100000\n")
    machine.write("/sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us", "50000\n")
    machine.write("/sys/fs/cgroup/memory/batch/job 7/memory.limit_in_bytes", "9223372036854771712")
    assert cpu_quota(machine.root) == 2.0
    assert memory_limit(machine.root) is None


def test_25_a_group_that_is_named_from_outside_is_read_where_it_is_mounted(
    machine: Machine,
) -> None:
    machine.version_2(group="/../../kubepods/pod1")
    machine.write("/sys/fs/cgroup/cpu.max", "50000 100000")
    assert cpu_quota(machine.root) == 0.5
    assert usable_cpus(machine.root) == 1


def test_25_paths_with_blanks_are_escaped_in_the_kernels_list(machine: Machine) -> None:
    machine.version_2(point=r"/my\040groups")
    machine.write("/my groups/cpu.max", "70000 100000")
    assert cpu_quota(machine.root) == 0.7


@pytest.mark.parametrize(
    "text",
    ["", "max", "max 100000", "100000", "100000 0", "0 100000", "-1 100000", "a b", "1 2 3", "\0",
     "100000 100000 100000", "1e5 100000", b"\xff\xfe", f"{'9' * 50} 1"],
)  # fmt: skip
def test_25_a_quota_that_is_none_or_makes_no_sense_limits_nothing(
    machine: Machine, text: str | bytes
) -> None:
    machine.version_2()
    machine.write("/sys/fs/cgroup/cpu.max", text)
    machine.write("/sys/fs/cgroup/memory.max", text)
    assert cpu_quota(machine.root) is None
    assert usable_cpus(machine.root) == len(os.sched_getaffinity(0))


def test_25_without_any_of_the_files_nothing_is_limited(machine: Machine) -> None:
    assert cpu_quota(machine.root) is None
    assert memory_limit(machine.root) is None
    machine.version_2()
    assert cpu_quota(machine.root) is None
    (machine.root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # no file at all
    assert cpu_quota(machine.root) is None


def test_25_a_quota_beyond_the_processors_leaves_those(machine: Machine) -> None:
    machine.version_2()
    machine.write("/sys/fs/cgroup/cpu.max", "100000000 100000")
    assert cpu_quota(machine.root) == 1000.0
    assert usable_cpus(machine.root) == len(os.sched_getaffinity(0))


def test_25_the_affinity_mask_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_memory_of_a_container_is_its_limit_if_that_is_less(machine: Machine) -> None:
    machine.version_2()
    machine.write(
        "/proc/meminfo", f"MemTotal:  {8 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: 2048 kB\n"
    )
    machine.write("/sys/fs/cgroup/memory.max", f"{GIB}")
    memory = detect_memory(machine.root)
    assert (memory.total, memory.limit, memory.available) == (8 * GIB, GIB, 2 << 20)
    assert memory.usable == GIB
    machine.write("/sys/fs/cgroup/memory.max", f"{100 * GIB}")
    memory = detect_memory(machine.root)
    assert (memory.limit, memory.usable) == (None, 8 * GIB)


TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
LINES = st.lists(
    st.sampled_from(
        ["0::/", "0::/a/../..", "4:cpu:/a", "::", ":", "4:cpu", "x - y", "1 2 3 - cgroup a",
         "1 2 3 / /c r - cgroup2 a b", r"1 2 3 \999 /c r - cgroup a cpu"]
    ) | TEXT,
    max_size=8,
).map("\n".join)  # fmt: skip


@given(LINES, LINES, TEXT)
def test_25_whatever_the_files_hold_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, cgroup: str, mounts: str, limit: str
) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.write("/proc/self/cgroup", cgroup)
    machine.write("/proc/self/mountinfo", mounts)
    machine.write("/c/cpu.max", limit)
    machine.write("/c/memory.max", limit)
    quota = cpu_quota(machine.root)
    assert quota is None or quota > 0
    assert (memory_limit(machine.root) or 0) >= 0
    assert usable_cpus(machine.root) >= 1


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_25_a_quota_is_read_as_written(quota: int, period: int) -> None:
    assert parse_cpu_max(f"{quota} {period}\n") == quota / period
