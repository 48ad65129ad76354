"""What the kernel tells of a process: whether it runs, how much CPU time it took, its memory.

Read from ``/proc``. Where there is none, each function returns None: nothing is known.
"""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
# After the command's name, which may hold blanks: the state is the first field.
_STATE, _USER_TICKS, _SYSTEM_TICKS = 0, 11, 12
_RESIDENT_PAGES = 1
_PRIVATE = ("Private_Clean", "Private_Dirty", "Private_Hugetlb", "SwapPss")


class Vitals(NamedTuple):
    """A process at one moment.

    ``states``: one letter of the kernel's for each kind of thread state found (R runs or is ready
    to, S sleeps, D waits for a disk, T is stopped, t is traced). ``cpu_ticks``: CPU time of all its
    threads, in ticks of the kernel's clock. ``at``: the moment, in seconds of the monotonic clock.
    """

    states: frozenset[str]
    cpu_ticks: int
    at: float

    def cpu_share(self, before: Vitals) -> float:
        """How much of one processor it has had since then: 1.0 for all of its time."""
        spent = (self.cpu_ticks - before.cpu_ticks) * _TICK_SECONDS
        return spent / max(self.at - before.at, _TICK_SECONDS)


def read_vitals(pid: int) -> Vitals | None:
    """The states of a process's threads and its CPU time; None if that can't be read."""
    try:
        process = _stat_fields(f"/proc/{pid}/stat")
        # The first thread may sleep while another one waits for a free processor.
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    states = {process[_STATE]}
    for task in tasks:
        try:
            states.add(_stat_fields(f"/proc/{pid}/task/{task}/stat")[_STATE])
        except OSError:
            continue  # that thread has just ended
    ticks = int(process[_USER_TICKS]) + int(process[_SYSTEM_TICKS])
    return Vitals(frozenset(states), ticks, time.monotonic())


def _stat_fields(path: str) -> list[str]:
    # The kernel cuts a name of a process after 15 bytes, also in the middle of a character.
    with open(path, errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def resident_memory(pid: int) -> int:
    """Bytes of physical memory that a process uses, those it shares with others included.

    Raises:
        OSError: the process is gone, or this system has no ``/proc``.
    """
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[_RESIDENT_PAGES]) * _PAGE_BYTES


def private_memory(pid: int) -> int:
    """Bytes that only this process uses: the private pages of ``smaps_rollup``, and its swap.

    What it still shares with its template, and shared memory segments, do not count. The kernel
    walks the page table for this: milliseconds for a process of gigabytes.

    Raises:
        OSError: the process is gone, or may not be looked at.
    """
    total = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in _PRIVATE:
                total += int(value.split()[0]) * _KIB
    return total
