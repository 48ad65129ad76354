"""The workers of a pool: started, replaced when they die, retired, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from snakepit._logs import steady_logger
from snakepit.adapter import Adapter, DirectWorker, WorkerSpec
from snakepit.adapter_worker import AdapterWorker
from snakepit.calls import Call, CallOutcome
from snakepit.errors import (
    AdapterInitFailed,
    ConfigurationError,
    PoolClosed,
    PoolStartFailed,
    WorkerError,
    WorkerHung,
    WorkerStartFailed,
)
from snakepit.link.host_calls import HostFunction
from snakepit.processes.stacks import StacksUnavailable
from snakepit.stats import WorkerInfo
from snakepit.supervision.heartbeat import Heartbeat, Verdict
from snakepit.supervision.member import Member, Standing
from snakepit.supervision.monitor import Answering, Monitor
from snakepit.supervision.recycling import RecyclePolicy
from snakepit.supervision.restarts import RestartBudget
from snakepit.wakeups import WakeUps

logger = steady_logger("snakepit.pool")
_FAILURES_IN_A_ROW = 8
_TERMINATE_PATIENCE = 5.0
# An unwanted worker's other calls may finish for this long.
_RETIRE_PATIENCE = 2.0
# How long a recycled worker's own cleanup may take, once its calls have ended.
_DRAINED_PATIENCE = 5.0
# A worker whose successor did not start is left alone for this long.
_RECYCLE_AGAIN = 5.0
# At most this part of the workers is being recycled at a time, and at least one.
_RECYCLED_AT_ONCE = 4
_T = TypeVar("_T")
# How long a worker may take to write its stacks: when it is asked for them, before it is killed.
_STACKS_PATIENCE = 2.0
_LAST_STACKS_PATIENCE = 0.2
_COMPLETED = (CallOutcome.SUCCEEDED, CallOutcome.FAILED)
# Reading an enumeration's member takes ten times as long as reading a name.
_SERVING = Standing.SERVING


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

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """A worker crashed while it ran these, which have not ended yet."""

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """A worker has not started these calls, and will not; the first was sent first."""


class Workforce:
    """Keeps ``size`` workers ready for its owner.

    A worker that dies, hangs or is unwanted (a call of it would not stop) is replaced at once. One
    that is recycled serves until its successor is ready, and ends after the calls it has.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        name: str,
        size: int,
        concurrency: int,
        spin: float,
        start_timeout: float,
        cancel_grace: float,
        host_functions: Mapping[str, HostFunction],
        wakeups: WakeUps,
        recycle: RecyclePolicy | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.size = size
        self.wakeups = wakeups
        self.workers: dict[str, DirectWorker] = {}
        self.members: dict[str, Member] = {}
        self.starting = 0
        self.started = 0
        self.lost = 0
        self.recycled = 0
        self.broken: Exception | None = None
        self.budget = RestartBudget(limit=_FAILURES_IN_A_ROW)
        self.monitor = Monitor(self, heartbeat, recycle, probe_busy=concurrency > 1)
        self._adapter = adapter
        self.name = name
        self.concurrency = concurrency
        self._spin = spin
        self._start_timeout = start_timeout
        self._cancel_grace = cancel_grace
        self._host_functions = host_functions
        self._policy = recycle or RecyclePolicy()
        self._max_calls = self._policy.max_calls or math.inf
        self._numbers = 0
        self._generation = 0
        # Replacements that wait or start.
        self._coming = 0
        self._recycling = asyncio.Semaphore(max(1, size // _RECYCLED_AT_ONCE))
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
                raise _start_failed(self.name, failures) from failures[0]
        except BaseException:
            await self.stop("failed to start", grace=0.0)
            raise
        for failure in failures:
            logger.warning("pool %s: a worker did not start: %s", self.name, failure)
            self._replace_failed()
        self.monitor.start()

    async def stop(self, reason: str, *, grace: float) -> None:
        """Stop all workers, giving each ``grace`` seconds to finish, then the adapter."""
        self._stopping = True
        self.monitor.stop()
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
            logger.exception("pool %s: the adapter's terminate() failed", self.name)

    async def _start_worker(self) -> None:
        self._numbers += 1
        worker_id = f"{self.name}-{self._numbers}"
        generation = self._generation
        spec = WorkerSpec(
            worker_id=worker_id,
            pool_size=self.size,
            concurrency=self.concurrency,
            cancel_grace=self._cancel_grace,
            spin=self._spin,
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
            raise PoolClosed(f"pool {self.name!r} was closed while {worker_id} started")
        worker.attach(self)
        self.started += 1
        self.workers[worker_id] = worker
        self.members[worker_id] = Member(
            worker,
            started_at=time.monotonic(),
            age_limit=self._policy.age_limit(random.random()),
            pulse=self.monitor.new_pulse(),
        )
        if self._owner is not None:
            self._owner.worker_ready(worker_id)
        if generation != self._generation:
            self.recycle(worker_id, "it was started before the code was reloaded")

    async def _new_worker(self, spec: WorkerSpec) -> DirectWorker:
        start_worker = getattr(self._adapter, "start_worker", None)
        worker = None if start_worker is None else await start_worker(spec)
        if hasattr(worker, "start_call"):
            return worker  # type: ignore[return-value]  # a DirectWorker, by that method
        return AdapterWorker(self._adapter, worker, spec.worker_id)

    # --- replacing the dead ------------------------------------------------------------------

    def reset_restarts(self) -> None:
        """Forget the failures so far; start the workers that are missing because of them."""
        self.budget.record_success()
        self.broken = None
        serving = sum(not member.standing.is_leaving for member in self.members.values())
        for _ in range(self.size - serving - self._coming):
            self._replace(0.0)

    def _replace_failed(self) -> None:
        self._replace(self.budget.record_failure(time.monotonic()))

    def _replace(self, delay: float) -> None:
        """Start a worker in the background, after ``delay`` seconds."""
        if self.budget.is_spent:
            self._break(WorkerStartFailed(f"{self.budget.failures} workers in a row failed"))
        elif not self._stopping:
            self._in_background(self._start_later(delay))

    async def _start_later(self, delay: float) -> None:
        self._coming += 1
        try:
            await asyncio.sleep(delay)
            await self._start_worker()
        except Exception as error:  # a custom adapter may raise anything
            logger.warning("pool %s: a worker did not start: %s", self.name, error)
            delay = self.budget.record_failure(time.monotonic())
            if self.budget.is_spent:
                self._break(error)
            else:
                self._replace(delay)
        finally:
            self._coming -= 1

    def _break(self, error: Exception) -> None:
        logger.error("pool %s: its workers keep failing, it gives up: %s", self.name, error)
        self.broken = error
        if self._owner is not None:
            self._owner.workforce_broken(error)

    def _in_background(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- WorkerEvents ------------------------------------------------------------------------

    def call_ended(self, worker_id: str, call: Call, *, interrupted: bool) -> None:
        """Pass on the end of a call; a worker whose code was broken off is replaced."""
        member = self.members[worker_id]
        member.completed += 1
        if self.budget.failures and call.outcome in _COMPLETED and not member.is_dying:
            self.budget.record_success()
        if interrupted:
            self.retire(worker_id, "recycled: a call of it was broken off")
        elif member.completed >= self._max_calls:
            self.recycle(worker_id, f"it has ended {member.completed} calls")
        elif member.is_probe_due:
            self.monitor.probe(worker_id, member)  # before its next call starts
        if self._owner is not None:
            self._owner.call_ended(call)
        if member.standing is not _SERVING:
            self._end_if_unwanted(worker_id, member)

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """Pass on the calls that a worker will not start; it may be unwanted without them."""
        if self._owner is not None:
            self._owner.calls_recalled(worker_id, calls)
        member = self.members.get(worker_id)
        if member is not None and member.standing is not Standing.SERVING:
            self._end_if_unwanted(worker_id, member)

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """Pass on which calls may have killed a worker."""
        if self._owner is not None:
            self._owner.calls_crashed(calls, error)

    def worker_dying(self, worker_id: str) -> None:
        """See to it that no slot freed by the death gets a call."""
        self.members[worker_id].is_dying = True
        if self._owner is not None:
            self._owner.worker_leaving(worker_id)

    def worker_lost(self, worker_id: str, error: WorkerError) -> None:
        """Replace a worker that died."""
        member = self.members.pop(worker_id, None)
        if member is None:
            return
        del self.workers[worker_id]
        if member.timer is not None:
            member.timer.cancel()
        if self._owner is not None:
            self._owner.worker_gone(worker_id)
        if self.broken is not None and not self.workers and self._owner is not None:
            self._owner.workforce_broken(self.broken)
        standing, member.standing = member.standing, Standing.GONE
        if self._stopping or standing.is_leaving:
            return
        self.lost += 1
        logger.warning("pool %s: %s", self.name, error)
        if isinstance(error, WorkerHung) and error.stacks:
            logger.warning("the stacks of worker %s:\n%s", worker_id, error.stacks)
        delay = self.budget.record_death(time.monotonic(), member.started_at)
        if standing is Standing.SERVING:  # else its successor is being started
            self._replace(delay)

    # --- MonitorOwner ------------------------------------------------------------------------

    def worker_hung(self, worker_id: str, verdict: Verdict, silent_s: float) -> None:
        """Kill a worker that will never answer again; its death is handled as any other."""
        reason = f"{verdict.value}, it has not answered for {silent_s:g} s"
        worker = self.workers[worker_id]
        if isinstance(worker, Answering):
            self.worker_dying(worker_id)
            self._in_background(_kill_hung(worker, verdict, reason))

    async def dump_stacks(self, worker_id: str) -> str:
        """The Python stacks of a worker's threads.

        Raises:
            ConfigurationError: there is no such worker, or it can't tell.
            WorkerHung: it does not react.
        """
        worker: object = self.workers.get(worker_id)
        if not isinstance(worker, Answering):
            raise ConfigurationError(
                f"pool {self.name!r} has no worker {worker_id!r} that can tell its stacks; "
                f"it has {', '.join(self.workers) or 'none'}"
            )
        try:
            return await worker.dump_stacks(_STACKS_PATIENCE)
        except StacksUnavailable as error:
            raise WorkerHung(
                f"worker {worker_id} gave no stacks: {error}", details={"worker_id": worker_id}
            ) from error

    def recycle(self, worker_id: str, reason: str) -> bool:
        """Replace a healthy worker: its successor first; then it ends after the calls it has.

        False if there is no such worker, it is about to leave already, or its successor could not
        be started a moment ago.
        """
        member = self.members.get(worker_id)
        if member is None or member.standing is not Standing.SERVING or self._stopping:
            return False
        if time.monotonic() < member.stays_until:
            return False
        member.standing = Standing.SUCCEEDED
        self._in_background(self._succeed(worker_id, member, reason))
        return True

    async def reload(self) -> None:
        """Replace all workers by ones with the code as it is now, each one's successor first.

        Raises:
            WorkerStartFailed: the new code does not start. The workers that are up serve on.
        """
        reload = getattr(self._adapter, "reload", None)
        if reload is not None:
            await reload()
        self._generation += 1
        successions = []
        for worker_id, member in tuple(self.members.items()):
            if member.standing is Standing.SERVING and not self._stopping:
                member.standing = Standing.SUCCEEDED
                work = self._succeed(worker_id, member, "the code was reloaded")
                successions.append(self._in_background(work))
        if successions:
            # Not gathered: a caller that goes away must not leave workers without successors.
            await asyncio.wait(successions)
        for succession in successions:
            if not succession.cancelled() and (error := succession.result()) is not None:
                raise error

    async def _succeed(self, worker_id: str, member: Member, reason: str) -> Exception | None:
        """Start a worker's successor, then let it go; return why it stays, if it does."""
        try:
            async with self._recycling:
                await self._start_worker()
        except Exception as error:  # a custom adapter may raise anything
            logger.warning(
                "pool %s: worker %s stays, though %s: its successor did not start: %s",
                self.name, worker_id, reason, error,
            )  # fmt: skip
            if member.standing is Standing.SUCCEEDED:
                member.standing = Standing.SERVING
                member.stays_until = time.monotonic() + _RECYCLE_AGAIN
            else:
                self._replace_failed()  # it died meanwhile, or is about to
            return error
        if member.standing is Standing.SUCCEEDED:
            self._drain(worker_id, member, reason)
        return None

    def _drain(self, worker_id: str, member: Member, reason: str) -> None:
        logger.info("pool %s: worker %s is recycled: %s", self.name, worker_id, reason)
        self.recycled += 1
        member.standing = Standing.DRAINING
        if self._owner is not None:
            self._owner.worker_leaving(worker_id)
        member.worker.recall(0.0)
        self._end_if_unwanted(worker_id, member, reason)

    # --- leaving -----------------------------------------------------------------------------

    def retire(self, worker_id: str, reason: str) -> None:
        """Replace a worker that is suspect: its successor starts; it is killed when its calls are
        unwanted."""
        member = self.members.get(worker_id)
        if member is None or member.standing is Standing.UNWANTED:
            return
        has_successor = member.standing is not Standing.SERVING
        loop = asyncio.get_running_loop()
        member.standing = Standing.UNWANTED
        member.timer = loop.call_later(_RETIRE_PATIENCE, member.worker.kill, reason)
        if self._owner is not None:
            self._owner.worker_leaving(worker_id)
        if not has_successor:
            self._replace(0.0)
        member.worker.recall(0.0)
        self._end_if_unwanted(worker_id, member, reason)

    def _end_if_unwanted(self, worker_id: str, member: Member, reason: str = "retired") -> None:
        if member.standing is Standing.UNWANTED and not member.worker.wanted:
            member.worker.kill(reason)
        elif member.standing is Standing.DRAINING and not member.worker.in_flight:
            self._in_background(member.worker.stop(_DRAINED_PATIENCE))

    # --- looking -----------------------------------------------------------------------------

    def infos(self) -> list[WorkerInfo]:
        """The workers that are up, oldest first."""
        return [
            WorkerInfo(
                worker_id=worker_id,
                pid=member.worker.pid,
                in_flight=member.worker.in_flight,
                completed=member.completed,
                leaving=member.standing.is_leaving,
                # Only workers of the built-in kind share memory.
                shared_memory_bytes=getattr(member.worker, "shared_memory_bytes", 0),
            )
            for worker_id, member in self.members.items()
        ]


async def _kill_hung(worker: Answering, verdict: Verdict, reason: str) -> None:
    stacks = ""
    if verdict is Verdict.DEADLOCKED:  # a stopped one can't write them
        with contextlib.suppress(StacksUnavailable):
            stacks = await worker.dump_stacks(_LAST_STACKS_PATIENCE)
    worker.kill_hung(reason, stacks)


def _start_failed(name: str, failures: list[BaseException]) -> PoolStartFailed:
    reasons = "".join(f"\n  - {failure}" for failure in dict.fromkeys(map(str, failures)))
    return PoolStartFailed(
        f"pool {name!r}: none of its {len(failures)} workers started:{reasons}",
        details={"failures": [str(failure) for failure in failures]},
    )
