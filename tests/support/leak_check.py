"""What a test must not leave behind: processes, descriptors, threads, shared memory.

A snapshot is cheap (one directory listing each), so the fixture in the root conftest.py takes one
around every test. Details are read only for what is new. Without /proc only threads are compared.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")
WAIT = 2.0
# Inherited by every process a test starts: finds those whose parents are gone, too.
RUN_MARK = ("SNAKEPIT_TEST_RUN", str(os.getpid()))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What exists at one moment."""

    pids: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    segments: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(
            pids=frozenset(int(name) for name in _listing(PROC) if name.isdecimal()),
            descriptors=_descriptors(),
            threads=frozenset(threading.enumerate()),
            segments=frozenset(_listing(SHARED_MEMORY)),
        )


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    parent: int
    state: str
    title: str


def leaks_since(before: Snapshot) -> list[str]:
    """Describe what is new since `before`; it has up to two seconds to go away."""
    deadline = time.monotonic() + WAIT
    leaks = _compare(before)
    if leaks:
        gc.collect()
    while leaks and time.monotonic() < deadline:
        time.sleep(0.01)
        leaks = _compare(before)
    return leaks


def kill_new_processes(before: Snapshot) -> None:
    """End what a failed test left, so that the tests after it start clean."""
    for process in _new_processes(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        if process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0)


def _compare(before: Snapshot) -> list[str]:
    now = Snapshot.take()
    leaks = [f"process {p.pid} ({p.state}): {p.title}" for p in _new_processes(before)]
    leaks += [f"descriptor {fd}: {to}" for fd, to in sorted(now.descriptors - before.descriptors)]
    leaks += [f"thread {thread.name}" for thread in now.threads - before.threads]
    leaks += [f"shared memory {name}" for name in sorted(now.segments - before.segments)]
    return leaks


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for name in _listing(PROC / "self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is gone again
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(found)


def _new_processes(before: Snapshot) -> list[Process]:
    new = {int(name) for name in _listing(PROC) if name.isdecimal()} - before.pids
    processes = {pid: process for pid in new if (process := _read(pid)) is not None}
    return [p for p in processes.values() if _is_ours(p, processes)]


def _is_ours(process: Process, new: dict[int, Process]) -> bool:
    """Whether a new process comes from this one.

    A child of a process that was there before belongs to something that outlives the test, for
    example a pool in a module's fixture. One whose parents died has an outsider as its parent.
    """
    top = process
    while top.parent in new:
        top = new[top.parent]
    if top.parent == os.getpid():
        return True
    return _has_mark(process.pid) and not _has_mark(top.parent)


def _read(pid: int) -> Process | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        title = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    # The name is in parentheses and may hold any character, so the last one counts.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    return Process(pid=pid, parent=int(parent), state=state, title=title or name)


def _has_mark(pid: int) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return "=".join(RUN_MARK).encode() in environment.split(b"\0")
