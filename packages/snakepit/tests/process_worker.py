"""A class whose workers show what kind of processes they are, and start some of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fresh_commands import FreshCommands

import snakepit

PAUSE = "import signal; signal.pause()"


def open_descriptors() -> dict[int, str]:
    """What this process has open, without the descriptor of the listing itself."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[int(fd.name)] = str(fd.readlink())
        except FileNotFoundError:
            continue
    return found


class Worker(FreshCommands):
    """Looks at its own process."""

    def __init__(self) -> None:
        self.at_birth = open_descriptors()

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def descriptors_at_birth(self) -> list[str]:
        return [self.at_birth[fd] for fd in sorted(self.at_birth)]

    @snakepit.command
    def prefix(self) -> str:
        return sys.prefix

    @snakepit.command
    def start_child(self) -> int:
        return subprocess.Popen([sys.executable, "-c", PAUSE]).pid

    @snakepit.command
    def start_daemon(self) -> int:
        """In a session of its own: no signal to the worker's group reaches it."""
        return subprocess.Popen([sys.executable, "-c", PAUSE], start_new_session=True).pid

    @snakepit.command
    def fork_daemon(self) -> int:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.pause()
        return pid

    @snakepit.command
    def spin(self) -> None:
        while True:
            pass

    @snakepit.command
    def hold_gil(self) -> int:
        return sum(range(10**12))

    @snakepit.command
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
