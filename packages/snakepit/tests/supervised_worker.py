"""The class that the tests of supervision run in workers."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path
from typing import Any

import snakepit

MIB = 1 << 20


class Worker:
    """Commands that leak, block and burn."""

    def __init__(self) -> None:
        self.leaked: list[bytearray] = []

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    def leak(self, mib: int) -> int:
        self.leaked.append(bytearray(os.urandom(MIB)) * mib)
        return os.getpid()

    @snakepit.command
    def hold_gil_and_burn(self, started: str, rounds: int) -> int:
        Path(started).touch()
        return sum(range(rounds))

    @snakepit.command
    def hold_gil_and_sleep(self, started: str, seconds: float) -> None:
        Path(started).touch()
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    @snakepit.command
    def deadlock_when_idle(self) -> None:
        """Leave a thread that takes the interpreter's lock for ever, once this call has ended."""
        library = ctypes.PyDLL(None)
        timer = threading.Timer(0.05, library.sleep, (3600,))
        timer.daemon = True
        timer.start()

    @snakepit.command
    def sleep_until(self, started: str, gate: str) -> str:
        Path(started).touch()
        while not Path(gate).exists():
            signal.sigtimedwait([], 0.01)
        return "done"
