"""What a worker's threads are doing: into its output when it crashes, and when the host asks.

The host asks by a frame first: the control thread answers it with the interpreter's lock, so that
no other thread changes a frame that is being read. C code that holds that lock keeps every thread
from running Python code; then the host asks by a signal. Its handler is C code of the standard
library, so it runs all the same, and reads without the lock. It is taken by the control thread
alone: a signal in any other one could end a system call there, which C code seldom expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

#: Real-time, so that it collides with nothing a program uses by habit; None where there is none.
STACKS_SIGNAL: Final = getattr(signal, "SIGRTMAX", None)
STACKS_FILE: Final = "snakepit-stacks"
#: What is more is cut off.
MOST_STACKS_BYTES: Final = 1 << 20
# As many as the standard library writes, of threads and of the frames of one.
_MOST_TASKS: Final = 100
_MOST_FRAMES: Final = 100
# A chain of what awaits what ends: a safeguard against an object that waits for itself.
_MOST_AWAITED: Final = 10_000
# Kept open although the program may close its standard streams.
_STDERR: Final = 2


def dump_stacks_on_demand() -> int | None:
    """Make ready to write the stacks of all threads; return the descriptor of their file, or None
    where this system has no such facility.

    Main thread, before any other thread is started: they inherit that the signal is blocked.
    """
    faulthandler.enable(file=fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))
    if STACKS_SIGNAL is None or not hasattr(os, "memfd_create"):
        return None
    signal.pthread_sigmask(signal.SIG_BLOCK, [STACKS_SIGNAL])
    fd = os.memfd_create(STACKS_FILE)
    # The host empties it; what is written then has to start at its beginning.
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    # The handler restarts interrupted system calls, and calls no other handler.
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def take_stacks_signals() -> None:
    """Have this thread, the only one, take the host's signal, and no other signal."""
    signals = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signals - {STACKS_SIGNAL})


def own_stacks(loop: asyncio.AbstractEventLoop | None) -> str:
    """The stacks of all threads, then those of the tasks of ``loop``.

    Raises:
        OSError, MemoryError: a descriptor, or memory, is not to be had.
    """
    with os.fdopen(os.memfd_create(STACKS_FILE), "w+b", buffering=0) as file:
        # It keeps the interpreter's lock, so that all is of one moment.
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        threads = file.read().decode(errors="replace")
    return (threads + _stacks_of_tasks(loop))[:MOST_STACKS_BYTES]


def _stacks_of_tasks(loop: asyncio.AbstractEventLoop | None) -> str:
    if loop is None:
        return ""
    lines: list[str] = []
    # Of a task that runs meanwhile, or of a coroutine that is not Python's, it may not be had.
    with contextlib.suppress(Exception):
        tasks = sorted(asyncio.all_tasks(loop), key=_in_order_of_names)
        for task in tasks[:_MOST_TASKS]:
            lines += ["", f"Task {task.get_name()!r} (most recent call first):", *_awaiting(task)]
        if len(tasks) > _MOST_TASKS:
            lines.append("...")
    text = "".join(f"{line}\n" for line in lines)
    return text.encode("ascii", "backslashreplace").decode()


def _in_order_of_names(task: asyncio.Task[Any]) -> tuple[int, str]:
    # asyncio numbers them.
    return len(task.get_name()), task.get_name()


def _awaiting(task: asyncio.Task[Any]) -> list[str]:
    frames = [*_frames_of(task.get_coro())]
    lines = [
        f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
        for frame in reversed(frames[-_MOST_FRAMES:])
    ]
    return lines if len(frames) <= _MOST_FRAMES else [*lines, "  ..."]


def _frames_of(awaitable: object) -> Iterator[FrameType]:
    """The frames of a coroutine and of those that it waits for, the innermost one last."""
    for _ in range(_MOST_AWAITED):
        kind = "cr" if hasattr(awaitable, "cr_frame") else "gi"
        frame = getattr(awaitable, f"{kind}_frame", None)
        if frame is None:
            return
        yield frame
        awaitable = getattr(awaitable, "cr_await" if kind == "cr" else "gi_yieldfrom", None)


def dump_stacks_before(number: int) -> None:
    """Write the stacks to the output when a signal comes that ends the process."""
    faulthandler.register(number, file=sys.stderr, all_threads=True, chain=True)
