"""Errors of the worker's own code: they end the process.

An event loop only reports what a callback raises and goes on. For user code that is right; but an
engine that failed to read a call, or to send its answer, would leave the caller waiting for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn


def end_process_if_it_raises(callback: Callable[[], None]) -> Callable[[], None]:
    """The same callback, whose errors are not survived."""

    def guarded() -> None:
        try:
            callback()
        except BaseException as error:
            end_process(error)

    return guarded


def end_process_if_failed(task: asyncio.Task[Any]) -> None:
    """As a task's done callback: its errors are not survived."""
    if not task.cancelled() and (error := task.exception()) is not None:
        end_process(error)


def end_process(error: BaseException) -> NoReturn:
    """End at once, with the error in the last output."""
    traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
