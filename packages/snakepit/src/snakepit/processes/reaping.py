"""How processes end: seeing a child's end, killing its group, reaping it; in that order."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple

# Without it (macOS before Python 3.13) a child is reaped in the moment its end is seen.
_HAS_WAITID = hasattr(os, "waitid")


class Exit(NamedTuple):
    """A child's end: an exit code or a signal's number."""

    pid: int
    code: int | None
    signal: int | None


def next_exit() -> Exit | None:
    """A child that has ended, which stays a zombie until it is reaped; None if all live."""
    with contextlib.suppress(ChildProcessError):
        if _HAS_WAITID:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is not None:
                exited = info.si_code == os.CLD_EXITED
                return Exit(
                    info.si_pid,
                    info.si_status if exited else None,
                    None if exited else info.si_status,
                )
        else:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return Exit(pid, code if code >= 0 else None, -code if code < 0 else None)
    return None


def wait_for_exit() -> int:
    """Wait until a child ends; return its pid.

    Raises:
        ChildProcessError: there is no child.
    """
    if not _HAS_WAITID:
        return os.waitpid(-1, 0)[0]
    while True:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if info is not None:
            return info.si_pid


def is_child(pid: int) -> bool:
    """Whether a process is a child that is not reaped yet."""
    if not _HAS_WAITID:
        return False
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap(pid: int) -> None:
    """Let a child go whose end has been seen."""
    if _HAS_WAITID:
        os.waitpid(pid, 0)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that ``pid`` leads, and to itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    # A process that died, or was caught, before it led a group of its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
