"""What a test must not leave behind: processes, descriptors, threads, tasks, shared memory.

A snapshot is cheap (one directory listing each), so one can be taken around every test. Details are
read only for what is new. Without /proc only threads and tasks are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")
# Inherited by every process that is started after a snapshot: finds those whose parents are gone.
_RUN_MARK = "SNAKEPIT_TEST_RUN"
_PAUSE = 0.01


class LeakKind(Enum):
    """What kind of thing was left behind."""

    PROCESS = "process"
    DESCRIPTOR = "descriptor"
    THREAD = "thread"
    TASK = "task"
    SHARED_MEMORY = "shared memory"
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that was left behind: its kind, what it is, and the pid if it is a process."""

    kind: LeakKind
    what: str
    pid: int | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} {self.what}"


class LeakError(AssertionError):
    """Something was left behind; ``leaks`` says what."""

    def __init__(self, leaks: Iterable[Leak]) -> None:
        self.leaks = tuple(leaks)
        super().__init__("left behind:\n" + "\n".join(f"  {leak}" for leak in self.leaks))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What exists at one moment."""

    pids: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    tasks: frozenset[asyncio.Task[object]]
    segments: frozenset[str]
    mappings: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at this process, at shared memory, and at the processes of the machine."""
        os.environ[_RUN_MARK] = str(os.getpid())
        return cls(
            pids=frozenset(int(name) for name in _listing(PROC) if name.isdecimal()),
            descriptors=_descriptors(os.getpid()),
            threads=frozenset(threading.enumerate()),
            tasks=_tasks(),
            segments=frozenset(_listing(SHARED_MEMORY)),
            mappings=_mappings(),
        )


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    parent: int
    state: str
    title: str


class LeakCheck:
    """Compares before with after; made by :func:`assert_no_leaks`, whose text says how to use it.

    Attributes:
        leaks: what was found at the end, also when the block itself raised.
    """

    def __init__(self, patience: float) -> None:
        self.leaks: tuple[Leak, ...] = ()
        self._patience = patience
        self._before: Snapshot | None = None

    def __enter__(self) -> LeakCheck:
        self._before = Snapshot.take()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            self._finish(find_leaks(self._before, self._patience), exc)

    async def __aenter__(self) -> LeakCheck:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            self._finish(await afind_leaks(self._before, self._patience), exc)

    def _finish(self, leaks: list[Leak], exc: BaseException | None) -> None:
        self.leaks = tuple(leaks)
        if leaks and exc is None:  # the error of the block itself tells more
            raise LeakError(leaks)


def assert_no_leaks(patience: float = 2.0) -> LeakCheck:
    """A context manager whose block may leave nothing behind in this process, nor other processes.

    It compares child processes and what they started (also those whose parents are gone), file
    descriptors, threads, tasks of the running loop, the files in /dev/shm and the mappings of
    shared memory. What is new has ``patience`` seconds to go away. Use ``async with`` in async
    code: ``with`` blocks the loop while it waits.

    Raises:
        LeakError: at the end of the block, unless the block raised; ``leaks`` lists what was found.

    >>> from snakepit.testing import assert_no_leaks
    >>> with assert_no_leaks():
    ...     open("/dev/null").close()

    In pytest, for every test, in conftest.py::

        @pytest.fixture(autouse=True)
        def nothing_is_left():
            with snakepit.testing.assert_no_leaks():
                yield
    """
    return LeakCheck(patience)


def find_leaks(before: Snapshot, patience: float) -> list[Leak]:
    """What is new since ``before``, and does not go away within ``patience`` seconds. Blocks."""
    end = time.perf_counter() + patience
    leaks = compare(before)
    if leaks:
        gc.collect()
    while leaks and time.perf_counter() < end:
        time.sleep(_PAUSE)
        leaks = compare(before)
    return leaks


