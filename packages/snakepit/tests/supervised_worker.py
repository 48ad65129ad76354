"""The class that the tests of supervision run in workers."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from fresh_commands import FreshCommands

import snakepit
from snakepit.testing import pass_gate

MIB = 1 << 20
_PR_SET_NAME = 15


def _descend(depth: int) -> None:
    if depth:
        _descend(depth - 1)


async def _wait_at(gate: str) -> None:
    await asyncio.to_thread(pass_gate, gate)


class Worker(FreshCommands):
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
    def take_name(self, name: bytes) -> None:
        """Have the kernel show this process, and its main thread, under another name."""
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)

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
    def deadlock_at_gate(self, gate: str) -> None:
        """Leave a thread that takes the interpreter's lock for ever when the gate opens."""

        def take_lock() -> None:
            pass_gate(gate)
            ctypes.PyDLL(None).sleep(3600)

        threading.Thread(target=take_lock, daemon=True).start()

    @snakepit.command
    def recurse(self, depth: int) -> None:
        """Go down that deep and up again, without end."""
        while True:
            _descend(depth)

    @snakepit.command
    async def await_gate(self, gate: str) -> None:
        """Wait on the loop until the gate opens, in a task of its own and a thread."""
        await asyncio.create_task(_wait_at(gate), name="wait at the g\u00e4te")

    @snakepit.command
    def spin(self) -> None:
        while True:
            pass

    @snakepit.command
    def read_from(self, path: str) -> list[str]:
        """Wait for a line in C code; return why its system calls ended before, if they did."""
        library = ctypes.CDLL(None, use_errno=True)
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        Path(path + ".open").touch()
        broken_off = []

        class PollFd(ctypes.Structure):
            _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("got", ctypes.c_short))

        while library.poll(ctypes.byref(PollFd(fd, 1, 0)), 1, -1) < 0:
            broken_off.append(os.strerror(ctypes.get_errno()))
        os.close(fd)
        return broken_off

    @snakepit.command
    def crash(self, how: str) -> None:
        if how == "segfault":
            ctypes.string_at(0)
        elif how == "abort":
            os.abort()
        else:
            os.kill(os.getpid(), getattr(signal, how))

    @snakepit.command
    def print_bytes(self, count: int, line: int) -> int:
        text = "x" * (line - 1) + "\n"
        for _ in range(count // line):
            os.write(1, text.encode())
        return count // line * line

    @snakepit.command
    def print_junk(self) -> str:
        os.write(1, bytes(range(256)) * 16 + b"\xff" * 5000)
        return sys.stdin.read()

    @snakepit.command
    def close_output(self) -> None:
        os.close(1)
        os.close(2)

    @snakepit.command
    def open_files(self, count: int) -> int:
        files = [open("/dev/null") for _ in range(count)]  # noqa: SIM115 - all at once
        return len(files)

    @snakepit.command
    def big_result(self, mib: int) -> bytes:
        return bytes(mib * MIB)

    @snakepit.command
    def sleep_until(self, started: str, gate: str) -> str:
        Path(started).touch()
        while not Path(gate).exists():
            signal.sigtimedwait([], 0.01)
        return "done"
