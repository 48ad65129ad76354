"""The keeper: parent of every template and worker of one host.

A small single-threaded process on the standard library alone. It starts processes, reaps them,
reports how each ended, kills process groups on request, and takes everything down when its host is
gone. It never runs user code.

Messages from the host::

    {"op": "spawn", "id": n, "argv": [...], "env": {...} | null, "cwd": "..." | null, "nfds": k}
        the last of the k descriptors becomes the child's stdout and stderr, the others 3, 4, ...
    {"op": "kill", "pid": p}        SIGKILL to the process group
    {"op": "stop"}                  kill all, then exit

and to it::

    {"event": "spawned", "id": n, "pid": p} | {"event": "spawn_failed", "id": n, "error": "..."}
    {"event": "exited", "pid": p, "code": c | null, "signal": s | null}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import time
from typing import NoReturn

from snakepit.processes.channel import Channel, ChannelClosed, Message
from snakepit.processes.linux import become_subreaper, die_with_parent

_FIRST_CHILD_FD = 3
# Where neither pidfd nor end-of-file shows the host's death, its pid is looked at this often.
_POLL_MS = 200
_CHILDREN_FILE = "/proc/self/task/{pid}/children"


def main(fd: int, host_pid: int) -> None:
    """Run the keeper on the channel ``fd`` until its host ends or says stop."""
    os.set_inheritable(fd, False)  # it had to be inheritable to get here
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Keeper(Channel(socket.socket(fileno=fd)), host_pid).run()


class Keeper:
    """The loop of the keeper process."""

    def __init__(self, channel: Channel, host_pid: int) -> None:
        self._channel = channel
        self._host_pid = host_pid
        self._host_fd: int | None = None
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
                ready = [fd for fd, _ in self._poller.poll(_POLL_MS)]
                if self._host_is_gone(ready):
                    return
                if self._wakeup_read in ready:
                    os.read(self._wakeup_read, 4096)
                self._reap()
                if self._channel.fileno() in ready:
                    for message, fds in self._channel.receive():
                        self._handle(message, fds)
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
            case "kill":
                self._kill(message["pid"])
            case "stop":
                raise ChannelClosed("told to stop")

    def _spawn(self, message: Message, fds: list[int]) -> None:
        try:
            pid = _fork_exec(message["argv"], message["env"], message["cwd"], fds)
        except OSError as error:
            reply = {"event": "spawn_failed", "id": message["id"], "error": str(error)}
        else:
            reply = {"event": "spawned", "id": message["id"], "pid": pid}
        finally:
            for fd in fds:
                os.close(fd)
        self._channel.send(reply)

    def _kill(self, pid: int) -> None:
        # Only a child that is not reaped yet: its pid can't have been given to another process.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            _kill_group(pid)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                # While the zombie is there its group id can't be reused, so the group dies before
                # it is reaped.
                _kill_group(info.si_pid)
                os.waitpid(info.si_pid, 0)
                exited = info.si_code == os.CLD_EXITED
                self._channel.send(
                    {
                        "event": "exited",
                        "pid": info.si_pid,
                        "code": info.si_status if exited else None,
                        "signal": None if exited else info.si_status,
                    }
                )

    def _end(self) -> NoReturn:
        """Kill every child, and every orphan that falls to this process thereby; then exit."""
        end = time.monotonic() + 5.0
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < end:
                for pid in _children():
                    _kill_group(pid)
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
                if info is not None:
                    _kill_group(info.si_pid)
                    os.waitpid(info.si_pid, 0)
        os._exit(0)


def _children() -> list[int]:
    try:
        with open(_CHILDREN_FILE.format(pid=os.getpid())) as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    # A process that died, or was caught, before it led a group of its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _fork_exec(argv: list[str], env: dict[str, str] | None, cwd: str | None, fds: list[int]) -> int:
    """Start ``argv``; return its pid once it executes. Raises OSError when it can't."""
    keeper = os.getpid()
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(argv, env, cwd, fds, error_write, keeper)
    os.close(error_write)
    with open(error_read, "rb") as errors:
        failure = errors.read()  # ends when exec closes the other end
    if failure:
        os.waitpid(pid, 0)
        errno = int(failure)
        raise OSError(errno, os.strerror(errno), argv[0])
    return pid


def _child(
    argv: list[str],
    env: dict[str, str] | None,
    cwd: str | None,
    fds: list[int],
    error_fd: int,
    keeper: int,
) -> None:
    try:
        die_with_parent(keeper)
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if cwd is not None:
            os.chdir(cwd)
        # First out of the way, then to their places: a target may be the source of another.
        spare = _FIRST_CHILD_FD + len(fds)
        *channels, output, error_fd = (_dup_from(fd, spare) for fd in [*fds, error_fd])
        for target, fd in [*enumerate(channels, _FIRST_CHILD_FD), (1, output), (2, output)]:
            os.dup2(fd, target, inheritable=True)
        os.execve(argv[0], argv, os.environ if env is None else env)
    except OSError as error:
        os.write(error_fd, str(error.errno).encode())
    finally:
        os._exit(127)


def _dup_from(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
