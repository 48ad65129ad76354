"""The workers of a pool: started, replaced when they die, retired, stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from snakepit.adapter import Adapter, DirectWorker, WorkerSpec
from snakepit.adapter_worker import AdapterWorker
from snakepit.calls import Call, CallOutcome
from snakepit.errors import (
    AdapterInitFailed,
    PoolClosed,
    PoolStartFailed,
    WorkerLost,
    WorkerStartFailed,
)
from snakepit.link.host_calls import HostFunction
from snakepit.stats import WorkerInfo
from snakepit.supervision.restarts import RestartBudget

logger = logging.getLogger("snakepit.pool")
_FAILURES_IN_A_ROW = 8
_TERMINATE_PATIENCE = 5.0
# A retired worker's other calls may finish for this long.
_RETIRE_PATIENCE = 2.0


class WorkforceOwner(Protocol):
    """What a workforce tells its pool."""

    def worker_ready(self, worker_id: str) -> None:
        """A worker may be given calls."""

    def worker_leaving(self, worker_id: str) -> None:
        """A worker must not be given calls any more; those it has go on."""

    def worker_gone(self, worker_id: str) -> None:
        """A worker is dead, and all its calls have ended."""

    def workforce_broken(self, error: Exception) -> None:
        """Workers keep failing; none will be started any more."""

    def call_ended(self, call: Call) -> None:
        """A worker has ended a call, and its caller is answered."""


class Workforce:
    """Keeps ``size`` workers ready for its owner.

    A worker that leaves (retired, or with a call that would not stop) gets no new calls; its
    successor starts at once.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        name: str,
        size: int,
        concurrency: int,
        start_timeout: float,
        host_functions: Mapping[str, HostFunction],
    ) -> None:
        self.size = size
        self.workers: dict[str, DirectWorker] = {}
        self.starting = 0
        self.started = 0
        self.lost = 0
        self.broken: Exception | None = None
        self._adapter = adapter
        self._name = name
        self.concurrency = concurrency
        self._start_timeout = start_timeout
        self._host_functions = host_functions
        self._budget = RestartBudget(limit=_FAILURES_IN_A_ROW)
        self._numbers = 0
        self._completed: dict[str, int] = {}
        # Those that leave, with the timer that ends them at the latest.
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._owner: WorkforceOwner | None = None

    # --- start and stop ----------------------------------------------------------------------

    async def start(self, owner: WorkforceOwner) -> None:
        """Start all workers; return when each has come up or failed. Failed ones are tried again
        later.

        Raises:
            AdapterInitFailed: the adapter's ``init`` raised.
            PoolStartFailed: not one came up. Everything is stopped again.
        """
        self._owner = owner
        init = getattr(self._adapter, "init", None)
        if init is not None:
            try:
                await init()
            except Exception as error:
                raise AdapterInitFailed(f"the adapter could not be initialized: {error}") from error
        try:
            starts = (self._start_worker() for _ in range(self.size))
            results = await asyncio.gather(*starts, return_exceptions=True)
            failures = [result for result in results if isinstance(result, BaseException)]
            if len(failures) == self.size:
                raise _start_failed(self._name, failures) from failures[0]
        except BaseException:
            await self.stop("failed to start", grace=0.0)
            raise
        for failure in failures:
            logger.warning("pool %s: a worker did not start: %s", self._name, failure)
            self._replace(self._budget.record_failure())

    async def stop(self, reason: str, *, grace: float) -> None:
        """Stop all workers, giving each ``grace`` seconds to finish, then the adapter."""
        self._stopping = True
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(worker.stop(grace) for worker in tuple(self.workers.values())))
        terminate = getattr(self._adapter, "terminate", None)
        if terminate is None:
            return
        try:
            await asyncio.wait_for(terminate(reason), _TERMINATE_PATIENCE)
        except Exception:
            logger.exception("pool %s: the adapter's terminate() failed", self._name)

    async def _start_worker(self) -> None:
        self._numbers += 1
        worker_id = f"{self._name}-{self._numbers}"
        spec = WorkerSpec(
            worker_id=worker_id,
            pool_size=self.size,
            concurrency=self.concurrency,
            host_functions=self._host_functions,
        )
        self.starting += 1
        try:
            worker = await asyncio.wait_for(self._new_worker(spec), self._start_timeout)
        except TimeoutError as error:
            raise WorkerStartFailed(
                f"worker {worker_id} was not ready within {self._start_timeout:g} s; "
                "raise start_timeout if its imports take that long"
            ) from error
        finally:
            self.starting -= 1
        if self._stopping:
            await worker.stop(0.0)
            raise PoolClosed(f"pool {self._name!r} was closed while {worker_id} started")
        worker.attach(self)
        self.started += 1
        self.workers[worker_id] = worker
        self._completed[worker_id] = 0
        if self._owner is not None:
            self._owner.worker_ready(worker_id)

    async def _new_worker(self, spec: WorkerSpec) -> DirectWorker:
        start_worker = getattr(self._adapter, "start_worker", None)
        worker = None if start_worker is None else await start_worker(spec)
        if hasattr(worker, "start_call"):
            return worker  # type: ignore[return-value]  # a DirectWorker, by that method
        return AdapterWorker(self._adapter, worker, spec.worker_id)

    # --- replacing ---------------------------------------------------------------------------

    def _replace(self, delay: float) -> None:
        """Start a worker in the background, after ``delay`` seconds."""
        if self._budget.is_spent:
            self._break(WorkerStartFailed(f"{self._budget.failures} workers in a row failed"))
        elif not self._stopping:
            self._in_background(self._start_later(delay))

    async def _start_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await self._start_worker()
        except Exception as error:  # a custom adapter may raise anything
            logger.warning("pool %s: a worker did not start: %s", self._name, error)
            delay = self._budget.record_failure()
            if self._budget.is_spent:
                self._break(error)
            else:
                self._replace(delay)

    def _break(self, error: Exception) -> None:
        logger.error("pool %s: its workers keep failing, it gives up: %s", self._name, error)
        self.broken = error
        if self._owner is not None:
            self._owner.workforce_broken(error)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- WorkerEvents ------------------------------------------------------------------------

    def call_ended(self, worker_id: str, call: Call, *, interrupted: bool) -> None:
        """Pass on the end of a call; a worker whose code was broken off is replaced."""
        self._completed[worker_id] += 1
        if call.outcome is CallOutcome.SUCCEEDED:
            self._budget.record_success()
        if interrupted:
            self.retire(worker_id, "recycled: a call of it was broken off")
        if self._owner is not None:
            self._owner.call_ended(call)
        if worker_id in self._leaving:
            self._end_if_unwanted(worker_id)

    def worker_dying(self, worker_id: str) -> None:
        """See to it that no slot freed by the death gets a call."""
        if self._owner is not None:
            self._owner.worker_leaving(worker_id)

    def worker_lost(self, worker_id: str, error: WorkerLost) -> None:
        """Replace a worker that died."""
        self.workers.pop(worker_id, None)
        self._completed.pop(worker_id, None)
        timer = self._leaving.pop(worker_id, None)
        if timer is not None:
            timer.cancel()
        if self._owner is not None:
            self._owner.worker_gone(worker_id)
        if self.broken is not None and not self.workers and self._owner is not None:
            self._owner.workforce_broken(self.broken)
        if self._stopping or timer is not None:
            return
        self.lost += 1
        logger.warning("pool %s: %s", self._name, error)
        self._replace(self._budget.record_failure())

    # --- leaving -----------------------------------------------------------------------------

    def retire(self, worker_id: str, reason: str) -> None:
        """Replace a living worker: its successor starts; it ends when its calls are unwanted."""
        worker = self.workers.get(worker_id)
        if worker is None or worker_id in self._leaving:
            return
        loop = asyncio.get_running_loop()
        self._leaving[worker_id] = loop.call_later(_RETIRE_PATIENCE, worker.kill, reason)
        if self._owner is not None:
            self._owner.worker_leaving(worker_id)
        self._replace(0.0)
        self._end_if_unwanted(worker_id, reason)

    def _end_if_unwanted(self, worker_id: str, reason: str = "retired") -> None:
        worker = self.workers.get(worker_id)
        if worker is not None and not worker.wanted:
            worker.kill(reason)

    # --- looking -----------------------------------------------------------------------------

    def infos(self) -> list[WorkerInfo]:
        """The workers that are up, oldest first."""
        return [
            WorkerInfo(
                worker_id=worker_id,
                pid=worker.pid,
                in_flight=worker.in_flight,
                completed=self._completed[worker_id],
                leaving=worker_id in self._leaving,
                # Only workers of the built-in kind share memory.
                shared_memory_bytes=getattr(worker, "shared_memory_bytes", 0),
            )
            for worker_id, worker in self.workers.items()
        ]


def _start_failed(name: str, failures: list[BaseException]) -> PoolStartFailed:
    reasons = "".join(f"\n  - {failure}" for failure in dict.fromkeys(map(str, failures)))
    return PoolStartFailed(
        f"pool {name!r}: none of its {len(failures)} workers started:{reasons}",
        details={"failures": [str(failure) for failure in failures]},
    )
