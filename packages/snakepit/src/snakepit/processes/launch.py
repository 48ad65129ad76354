"""Starting a program as a child of the keeper."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Mapping

from snakepit.processes.linux import die_with_parent
from snakepit.worker.marks import WORKER_VARIABLE
from snakepit.worker.rlimits import set_limits

_FIRST_FD = 3
Limits = Mapping[str, int | None]


def start_program(
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    fds: list[int],
    limits: Limits | None = None,
) -> int:
    """Start a program; return its pid once it executes.

    The last of ``fds`` becomes its stdout and stderr, the others its descriptors 3, 4, ... Nothing
    else of this process is open in it. ``limits``: as ``ResourceLimits.to_wire``.

    Raises:
        OSError: it can't be started or executed, or may not have as much as its limits say.
    """
    keeper = os.getpid()
    error_read, error_write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(error_read)
        os.close(error_write)
        raise
    if pid == 0:
        _child(argv, env, cwd, fds, limits or {}, error_write, keeper)
    os.close(error_write)
    with open(error_read, "rb") as errors:
        failure = errors.read()  # ends when exec closes the other end
    if failure:
        os.waitpid(pid, 0)
        number, _, what = failure.decode().partition(" ")
        raise OSError(int(number), os.strerror(int(number)), what or argv[0])
    return pid


def _child(
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    fds: list[int],
    limits: Limits,
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
        spare = _FIRST_FD + len(fds)
        *channels, output, error_fd = (_dup_from(fd, spare) for fd in [*fds, error_fd])
        for target, fd in [*enumerate(channels, _FIRST_FD), (1, output), (2, output)]:
            os.dup2(fd, target, inheritable=True)
        _limit(limits, error_fd)
        # What it starts is known by it, and ends with it.
        os.execve(argv[0], argv, env | {WORKER_VARIABLE: str(os.getpid())})
    except OSError as error:
        os.write(error_fd, str(error.errno).encode())
    finally:
        os._exit(127)


def _limit(limits: Limits, error_fd: int) -> None:
    try:
        set_limits(limits)
    except (OSError, ValueError):
        os.write(error_fd, f"{errno.EPERM} limits {dict(limits)}".encode())
        os._exit(127)


def _dup_from(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
