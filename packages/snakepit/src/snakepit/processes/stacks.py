"""The host's side of a stack dump of a worker that does not answer: signal it, wait until it has
written, read what it wrote.

A worker that can do it registers a handler of ``faulthandler`` for ``STACKS_SIGNAL``, which writes
into an anonymous file of the worker's, and tells the number of that file's descriptor when it
introduces itself. The handler reads the frames without the interpreter's lock: a thread that enters
and leaves functions meanwhile may make it crash, so this is for workers that run no Python code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from snakepit.processes.vitals import read_vitals
from snakepit.worker.stacks import MOST_STACKS_BYTES, STACKS_FILE, STACKS_SIGNAL

_PAUSE: Final = 0.002
# Of a thread: stopped by a signal, stopped by a debugger.
_STOPPED: Final = frozenset("Tt")


class StacksUnavailable(Exception):
    """The stacks can't be had; the text says why."""


async def dump_stacks(pid: int, fd: int, patience: float) -> str:
    """The Python stacks of all threads of a worker, whatever they do.

    Args:
        pid: the worker's process.
        fd: the number of the file's descriptor in the worker.
        patience: seconds it may take.

    Raises:
        StacksUnavailable: the process is gone, or does not react, or is no such worker.
    """
    try:
        return await _dump(pid, fd, patience)
    except OSError as error:
        raise StacksUnavailable(f"process {pid} can't be looked into: {error}") from error


async def _dump(pid: int, fd: int, patience: float) -> str:
    if STACKS_SIGNAL is None:
        raise StacksUnavailable("this system has no real-time signals")
    process = os.pidfd_open(pid)
    try:
        path = f"/proc/{pid}/fd/{fd}"
        # The file proves that the number still belongs to the worker, so the pidfd does, too.
        if STACKS_FILE not in os.readlink(path):
            raise StacksUnavailable(f"process {pid} has no file for stacks as descriptor {fd}")
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            end = time.monotonic() + patience
            # A thread that takes the signal, and has not been sent one that it still owes.
            await _until(lambda: not _is_pending(pid) and bool(_takers(pid)), pid, end)
            _refuse_stopped(pid)
            os.ftruncate(file, 0)
            takers = _takers(pid)
            signal.pidfd_send_signal(process, STACKS_SIGNAL)
            # The handler's own end can't be seen in what it writes. But the kernel blocks the
            # signal in the thread that handles it, until the handler has returned.
            await _until(
                lambda: (
                    not _is_pending(pid) and os.fstat(file).st_size > 0 and takers <= _takers(pid)
                ),
                pid,
                end,
            )
            return os.pread(file, MOST_STACKS_BYTES, 0).decode(errors="replace")
        finally:
            os.close(file)
    finally:
        os.close(process)


def _refuse_stopped(pid: int) -> None:
    """A stopped process would take the signal when it goes on, and its Python code with it."""
    vitals = read_vitals(pid)
    if vitals is not None and vitals.states & _STOPPED:
        raise StacksUnavailable(f"process {pid} did not react in time: it is stopped")


async def _until(condition: Callable[[], bool], pid: int, end: float) -> None:
    while not condition():
        if time.monotonic() > end:
            raise StacksUnavailable(f"process {pid} did not react in time")
        await asyncio.sleep(_PAUSE)


def _takers(pid: int) -> set[str]:
    """The threads that would take the signal now."""
    return {task for task in os.listdir(f"/proc/{pid}/task") if _is_taker(pid, task)}


def _is_taker(pid: int, task: str) -> bool:
    try:
        return not _has_signal(f"/proc/{pid}/task/{task}/status", "SigBlk")
    except OSError:
        return False  # it has ended


def _is_pending(pid: int) -> bool:
    return _has_signal(f"/proc/{pid}/status", "ShdPnd")


def _has_signal(path: str, field: str) -> bool:
    """Whether the signal is in one of the sets of signals of a thread."""
    with open(path, errors="replace") as file:  # a process may have any bytes as its name
        (mask,) = (line.split()[1] for line in file if line.startswith(field))
    return bool(int(mask, 16) >> (int(STACKS_SIGNAL or 0) - 1) & 1)
