"""Ways to die, and values and errors that are hard to send."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from typing import Any


class Planned(Exception):
    """What a command raises when it is told to."""


def act(how: str) -> None:
    """Die in the given way; only ``raise`` leaves the process alive."""
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit0":
            os._exit(0)
        case "exit42":
            os._exit(42)
        case "raise":
            raise Planned("as told")
        case "hang":
            threading.Event().wait()
    signal.pause()  # the signal is on its way


class _Stubborn:
    """Every way in which a value may be asked for its content ends badly."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> str:
        act(self.how)
        return "never"

    def __repr__(self) -> str:
        raise Planned("repr")


def hostile_value(kind: str) -> Any:
    """A value that can't be sent."""
    match kind:
        case "object":
            return object()
        case "lambda":
            return lambda: None
        case "recursive":
            loop: list[Any] = []
            loop.append(loop)
            return {"outer": loop}
        case "deep":
            nest: list[Any] = []
            for _ in range(200_000):
                nest = [nest]
            return nest
        case "surrogate":
            return "\ud800"
        case "reduce_exits":
            return _Stubborn("exit42")
        case _:
            return [1, {"here": _Stubborn("raise")}]


class BrokenText(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise Planned("str")

    __repr__ = __str__


class TwoArguments(Exception):
    """An error that its own constructor can't make from its args."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def hostile_error(kind: str) -> BaseException:
    """An exception that is hard to report."""
    match kind:
        case "broken_text":
            return BrokenText()
        case "two_arguments":
            return TwoArguments("a", "b")
        case "huge":
            return ValueError("x" * 100_000_000)
        case "group":
            return ExceptionGroup("several", [ValueError("one"), TypeError("two")])
        case "lock":
            return ValueError(threading.Lock())
        case _:
            return GeneratorExit()
