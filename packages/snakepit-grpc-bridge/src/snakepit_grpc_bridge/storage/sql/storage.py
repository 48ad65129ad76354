"""The event loop's side of a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from snakepit import forks
from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.storage.interface import (
    ReadTransaction,
    Storage,
    Transaction,
    not_open,
)
from snakepit_grpc_bridge.storage.sql.engine import Common, Engine, Job, JobKind
from snakepit_grpc_bridge.storage.sql.threads import Threads

__all__ = ["SqlStorage"]

_T = TypeVar("_T")
#: Seconds that closing waits longer than a transaction would.
_SLACK = 1.0


class SqlStorage(Storage):
    """A database behind threads, each with a connection of its own.

    ``writers`` do all but reads; ``readers`` do these, and are the writers if there are none.
    """

    def __init__(
        self, label: str, common: Common, writers: Sequence[Engine], readers: Sequence[Engine] = ()
    ) -> None:
        super().__init__()
        self._label = label
        self._common = common
        self._writers = Threads(writers)
        self._readers = Threads(readers) if readers else self._writers
        self._groups = [self._writers, self._readers] if readers else [self._writers]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0
        self._open = False
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Storage {self._label}>"

    async def start(self) -> None:
        if self._loop is not None:
            raise ConfigurationError("a storage is opened once; make another one")
        self._loop = asyncio.get_running_loop()
        self._forks = forks.count
        self._open = True
        try:
            for threads in self._groups:
                threads.start(self._finish)
            await self._do(JobKind.PREPARE, self._writers, _nothing)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._loop is None or forks.count != self._forks:
            return
        if self._open:
            self._open = False
            self._common.closing.set()
            # A task of its own: whoever waits for it may be cancelled. And so may this task, before
            # it has begun, by a program that ends: all are told whatever becomes of it.
            self._closing = self._loop.create_task(self._end_all())
            self._closing.add_done_callback(self._tell_all_to_end)
        if self._closing is not None and not self._closing.done():
            await asyncio.shield(self._closing)

    async def _end_all(self) -> None:
        # Those that read come first: the last connection to SQLite clears its log away.
        for threads in reversed(self._groups):
            await threads.end(self._common.timeout + _SLACK)

    def _tell_all_to_end(self, _: object) -> None:
        for threads in self._groups:
            threads.tell_to_end()

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        return cast("_T", await self._do(JobKind.TRANSACT, self._writers, work))

    async def read(self, work: Callable[[ReadTransaction], _T]) -> _T:
        return cast("_T", await self._do(JobKind.READ, self._readers, work))

    async def foreign_version(self) -> str:
        return cast("str", await self._do(JobKind.VERSION, self._writers, _nothing))

    async def _do(self, kind: JobKind, threads: Threads, work: Callable[[Any], Any]) -> Any:
        forked = forks.count != self._forks
        if not self._open or forked:
            raise not_open(forked=self._open and forked)
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError(
                "a storage belongs to the event loop that it was opened in; open another one here"
            )
        job = Job(kind, work)
        threads.submit(job)
        await job
        error = job.given_up or job.error
        if error is not None:
            try:
                raise error
            finally:
                del job, error  # the error's traceback would keep them, and they keep the error
        return job.value

    def _finish(self, jobs: list[Job]) -> None:
        if self._listeners:
            for job in jobs:
                if job.changes and job.error is None:
                    self._tell(job.changes)


def _nothing(tx: object) -> None:
    pass
