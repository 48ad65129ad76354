"""Threads that do the jobs of a storage, and how jobs get to them and back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from snakepit.loops.doorbell import Doorbell
from snakepit.loops.wakeups import WakeUps
from snakepit_grpc_bridge.errors import OutcomeUnknown, StorageUnavailable
from snakepit_grpc_bridge.storage.sql.engine import Engine, Job

__all__ = ["Threads"]

_log = logging.getLogger(__name__)


class Threads:
    """Threads that share a queue of jobs, each with an engine of its own.

    Its methods are for the event loop in which it is started.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._jobs: deque[Job] = deque()
        self._done: deque[list[Job]] = deque()
        self._pending: set[Job] = set()
        self._delivered = 0
        self._wakeups = WakeUps()
        self._ending = False
        self._running = 0
        self._leaving = threading.Lock()
        self._ends: list[asyncio.Future[None]] = []

    def start(self, finish: Callable[[list[Job]], None]) -> None:
        """Start them; ``finish`` is called in the event loop with the jobs that have ended.

        Raises:
            StorageUnavailable: the system gives no more threads or descriptors. :meth:`end` is for
                those that were started.
        """
        self._loop = asyncio.get_running_loop()
        self._finish = finish
        try:
            self._to_do, self._answers = Doorbell(), Doorbell()
            for engine in self._engines:
                self._start_one(engine)
            self._loop.add_reader(self._answers.fileno(), self._answered)
        except (OSError, RuntimeError) as error:
            raise StorageUnavailable(
                f"the storage can't be opened: {error}; let this process have more threads and "
                "open files, or have fewer of them open"
            ) from error

    def _start_one(self, engine: Engine) -> None:
        ended = self._loop.create_future()
        # Daemons, so that a server which never answers doesn't keep the program from ending.
        threading.Thread(
            target=self._serve, args=(engine, ended), name="snakepit-storage", daemon=True
        ).start()
        self._ends.append(ended)
        self._running += 1

    def submit(self, job: Job) -> None:
        """Have a job done."""
        self._pending.add(job)
        self._jobs.append(job)
        self._to_do.ring()

    def tell_to_end(self) -> None:
        """Have the threads end when they have done what was submitted."""
        if self._ends and not self._ending:
            self._ending = True
            self._to_do.ring()

    async def end(self, patience: float) -> None:
        """Wait until what was submitted is done and the threads have ended.

        Those that get nothing done for ``patience`` seconds are left behind.
        """
        self.tell_to_end()
        left = set(self._ends)  # none if they could not be started
        while left:
            before = self._delivered
            _, left = await asyncio.wait(left, timeout=patience)
            if left and self._delivered == before:
                _log.warning("%d threads of a storage get no answer, and are left", len(left))
                self._abandon()
                return

    def _abandon(self) -> None:
        # A caller who reads what has become of its write must not be overtaken by it.
        self._jobs.clear()
        for job in self._pending:
            job.given_up = OutcomeUnknown(
                "the storage was closed, and had not answered; read before you write again"
            )
            self._wakeups.add(job)

    def _answered(self) -> None:
        self._answers.wait()
        self._deliver()

    def _deliver(self) -> None:
        jobs: list[Job] = []
        while self._done:
            jobs += self._done.popleft()
        self._delivered += 1
        self._pending.difference_update(jobs)
        self._finish(jobs)
        self._wakeups.at_once = True
        for job in jobs:
            self._wakeups.add(job)
        self._wakeups.wake()

    def _ended(self, ended: asyncio.Future[None], was_last: bool) -> None:
        if not ended.done():
            ended.set_result(None)
        if was_last:
            self._loop.remove_reader(self._answers.fileno())
            self._deliver()
            self._close()

    def _close(self) -> None:
        self._to_do.close()
        self._answers.close()

    # --- in a thread -------------------------------------------------------------------------

    def _serve(self, engine: Engine, ended: asyncio.Future[None]) -> None:
        """Run jobs until there are no more to come."""
        while jobs := self._take(engine.at_once):
            wanted = [job for job in jobs if not job.is_cancelled]
            try:
                engine.run(wanted)
            except BaseException as error:  # a bug; whoever waits has to hear of it
                for job in wanted:
                    job.error = job.error or error
            self._done.append(jobs)
            self._answers.ring()
            del jobs, wanted
        engine.close()
        with self._leaving:
            self._running -= 1
            is_last = not self._running
        try:
            self._loop.call_soon_threadsafe(self._ended, ended, is_last)
        except RuntimeError:  # the loop is closed, which has left us behind
            if is_last:
                self._close()

    def _take(self, most: int) -> list[Job]:
        """Wait for jobs, and take that many at most; none: the storage is being closed."""
        while True:
            jobs = _pop(self._jobs, most)
            if self._jobs or (self._ending and not jobs):
                self._to_do.ring()  # for another one
            if jobs or self._ending:
                return jobs
            self._to_do.wait()


def _pop(queue: deque[Job], most: int) -> list[Job]:
    jobs: list[Job] = []
    try:
        while queue and len(jobs) < most:
            jobs.append(queue.popleft())
    except IndexError:
        pass  # another thread took the last one meanwhile
    return jobs