async def afind_leaks(before: Snapshot, patience: float) -> list[Leak]:
    """As :func:`find_leaks`; the loop goes on meanwhile, so that tasks can end."""
    end = time.perf_counter() + patience
    leaks = compare(before)
    if leaks:
        gc.collect()
    while leaks and time.perf_counter() < end:
        await asyncio.sleep(_PAUSE)
        leaks = compare(before)
    return leaks


def compare(before: Snapshot) -> list[Leak]:
    """What is new since ``before``, now."""
    now = Snapshot.take()
    leaks = [
        Leak(LeakKind.PROCESS, f"{p.pid} ({p.state}): {p.title}", p.pid)
        for p in new_processes(before)
    ]
    leaks += [
        Leak(LeakKind.DESCRIPTOR, f"{fd}: {to}")
        for fd, to in sorted(now.descriptors - before.descriptors)
    ]
    leaks += [Leak(LeakKind.THREAD, thread.name) for thread in now.threads - before.threads]
    leaks += [Leak(LeakKind.TASK, repr(task)) for task in now.tasks - before.tasks]
    leaks += [
        Leak(LeakKind.SHARED_MEMORY, name)
        for name in sorted(now.segments - before.segments)
        if not _is_used_by_others(name)
    ]
    leaks += [Leak(LeakKind.MAPPING, name) for name in sorted(now.mappings - before.mappings)]
    return leaks


def kill_new_processes(before: Snapshot) -> None:
    """End what a failed test left, so that the tests after it start clean."""
    for process in new_processes(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        if process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0)


def new_processes(before: Snapshot) -> list[Process]:
    """The processes that came from this one since ``before``, and still exist."""
    new = {int(name) for name in _listing(PROC) if name.isdecimal()} - before.pids
    processes = {pid: process for pid in new if (process := _read(pid)) is not None}
    return [p for p in processes.values() if _is_ours(p, processes)]


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _descriptors(pid: int) -> frozenset[tuple[int, str]]:
    folder = PROC / str(pid) / "fd"
    found = set()
    for name in _listing(folder):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is gone again
            found.add((int(name), os.readlink(folder / name)))
    return frozenset(found)


def _tasks() -> frozenset[asyncio.Task[object]]:
    try:
        current = asyncio.current_task()
    except RuntimeError:
        return frozenset()
    return frozenset(task for task in asyncio.all_tasks() if task is not current)


def _mappings() -> frozenset[str]:
    """The shared memory that is mapped here, each segment by its inode and name."""
    try:
        lines = (PROC / "self/maps").read_bytes().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        b" ".join(line.split()[4:]).decode()
        for line in lines
        if b"/memfd:" in line or b"/dev/shm/" in line
    )


def _is_used_by_others(segment: str) -> bool:
    """Whether a process that did not come from this one uses a file in /dev/shm, which all share.

    (Looking at all processes is slow, and done only for new files.)
    """
    path = f"{SHARED_MEMORY}/{segment}"
    processes = {
        process.pid: process
        for name in _listing(PROC)
        if name.isdecimal() and (process := _read(int(name))) is not None
    }
    for pid in processes:
        top = pid
        while top in processes and top != os.getpid():
            top = processes[top].parent
        if top != os.getpid() and not _has_mark(pid) and _uses(pid, path):
            return True
    return False


def _uses(pid: int, path: str) -> bool:
    """Whether a process has a file open or mapped."""
    with contextlib.suppress(OSError):
        if any(to == path for _, to in _descriptors(pid)):
            return True
        return path.encode() in (PROC / str(pid) / "maps").read_bytes()
    return False


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
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
        title = (PROC / str(pid) / "cmdline").read_text(errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may hold any bytes, so the last one counts.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    title = title.replace("\0", " ").strip()
    return Process(pid=pid, parent=int(parent), state=state, title=title or name)


def _has_mark(pid: int) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{_RUN_MARK}={os.getpid()}".encode() in environment.split(b"\0")
