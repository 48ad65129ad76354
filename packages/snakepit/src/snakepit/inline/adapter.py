"""The adapter that runs a class's commands in the host's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snakepit.adapters.adapter import CallOptions, WorkerSpec, call_worker
from snakepit.inline.values import travelled
from snakepit.inline.worker import InlineWorker
from snakepit.worker.target import split_target


class InlineAdapter:
    """Runs the commands of a Python class in the host's own process: for debuggers, coverage and
    tests. Everything else is as with :class:`~snakepit.PythonAdapter`, whose place it takes.

    Sync commands run in a thread of their worker's, async ones in the host's event loop. Values and
    errors go through the codec, so what can't travel to a process does not travel here; an error
    keeps its traceback, so a debugger finds the frames of the command.

    There is no isolation: a crash is the host's, workers share modules and memory with it, limits
    and environments can't differ. Async code is stopped at its deadline as in a process. A sync
    command can't be broken off: its caller is answered in time, and its worker is replaced if it
    does not end within ``cancel_grace``, but its thread goes on.

    Args:
        target: the class, as ``"package.module:Class"``. It is constructed once for each worker of
            the pool, with ``config``.
        config: keyword arguments for the class; plain data.

    Raises:
        ConfigurationError: ``target`` names no class.
        EncodeError: ``config`` holds a value that could not travel to a process.

    Example::

        adapter = InlineAdapter if "--debug" in sys.argv else PythonAdapter
        async with Pool(adapter("my_worker:Worker"), size=1) as pool:
            ...
    """

    def __init__(self, target: str, *, config: Mapping[str, Any] | None = None) -> None:
        split_target(target)
        self._target = target
        self._config: dict[str, Any] = travelled("config", dict(config or {}))

    def __repr__(self) -> str:
        return f"InlineAdapter({self._target!r})"

    async def start_worker(self, spec: WorkerSpec) -> InlineWorker:
        """Construct an object of the class; the pool calls this."""
        worker = InlineWorker(self, spec)
        await worker.start(self._target, self._config)
        return worker

    async def execute(
        self, worker: InlineWorker, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> Any:
        """Run a command outside a pool. (A pool hands its calls to the worker directly.)"""
        return await call_worker(worker, command, args, options)
