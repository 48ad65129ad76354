"""The event loop's side of a database: jobs to the threads of the engines, and back."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from snakepit.errors import ConfigurationError
from snakepit.wakeups import WakeUps
from snakepit_grpc_bridge.errors import OutcomeUnknown
from snakepit_grpc_bridge.storage.interface import (
    ReadTransaction,
    Storage,
    Transaction,
    not_open,
)
from snakepit_grpc_bridge.storage.sql.engine import Common, Engine, Job, JobKind

__all__ = ["SqlStorage"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Seconds that closing waits longer than a transaction would.
_SLACK = 1.0
_Queue = SimpleQueue[Job | None]
_Deliver = Callable[[list[Job]], None]


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
        self._writers = _Threads(writers)
        self._readers = _Threads(readers) if readers else self._writers
        self._groups = [self._writers, self._readers] if readers else [self._writers]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._open = False

    def __repr__(self) -> str:
        return f"<Storage {self._label}>"

    async def start(self) -> None:
        if self._loop is not None:
            raise ConfigurationError("a storage is opened once; make another one")
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._open = True
        for threads in self._groups:
            threads.start(self._finish)
        try:
            await self._do(JobKind.PREPARE, self._writers, _nothing)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if not self._open or os.getpid() != self._pid:
            return
        self._open = False
        self._common.closing.set()
        # Those that read come first: the last connection to SQLite clears its log away.
        for threads in reversed(self._groups):
            await threads.end(self._common.timeout + _SLACK)

    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        return cast("_T", await self._do(JobKind.TRANSACT, self._writers, work))

    async def read(self, work: Callable[[ReadTransaction], _T]) -> _T:
        return cast("_T", await self._do(JobKind.READ, self._readers, work))

    async def foreign_version(self) -> str:
        return cast("str", await self._do(JobKind.VERSION, self._writers, _nothing))

    async def _do(self, kind: JobKind, threads: _Threads, work: Callable[[Any], Any]) -> Any:
        forked = os.getpid() != self._pid
        if not self._open or forked:
            raise not_open(forked=self._open and forked)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise ConfigurationError(
                "a storage belongs to the event loop that it was opened in; open another one here"
            )
        job = Job(kind, work)
        threads.submit(job)
        await job
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # the error's traceback would keep it, and it keeps the error
        return job.value

    def _finish(self, jobs: list[Job]) -> None:
        if self._listeners:
            for job in jobs:
                if job.changes:
                    self._tell(job.changes)


class _Threads:
    """Threads that share a queue of jobs, each with an engine of its own."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._jobs: _Queue = SimpleQueue()
        self._ends: list[asyncio.Future[None]] = []
        self._pending: set[Job] = set()
        self._delivered = 0
        self._wakeups = WakeUps()

    def submit(self, job: Job) -> None:
        self._pending.add(job)
        self._jobs.put(job)

    def start(self, finish: Callable[[list[Job]], None]) -> None:
        """Start them; ``finish`` is called in the event loop with the jobs that have ended."""
        loop = asyncio.get_running_loop()

        def deliver(jobs: list[Job]) -> None:
            self._delivered += 1
            self._pending.difference_update(jobs)
            finish(jobs)
            self._wakeups.at_once = True
            for job in jobs:
                self._wakeups.add(job)
            self._wakeups.wake()

        def tell(callback: Callable[..., None], *args: Any) -> None:
            # Whoever ends the loop without closing the storage wants no answers any more.
            try:  # noqa: SIM105 - suppress() would take as long as the call
                loop.call_soon_threadsafe(callback, *args)
            except RuntimeError:
                pass

        def serve(engine: Engine, ended: asyncio.Future[None]) -> None:
            _serve(engine, self._jobs, partial(tell, deliver))
            tell(_end, ended)

        for engine in self._engines:
            self._ends.append(loop.create_future())
            # Daemons, so that a server which never answers doesn't keep the program from ending.
            threading.Thread(
                target=serve,
                args=(engine, self._ends[-1]),
                name="snakepit-storage",
                daemon=True,
            ).start()

    async def end(self, patience: float) -> None:
        """Wait until what was submitted is done and the threads have ended.

        Those that get nothing done for ``patience`` seconds are left behind.
        """
        for _ in self._ends:
            self._jobs.put(None)  # each of them takes one
        left = set(self._ends)
        while left:
            before = self._delivered
            _, left = await asyncio.wait(left, timeout=patience)
            if left and self._delivered == before:
                _log.warning("%d threads of a storage get no answer, and are left", len(left))
                self._abandon()
                return

    def _abandon(self) -> None:
        for job in self._pending:
            job.error = OutcomeUnknown(
                "the storage was closed, and had not answered; read before you write again"
            )
            self._wakeups.add(job)


def _serve(engine: Engine, queue: _Queue, deliver: _Deliver) -> None:
    """Run jobs until the end is in the queue."""
    going_on = True
    while going_on:
        jobs, going_on = _take(queue, engine.at_once)
        wanted = [job for job in jobs if not job.is_cancelled]
        try:
            engine.run(wanted)
        except BaseException as error:  # a bug; whoever waits has to hear of it
            for job in wanted:
                job.error = job.error or error
        deliver(jobs)
        del jobs, wanted
    engine.close()


def _take(queue: _Queue, most: int) -> tuple[list[Job], bool]:
    """Wait for a job, and take what is behind it; false: there are no more to come."""
    jobs: list[Job] = []
    job = queue.get()
    while job is not None:
        jobs.append(job)
        if len(jobs) == most or queue.empty():
            return jobs, True
        try:
            job = queue.get_nowait()
        except Empty:
            return jobs, True
    return jobs, False


def _nothing(tx: object) -> None:
    pass


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
