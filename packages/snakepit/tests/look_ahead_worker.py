"""Commands that are short most of the time."""

from __future__ import annotations

import os
import time

from fresh_commands import FreshCommands

import snakepit
from snakepit.testing import pass_gate


class Worker(FreshCommands):
    @snakepit.command
    def nap(self, seconds: float = 0.0, gate: str | None = None) -> None:
        if seconds:
            time.sleep(seconds)
        if gate is not None:
            pass_gate(gate)

    @snakepit.command
    def end(self, fatal: bool = False) -> None:
        if fatal:
            os._exit(3)

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def ask(self, times: int) -> list[int]:
        """Call the host that often."""
        call = snakepit.current_call()
        return [call.call_host("double", {"number": number}) for number in range(times)]
