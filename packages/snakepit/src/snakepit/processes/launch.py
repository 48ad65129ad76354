"""Starting a program as a child of the keeper."""

from __future__ import annotations

import fcntl
import os
import signal

from snakepit.processes.linux import die_with_parent

_FIRST_FD = 3


def start_program(argv: list[str], env: dict[str, str], cwd: str | None, fds: list[int]) -> int:
    """Start a program; return its pid once it executes.

    The last of ``fds`` becomes its stdout and stderr, the others its descriptors 3, 4, ... Nothing
    else of this process is open in it.

    Raises:
        OSError: it can't be started or executed.
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
    env: dict[str, str],
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
        spare = _FIRST_FD + len(fds)
        *channels, output, error_fd = (_dup_from(fd, spare) for fd in [*fds, error_fd])
        for target, fd in [*enumerate(channels, _FIRST_FD), (1, output), (2, output)]:
            os.dup2(fd, target, inheritable=True)
        os.execve(argv[0], argv, env)
    except OSError as error:
        os.write(error_fd, str(error.errno).encode())
    finally:
        os._exit(127)


def _dup_from(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
