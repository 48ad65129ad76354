"""The keeper: parent of every template and worker of one host.

A small single-threaded process on the standard library alone. It starts processes, reaps them,
reports how each ended, kills process groups on request, and takes everything down when its host is
gone. It never runs user code.

Messages from the host::

    {"op": "spawn", "id": n, "argv": [...], "env": {...}, "cwd": "..." | null, "limits": {...},
     "nfds": k}
        the last of the k descriptors becomes the child's stdout and stderr, the others 3, 4, ...
    {"op": "guard", "pid": p, "grace": s, "nfds": 1}
        p is a worker and the descriptor its deadline mark; kill it s seconds after that deadline
    {"op": "kill", "pid": p}        SIGKILL to the process group, and to what p has started
    {"op": "stop"}                  kill all, then exit

and to it::

    {"event": "spawned", "id": n, "pid": p} | {"event": "spawn_failed", "id": n, "error": "..."}
    {"event": "exited", "pid": p, "code": c | null, "signal": s | null, "reason": "..." | null}
    {"event": "swept", "pids": [...]}     orphans of earlier hosts that were killed
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

from snakepit.processes.channel import Channel, ChannelClosed, Message
from snakepit.processes.launch import start_program
from snakepit.processes.linux import become_subreaper, children_of, descendants_of
from snakepit.processes.reaping import is_child, kill_group, next_exit, reap, wait_for_exit
from snakepit.processes.sweep import environment_of, kill_orphan, look_for_orphans
from snakepit.worker.marks import RUN_VARIABLE, WORKER_VARIABLE, read_mark

# How often marks are looked at, and the host's pid where nothing else shows its death.
_POLL_MS = 200
_END_PATIENCE = 5.0
# Processes that are looked at between two looks at the channel.
_SWEEP_STEP = 20


def main(fd: int, host_pid: int, lost_runs: Sequence[str]) -> None:
    """Run the keeper on the channel ``fd`` until its host ends or says stop.

    ``lost_runs`` are those of this host whose keeper has died.
    """
    os.set_inheritable(fd, False)  # it had to be inheritable to get here
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Keeper(Channel(socket.socket(fileno=fd)), host_pid, lost_runs).run()


class Keeper:
    """The loop of the keeper process."""

    def __init__(self, channel: Channel, host_pid: int, lost_runs: Sequence[str]) -> None:
        self._channel = channel
        self._host_pid = host_pid
        self._host_fd: int | None = None
        self._spawned: set[int] = set()
        # The workers' marks, and how long after a deadline each is to be killed.
        self._guarded: dict[int, tuple[int, float]] = {}
        self._overdue: set[int] = set()
        self._orphans = look_for_orphans(lost_runs)
        self._sweeping = True
        self._swept: list[int] = []
        self._wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._poller = select.poll()
        self._poller.register(channel, select.POLLIN)
        self._poller.register(self._wakeup_read, select.POLLIN)
        self._watch_host()

    def _watch_host(self) -> None:
        # End-of-file may be hidden by a descriptor that a child of the host inherited; a pidfd
        # never is.
        if not hasattr(os, "pidfd_open"):
            return
        try:
            host_fd = self._host_fd = os.pidfd_open(self._host_pid)
        except ProcessLookupError:
            self._end()
        self._poller.register(host_fd, select.POLLIN)

    def run(self) -> None:
        """Serve until the host is gone."""
        try:
            while True:
                ready = [fd for fd, _ in self._poller.poll(0 if self._sweeping else _POLL_MS)]
                if self._host_is_gone(ready):
                    return
                if self._wakeup_read in ready:
                    os.read(self._wakeup_read, 4096)
                self._reap()
                if self._channel.fileno() in ready:
                    for message, fds in self._channel.receive():
                        self._handle(message, fds)
                self._kill_overdue(time.monotonic())
                if self._sweeping:
                    self._sweep_on()
        except ChannelClosed:
            pass
        finally:
            self._end()

    def _host_is_gone(self, ready: list[int]) -> bool:
        return os.getppid() != self._host_pid or self._host_fd in ready

    def _handle(self, message: Message, fds: list[int]) -> None:
        match message["op"]:
            case "spawn":
                self._spawn(message, fds)
            case "guard":
                self._guard(message, fds)
            case "kill":
                self._kill(message["pid"])
            case "stop":
                raise ChannelClosed("told to stop")

    # --- starting and killing ------------------------------------------------------------------

    def _spawn(self, message: Message, fds: list[int]) -> None:
        env = message["env"] | {RUN_VARIABLE: os.environ[RUN_VARIABLE]}
        try:
            pid = start_program(message["argv"], env, message["cwd"], fds, message["limits"])
        except OSError as error:
            reply = {"event": "spawn_failed", "id": message["id"], "error": str(error)}
        else:
            self._spawned.add(pid)
            reply = {"event": "spawned", "id": message["id"], "pid": pid}
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.send(reply)

    def _kill(self, pid: int) -> None:
        # Only a child that is not reaped yet: its pid can't have been given to another process.
        if self._is_child(pid):
            # Before it is dead: then nothing shows any more what it has started.
            descendants = descendants_of(pid)
            for target in [pid, *descendants]:
                kill_group(target)

    def _is_child(self, pid: int) -> bool:
        return pid in self._spawned or is_child(pid)

    # --- deadlines -----------------------------------------------------------------------------

    def _guard(self, message: Message, fds: list[int]) -> None:
        (mark,) = fds
        if self._is_child(message["pid"]):
            self._guarded[message["pid"]] = mark, message["grace"]
        else:
            os.close(mark)  # it has died already

    def _kill_overdue(self, now: float) -> None:
        for pid, (mark, grace) in self._guarded.items():
            deadline = read_mark(mark)
            if deadline is not None and now > deadline + grace and pid not in self._overdue:
                self._overdue.add(pid)
                self._kill(pid)

    # --- reaping -------------------------------------------------------------------------------

    def _reap(self) -> None:
        while (ended := next_exit()) is not None:
            # While the zombie is there its group id can't be reused, so the group dies before it
            # is reaped.
            kill_group(ended.pid)
            self._kill_escaped_from(ended.pid)
            reap(ended.pid)
            overdue = ended.pid in self._overdue
            self._forget(ended.pid)
            self._channel.send(
                {
                    "event": "exited",
                    "pid": ended.pid,
                    "code": ended.code,
                    "signal": ended.signal,
                    "reason": "a call of it was past its deadline, and the host busy or blocked"
                    if overdue
                    else None,
                }
            )

    def _forget(self, pid: int) -> None:
        self._spawned.discard(pid)
        self._overdue.discard(pid)
        if pid in self._guarded:
            os.close(self._guarded.pop(pid)[0])

    def _kill_escaped_from(self, worker: int) -> None:
        """Kill what a dead worker had started in sessions of their own.

        With the worker's death they have become children of this process.
        """
        if worker not in self._guarded:
            return
        for pid in children_of(os.getpid()):
            known = pid in self._guarded or pid in self._spawned
            if not known and environment_of(pid).get(WORKER_VARIABLE) == str(worker):
                self._kill(pid)

    # --- orphans -------------------------------------------------------------------------------

    def _sweep_on(self) -> None:
        """Look at some more processes for what an earlier, killed host has left."""
        step = list(itertools.islice(self._orphans, _SWEEP_STEP))
        for orphan in step:
            if orphan is not None:
                kill_orphan(orphan)
                self._swept.append(orphan.pid)
        if len(step) < _SWEEP_STEP:
            self._sweeping = False
            if self._swept:
                self._channel.send({"event": "swept", "pids": self._swept})

    # --- the end -------------------------------------------------------------------------------

    def _end(self) -> NoReturn:
        """Kill every child, and every orphan that falls to this process thereby; then exit."""
        end = time.monotonic() + _END_PATIENCE
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < end:
                for pid in children_of(os.getpid()):
                    kill_group(pid)
                pid = wait_for_exit()
                kill_group(pid)
                reap(pid)
        os._exit(0)
