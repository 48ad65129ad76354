"""The process table, and which of its processes belong to a pool."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snakepit import Pool


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    state: str


def processes() -> dict[int, Process]:
    """All processes of this machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                # A process may have any bytes as its name.
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            found[int(name)] = Process(int(name), int(parent), state)
    return found


def parent_of(pid: int) -> int:
    """The parent of a living process."""
    return processes()[pid].parent


def descendants(root: int) -> dict[int, Process]:
    """All processes below ``root``."""
    table = processes()

    def is_below(process: Process) -> bool:
        while process.parent != root:
            parent = table.get(process.parent)
            if parent is None:
                return False
            process = parent
        return True

    return {pid: process for pid, process in table.items() if pid != root and is_below(process)}


def pids_of(pool: Pool) -> list[int]:
    """The pids of a pool's workers."""
    return [int(info.pid or 0) for info in pool.workers()]


def keeper_of(pool: Pool) -> int:
    """The pid of the process that keeps a pool's workers; 0 while none of them lives."""
    table = processes()
    return next((table[pid].parent for pid in pids_of(pool) if pid in table), 0)


def template_of(pool: Pool) -> int | None:
    """The pid of the process that a pool's workers are forked from, if one is up."""
    children = [p.pid for p in processes().values() if p.parent == keeper_of(pool)]
    others = [pid for pid in children if pid not in pids_of(pool)]
    return others[0] if others else None


def strangers(*pools: Pool) -> list[Process]:
    """Processes below the keeper that are neither a worker of a pool nor its one template."""
    workers = {pid for pool in pools for pid in pids_of(pool)}
    keeper = keeper_of(pools[0])
    others = [p for pid, p in descendants(keeper or 1).items() if pid not in workers]
    templates = [p for p in others if p.parent == keeper and p.state != "Z"][: len(pools)]
    return [p for p in others if p not in templates]
