"""The class that the tests of batches run in workers."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from fresh_commands import FreshCommands

import snakepit
from snakepit import Batch
from snakepit.errors import HostCallCancelled
from snakepit.testing import pass_gate


class Worker(FreshCommands):
    """Commands that take many calls at once, and remember how many."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.commands: set[str] = set()
        self.sessions: list[str | None] = []
        self.cancelled = 0

    @snakepit.command
    def hold(self, gate: str) -> None:
        pass_gate(gate)

    @snakepit.command
    def seen(self) -> dict[str, Any]:
        return {"sizes": self.sizes, "sessions": self.sessions, "cancelled": self.cancelled}

    @snakepit.command
    def seen_commands(self) -> list[str]:
        return sorted(self.commands)

    @snakepit.command(batch=Batch(max_size=8))
    def double(self, x: list[Any], times: list[int] | int = 2) -> list[Any]:
        """An exception for what is no number; the last of the calls is not to be encoded if it is
        the text "object"."""
        assert isinstance(times, list)
        self.sizes.append(len(x))
        self.commands.add(snakepit.current_call().command)
        self.sessions.append(snakepit.current_call().session_id)
        return [_times(value, each) for value, each in zip(x, times, strict=True)]

    @snakepit.command(batch=Batch(max_size=4, max_wait=10.0))
    async def double_later(self, x: list[int]) -> list[int]:
        self.sizes.append(len(x))
        return [2 * value for value in x]

    @snakepit.command(batch=Batch(max_size=8))
    def rows(self, x: list[float], width: list[int]) -> Any:
        import numpy

        return numpy.array([[value] * width[0] for value in x])

    @snakepit.command(batch=Batch(max_size=8))
    def scalars(self, x: list[float]) -> Any:
        import numpy

        return 2.0 * numpy.array(x)

    @snakepit.command(batch=Batch(max_size=8))
    def wrong(self, what: list[str]) -> Any:
        match what[0]:
            case "raise":
                raise ValueError("all of them")
            case "few":
                return []
            case "none":
                return None
            case _:
                return "as many letters"[: len(what)]

    @snakepit.command(batch=Batch(max_size=8))
    def wait(self, gate: list[str], die: list[bool]) -> list[int]:
        self.sizes.append(len(gate))
        pass_gate(gate[0])
        if any(die):
            os.kill(os.getpid(), signal.SIGKILL)
        return list(range(len(gate)))

    @snakepit.command(batch=Batch(max_size=8))
    async def wait_async(self, n: list[int]) -> list[int]:
        try:
            await snakepit.current_call().acall_host("held", {"n": n})
        except (asyncio.CancelledError, HostCallCancelled):  # whichever comes first
            self.cancelled += 1
            raise
        return n

    @snakepit.command
    def remaining(self) -> float | None:
        return snakepit.current_call().remaining()

    @snakepit.command(batch=Batch(max_size=64))
    def time_left(self, n: list[int]) -> list[float | None]:
        return [snakepit.current_call().remaining() for _ in n]

    @snakepit.command(batch=Batch(max_size=64))
    def ask(self, name: list[str], n: list[int]) -> list[Any]:
        answer = snakepit.current_call().call_host(name[0], {"n": n})
        return [answer] * len(n)

    @snakepit.command
    def ask_alone(self, name: str, n: int) -> Any:
        return snakepit.current_call().call_host(name, {"n": n})


def _times(value: Any, times: int) -> Any:
    if value == "object":
        return object()
    if isinstance(value, str):
        return ValueError(f"{value} is no number")
    return value * times
