"""snakepit: the pool with its defaults, with a feature off, and one worker without a pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from benchmarks.pool.contenders.base import AsyncPool, BlockingPool, Contender, Setup
from snakepit import Pool, PythonAdapter
from snakepit.adapters.adapter import CallOptions, WorkerSpec
from snakepit.loops.loop_thread import LoopThread

_WORKERS = "benchmarks.pool.contenders.snakepit_worker"
_ARGUMENT = {
    "echo": "data", "echo_async": "data", "total": "array", "nap": "seconds",
    "use_dspy": "task", "count": "up_to", "score": "x", "score_together": "x",
}  # fmt: skip
_POLL = 0.0005


class SnakepitContender(Contender):
    """A pool. ``options``: what a variant sets; anything else is the default."""

    runs_async = True

    def __init__(self, **options: Any) -> None:
        self._options = options

    async def open(self, setup: Setup) -> SnakepitPool:
        pool = Pool(
            PythonAdapter(f"{_WORKERS}:{'DspyWorker' if setup.dspy else 'Worker'}"),
            size=setup.size,
            concurrency=setup.concurrency,
            **self._options,
        )
        await pool.start()
        # It returns with the first worker, and a measure wants them all.
        while pool.stats().ready < setup.size:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(_POLL)
        return SnakepitPool(pool)


class ThreadContender(Contender):
    """The pool in a program that has no event loop, and so calls it in a thread that has one."""

    async def open(self, setup: Setup) -> ThreadPool:
        thread = LoopThread("benchmark", owner="pool")
        opened = thread.run(SnakepitContender().open(setup))
        return ThreadPool(thread, opened)


class ThreadPool(BlockingPool):
    """Each call waits for its result."""

    def __init__(self, thread: LoopThread, pool: SnakepitPool) -> None:
        self._thread = thread
        self._pool = pool

    def submit(self, command: str, argument: Any) -> Any:
        return self._pool.call(command, argument)

    def result(self, handle: Any) -> Any:
        return self._thread.run(handle)

    async def close(self) -> None:
        self._thread.run(self._pool.close())
        self._thread.stop()


class SnakepitPool(AsyncPool):
    """The pool as a contender."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def call(self, command: str, argument: Any) -> Any:
        return await self._pool.execute(command, {_ARGUMENT[command]: argument}, timeout=60.0)

    async def stream(self, command: str, argument: Any) -> AsyncIterator[Any]:
        """The items of a streaming command."""
        items = self._pool.execute_stream(command, {_ARGUMENT[command]: argument}, timeout=60.0)
        async with aclosing(items):
            async for item in items:
                yield item

    async def close(self) -> None:
        await self._pool.aclose()


class ConnectionContender(Contender):
    """One worker and no pool: what scheduling, deadlines and supervision cost is the difference."""

    async def open(self, setup: Setup) -> ConnectionPool:
        if setup.size != 1:
            raise ValueError("a connection has one worker")
        adapter = PythonAdapter(f"{_WORKERS}:Worker")
        await adapter.init()
        spec = WorkerSpec(worker_id="bench", pool_size=1, concurrency=setup.concurrency)
        return ConnectionPool(adapter, await adapter.start_worker(spec))


class ConnectionPool(AsyncPool):
    """The adapter contract, used by hand."""

    def __init__(self, adapter: PythonAdapter, worker: Any) -> None:
        self._adapter = adapter
        self._worker = worker
        self._options = CallOptions(session_id=None, timeout=60.0)

    async def call(self, command: str, argument: Any) -> Any:
        args = {_ARGUMENT[command]: argument}
        return await self._adapter.execute(self._worker, command, args, self._options)

    async def close(self) -> None:
        await self._worker.stop(1.0)
        await self._adapter.terminate("measured")
