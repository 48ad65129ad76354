"""The class that the tests of inline mode run in the tests' own process."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import snakepit
from snakepit.errors import HostCallCancelled
from snakepit.testing import pass_gate


class Worker:
    """Remembers the threads that it runs in, and how it ended."""

    closed: list[int] = []

    def __init__(self, fail: str | None = None) -> None:
        if fail is not None:
            raise LookupError(fail)
        self.threads = {threading.get_ident()}
        self.stopped = 0

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed.append(len(self.threads))

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def append(self, to: list[int]) -> list[int]:
        to.append(1)
        return to

    @snakepit.command
    def fail(self, message: str) -> None:
        raise ValueError(message)

    @snakepit.command(batch=snakepit.Batch(max_size=4))
    def fail_all(self, message: list[str]) -> None:
        raise ValueError(*message)

    @snakepit.command
    def note_thread(self, nested: int = 0) -> int:
        self.threads.add(threading.get_ident())
        if nested:
            snakepit.current_call().call_host("nest", {"nested": nested - 1})
        return len(self.threads)

    @snakepit.command
    def wait(self, gate: str) -> bool:
        pass_gate(gate)
        return snakepit.current_call().cancelled

    @snakepit.command(interruptible=False)
    def polite(self, gate: str) -> None:
        pass_gate(gate)
        while not snakepit.current_call().cancelled:
            pass
        self.stopped += 1

    @snakepit.command
    async def wait_async(self) -> None:
        try:
            await snakepit.current_call().acall_host("held")
        except (asyncio.CancelledError, HostCallCancelled):  # whichever comes first
            self.stopped += 1
            raise

    @snakepit.command
    def how_often_stopped(self) -> int:
        return self.stopped

    @snakepit.command
    async def block_the_loop(self) -> Any:
        return snakepit.current_call().call_host("held")

    @snakepit.command
    def ask(self) -> Any:
        return snakepit.current_call().call_host("held")

    @snakepit.command
    def ask_too_late(self, gate: str) -> None:
        call = snakepit.current_call()

        def ask() -> None:
            pass_gate(gate)
            try:
                call.call_host("held")
            except snakepit.SnakepitError as error:
                self.late = error.code

        self.thread = threading.Thread(target=ask)
        self.thread.start()

    @snakepit.command
    def answer_to_the_late(self) -> str:
        self.thread.join()
        return self.late


class Bare:
    """Has no commands."""


class FailsToClose:
    """Its close() raises."""

    def close(self) -> None:
        raise OSError("stuck")

    @snakepit.command
    def hello(self) -> str:
        return "hello"
