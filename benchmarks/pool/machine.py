"""What the kernel knows of this machine and of a family of processes. Linux only."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Processor time of a set of processes, in seconds.

    ``total`` is the scheduler's account and exact; ``system``, the kernel's share of it, is counted
    in ticks of 10 ms.
    """

    total: float
    system: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.total - other.total, self.system - other.system)


def facts() -> dict[str, object]:
    """What a reader has to know of the machine to judge the figures."""
    cpus = sorted(os.sched_getaffinity(0))
    return {
        "cpus": len(cpus),
        "model": _cpu_model(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def descendants(root: int) -> set[int]:
    """The processes below ``root``, itself not counted."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    ahead = [root]
    while ahead:
        new = set(children.get(ahead.pop(), ())) - found
        found |= new
        ahead += new
    return found


def pin(pids: Iterable[int], cpus: Collection[int]) -> None:
    """Let processes run, with all their threads, on these processors only."""
    for pid in pids:
        for thread in _threads(pid):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, cpus)


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """What processes have used so far; one that has ended counts nothing."""
    total = system = 0.0
    for pid in pids:
        for thread in _threads(pid):
            task = PROC / str(pid) / "task" / str(thread)
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                system += int(fields[12]) / _TICK
    return CpuTime(total, system)


def memory_mb(pid: int) -> dict[str, float]:
    """A process's own memory, and that plus its share of what it shares (PSS), in MB."""
    sizes: dict[str, int] = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"private": private / 1e6, "pss": sizes["Pss"] / 1e6}


def _parent(entry: Path) -> int | None:
    with contextlib.suppress(OSError):
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return None


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC / str(pid) / "task")]
    except OSError:
        return []


def _cpu_model() -> str:
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
