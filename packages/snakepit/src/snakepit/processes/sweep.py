"""Processes that a killed host has left behind: found by the mark in their environment.

A keeper takes everything down when its host is gone. Something can survive only if keeper and host
are killed together: a process that a worker had started in a session of its own. The next keeper
that starts looks for such processes, and so can anybody with :func:`sweep_orphans`.

Every process of a run carries the run's mark, which names the host by process id and start time.
A process is an orphan when that host is gone. Only processes of the same user are looked at, and
only marks of the same pid namespace count: in another one the same number is another process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from snakepit.processes.linux import IS_LINUX
from snakepit.worker.marks import RUN_VARIABLE

# A process may fork while it is looked for.
_ROUNDS = 3
# Times and process ids mean something else in other namespaces of these kinds.
_NAMESPACES = ("pid", "time")
_ZOMBIE_STATES = "ZX"


class Orphan(NamedTuple):
    """A process whose host is gone.

    ``run_id`` is that of the host's keeper, ``title`` the command line.
    """

    pid: int
    run_id: str
    host_pid: int
    title: str


class RunMark(NamedTuple):
    """What the processes of a run have in their environment: their host, and where its process id
    and start time mean something. ``started`` is in the kernel's ticks since boot.
    """

    run_id: str
    host_pid: int
    started: int
    namespaces: str

    @classmethod
    def new(cls) -> RunMark:
        """The mark of a run whose host is this process."""
        pid = os.getpid()
        # 0 where it can't be known: then nobody may conclude that this host is gone.
        started = _start_time(pid) if _proc_shows_own_pids() else None
        return cls(os.urandom(8).hex(), pid, started or 0, _own_namespaces())

    @classmethod
    def parse(cls, text: str) -> RunMark | None:
        """A mark from its text; None if it is none."""
        parts = text.split("/")
        if len(parts) != len(cls._fields) or not (parts[1].isdecimal() and parts[2].isdecimal()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]), parts[3])

    def __str__(self) -> str:
        return "/".join(map(str, self))

    def host_is_gone(self) -> bool:
        """Whether the host of this run has ended, as far as this process can tell."""
        return (
            self.started > 0
            and self.namespaces == _own_namespaces()
            and _start_time(self.host_pid) != self.started
        )


def sweep_orphans(*, dry_run: bool = False) -> list[Orphan]:
    """Kill what earlier hosts of this user have left; return what was found. Linux only.

    Processes of a host that lives are never touched. Keepers do this by themselves when they start;
    this is for looking (``dry_run=True``), and for clearing up without starting a pool. Reads
    ``/proc`` once, in some milliseconds.

    Example::

        for orphan in snakepit.sweep_orphans(dry_run=True):
            print(orphan.pid, orphan.title)
    """
    found: dict[int, Orphan] = {}
    for _ in range(1 if dry_run else _ROUNDS):
        orphans = [orphan for orphan in look_for_orphans() if orphan is not None]
        if not orphans:
            break
        for orphan in orphans:
            found[orphan.pid] = orphan
            if not dry_run:
                kill_orphan(orphan)
    return list(found.values())


def look_for_orphans(lost_runs: Sequence[str] = ()) -> Iterator[Orphan | None]:
    """Look at one process a step: an orphan, or None.

    ``lost_runs`` are known to have ended, though their host lives.
    """
    if not (IS_LINUX and _proc_shows_own_pids()):
        return
    user = os.geteuid()
    # A host that runs in a worker of a dead host is an orphan itself. It is not the one to judge
    # that, and neither is its keeper.
    own = {environment_of(pid).get(RUN_VARIABLE) for pid in (os.getpid(), os.getppid())}
    gone = dict.fromkeys(lost_runs, True)
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal() and _is_of(user, entry):
                yield _orphan(int(entry.name), own, gone)


def _is_of(user: int, entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_uid == user
    except OSError:
        return False  # it has ended


def _orphan(pid: int, own: set[str | None], gone: dict[str, bool]) -> Orphan | None:
    text = environment_of(pid).get(RUN_VARIABLE)
    mark = None if text is None or text in own else RunMark.parse(text)
    if mark is None:
        return None
    if mark.run_id not in gone:
        gone[mark.run_id] = mark.host_is_gone()
    if not gone[mark.run_id] or _has_ended(pid):
        return None
    return Orphan(pid, mark.run_id, mark.host_pid, _title_of(pid))


def kill_orphan(orphan: Orphan) -> None:
    """Kill a process that was found to be an orphan, unless its number is another's by now."""
    try:
        process = os.pidfd_open(orphan.pid)
    except OSError:
        return
    try:
        mark = RunMark.parse(environment_of(orphan.pid).get(RUN_VARIABLE, ""))
        if mark is not None and mark.run_id == orphan.run_id:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process of this user was started with; empty if that can't be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _proc_shows_own_pids() -> bool:
    """Whether /proc is mounted, and for the namespace that this process gets its pid from."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _own_namespaces() -> str:
    found = []
    for kind in _NAMESPACES:
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/ns/{kind}"))
    return ",".join(found)


def _stat_fields(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            # The name is in parentheses and may hold any bytes, so the last one counts.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _has_ended(pid: int) -> bool:
    fields = _stat_fields(pid)
    return not fields or fields[0] in _ZOMBIE_STATES


def _start_time(pid: int) -> int | None:
    """When a process was started, in ticks since boot; None if it has ended."""
    fields = _stat_fields(pid)
    return None if not fields or fields[0] in _ZOMBIE_STATES else int(fields[19])


def _title_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
