"""The calls on the stack of a worker that runs one after the other."""

from __future__ import annotations

import asyncio
from typing import Any

from snakepit.calls.windows import AsyncSendWindow
from snakepit.wire.credit import Credit
from snakepit.worker.context import CallContext
from snakepit.worker.registry import Command


class Running:
    """A call on the stack."""

    __slots__ = (
        "command",
        "context",
        "forced",
        "on_loop",
        "task",
        "task_cancelled",
        "window",
    )

    def __init__(self, context: CallContext, command: Command, credit: Credit | None) -> None:
        self.context = context
        self.command = command
        # A stream's; that of an async one belongs to the loop's thread.
        self.window = None if credit is None else AsyncSendWindow(credit)
        self.forced = False
        # Set before the task is asked for; the other two belong to the loop's thread until it ends.
        self.on_loop = False
        self.task: asyncio.Task[Any] | None = None
        self.task_cancelled = False

    def task_done(self) -> bool:
        """Whether the code of an async command has come to its end."""
        return self.task is not None and self.task.done()
