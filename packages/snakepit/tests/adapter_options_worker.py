"""The class of the tests of PythonAdapter's options, and a program that lets it print."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import snakepit


class Worker:
    """What it was warmed up with, and output."""

    warmed: dict[str, Any] | None = None

    @classmethod
    def warm(cls, **given: Any) -> None:
        cls.warmed = given

    @snakepit.command
    def warmed_with(self) -> dict[str, Any] | None:
        return self.warmed

    @snakepit.command
    def speak(self) -> None:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.system("echo from a child")

    @snakepit.command
    def crash(self) -> None:
        print("last words")
        os.kill(os.getpid(), signal.SIGSEGV)


async def print_something(start: Any) -> None:
    adapter = snakepit.PythonAdapter("adapter_options_worker:Worker", start=start, output="inherit")
    async with snakepit.Pool(adapter, size=1) as pool:
        await pool.execute("speak")


if __name__ == "__main__":
    asyncio.run(print_something(sys.argv[1]))
