"""What runs in an executor's workers: calls are unpickled, run, and their results pickled."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import process, resource_tracker, spawn
from typing import Any, Final, cast

from snakepit.errors import DecodeError, Outcome
from snakepit.executor.pickling import (
    DEFAULT_PICKLER,
    Message,
    import_pickler,
    pack,
    pack_error,
    unpack,
)
from snakepit.worker.registry import command
from snakepit.worker.target import importing

#: Where the host says this class is to be found, and its one command.
TARGET: Final = f"{__name__}:TaskRunner"
RUN: Final = "run"
#: The number that the descriptor of the host's resource tracker has in a worker.
TRACKER: Final = 100


class TaskRunner:
    """Runs the calls of one executor, one after the other, on the worker's main thread.

    Args:
        preparation: a pickle of what ``multiprocessing`` tells a new process of the one that
            starts it: the main module, arguments, folder and so on.
        pickler: the name of the module that pickles calls.
        host: the process id of the one that has the executor.
        start: empty, or a pickle of the initializer and its arguments.
    """

    def __init__(self, preparation: bytes, pickler: str, host: int, start: bytes) -> None:
        _prepare(preparation)
        _tell_parent(host)
        current = multiprocessing.current_process()
        current.name = f"{current.name}-{os.getpid()}"
        self._pickler = import_pickler(pickler)
        _share_tracker()
        if start:
            initializer, initargs = self._pickler.loads(start)
            initializer(*initargs)

    @classmethod
    def warm(cls, preparation: bytes, pickler: str) -> None:
        """Import what every worker needs. Runs in the template."""
        _prepare(preparation)
        import_pickler(pickler)

    @command(name=RUN)
    def run(self, request: Message) -> list[Any]:
        """Run a call; return the seconds it took, whether it succeeded, and its result or error."""
        start = time.perf_counter()
        function, args, kwargs = self._read(request)
        try:
            succeeded, reply = True, pack(function(*args, **kwargs), self._pickler)
        except BaseException as error:
            packed = pack_error(error, self._pickler)
            if packed is None:
                raise  # to travel as data, which any error can
            succeeded, reply = False, packed
        return [time.perf_counter() - start, succeeded, *reply]

    def _read(self, request: Message) -> Any:
        try:
            return unpack(request, self._pickler)
        except BaseException as error:
            advice = (
                "; a function of a notebook or an interactive session needs a pickler that sends "
                "its code, such as ProcessPoolExecutor(pickler=cloudpickle)"
            )
            raise DecodeError(
                f"the worker can't unpickle the call: {type(error).__name__}: {error}"
                f"{advice if '__main__' in str(error) else ''}",
                outcome=Outcome.NONE,
            ) from error


def run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each of several items."""
    return [function(*args) for args in chunk]


def _prepare(preparation: bytes) -> None:
    """Make this process like the one that starts it, as ``multiprocessing`` does: above all,
    import the main module, as ``__mp_main__``.
    """
    with importing():
        spawn.prepare(unpack([preparation], DEFAULT_PICKLER))


def _tell_parent(host: int) -> None:
    """Have ``multiprocessing.parent_process()`` give the host: programs ask it whether they are in
    a worker.
    """
    if sys.platform == "linux":
        internals = cast(Any, process)
        with contextlib.suppress(OSError):  # refused in some containers
            sentinel = os.pidfd_open(host)
            internals._parent_process = internals._ParentProcess("MainProcess", host, sentinel)


def _share_tracker() -> None:
    """Use the resource tracker of the host, or none if it has none: one of this process's own would
    unlink, when this process ends, shared memory that others use.
    """
    try:
        os.fstat(TRACKER)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), TRACKER, inheritable=False)
    cast(Any, resource_tracker)._resource_tracker._fd = TRACKER
