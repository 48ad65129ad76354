"""The executors of the standard library, snakepit, loky and pebble."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from benchmarks.pool import commands
from benchmarks.pool.contenders.base import BlockingPool, Contender, Setup

Functions = dict[str, Callable[..., Any]]
FUNCTIONS: Functions = {
    name: getattr(commands, name) for name in ("echo", "total", "nap", "use_dspy")
}


class ExecutorPool(BlockingPool):
    """A ``concurrent.futures.Executor``. One worker's death breaks all of it: then a new one has to
    be made."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create
        self._executor = create()

    def submit(self, command: str, argument: Any) -> Any:
        return self._executor, self._executor.submit(FUNCTIONS[command], argument)

    def result(self, handle: Any) -> Any:
        return handle[1].result()

    def mend(self, error: BaseException) -> None:
        if isinstance(error, BrokenProcessPool) and self._is_broken():
            self._executor.shutdown(wait=False)
            self._executor = self._create()

    def _is_broken(self) -> bool:
        """The errors of calls that were in flight keep coming after it was replaced."""
        try:
            self._executor.submit(commands.echo, b"")
        except BrokenProcessPool:
            return True
        return False

    async def close(self) -> None:
        self._executor.shutdown(wait=True)


class StandardContender(Contender):
    """ProcessPoolExecutor with its default way to start workers."""

    async def open(self, setup: Setup) -> ExecutorPool:
        return ExecutorPool(lambda: concurrent.futures.ProcessPoolExecutor(setup.size))


class PreloadedContender(Contender):
    """ProcessPoolExecutor on a fork server that has imported DSPy: its nearest to a template."""

    async def open(self, setup: Setup) -> ExecutorPool:
        context = multiprocessing.get_context("forkserver")
        if setup.dspy:
            context.set_forkserver_preload(["benchmarks.pool.contenders.warm_dspy"])
        return ExecutorPool(
            lambda: concurrent.futures.ProcessPoolExecutor(setup.size, mp_context=context)
        )


class SnakepitContender(Contender):
    """snakepit's own executor, used as the standard one is."""

    async def open(self, setup: Setup) -> ExecutorPool:
        import snakepit

        return ExecutorPool(lambda: snakepit.ProcessPoolExecutor(setup.size))


class LokyContender(Contender):
    """loky's executor."""

    async def open(self, setup: Setup) -> ExecutorPool:
        import loky

        return ExecutorPool(lambda: loky.ProcessPoolExecutor(setup.size))


class PebbleContender(Contender):
    """pebble's pool, which survives its workers' deaths."""

    async def open(self, setup: Setup) -> PebblePool:
        import pebble

        return PebblePool(pebble.ProcessPool(max_workers=setup.size))


class PebblePool(BlockingPool):
    """``schedule`` instead of ``submit``."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def submit(self, command: str, argument: Any) -> Any:
        return self._pool.schedule(FUNCTIONS[command], args=(argument,))

    def result(self, handle: Any) -> Any:
        return handle.result()

    async def close(self) -> None:
        self._pool.close()
        self._pool.join()
