"""The workers of a pool: started, replaced when they die, retired, stopped."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from snakepit._logs import steady_logger
from snakepit.calls.call import Call, CallOutcome
from snakepit.calls.stats import WorkerInfo
from snakepit.errors import (
    AdapterInitFailed,
    PoolClosed,
    PoolStartFailed,
    WorkerError,
    WorkerHung,
    WorkerStartFailed,
)
from snakepit.loops.wakeups import WakeUps
from snakepit.supervision import events
from snakepit.supervision.heartbeat import Heartbeat, Verdict
from snakepit.supervision.launcher import Launcher
from snakepit.supervision.member import Member, Standing
from snakepit.supervision.monitor import Answering, Monitor, kill_hung
from snakepit.supervision.owner import WorkforceOwner
from snakepit.supervision.recycling import RecyclePolicy, recycled_at_once
from snakepit.supervision.restarts import RestartBudget
from snakepit.supervision.roster import Roster, current_task
from snakepit.supervision.sizing import Sizing, worker_limit
from snakepit.supervision.staffing import Staff, moves
from snakepit.telemetry import bus

logger = steady_logger("snakepit.pool")
_FAILURES_IN_A_ROW = 8
_TERMINATE_PATIENCE = 5.0
# An unwanted worker's other calls may finish for this long.
_RETIRE_PATIENCE = 2.0
# How long a recycled worker's own cleanup may take, once its calls have ended.
_DRAINED_PATIENCE = 5.0
# A worker whose successor did not start is left alone for this long.
_RECYCLE_AGAIN = 5.0
# When one that did not start was one more than there have to be, the next is tried after this long.
_GROW_AGAIN = 5.0
_T = TypeVar("_T")
_COMPLETED = (CallOutcome.SUCCEEDED, CallOutcome.FAILED)
# Reading an enumeration's member takes ten times as long as reading a name.
_SERVING = Standing.SERVING


class Workforce:
    """Keeps the workers ready that its owner is to have, and some spare ones beyond them.

    A worker that dies, hangs or is unwanted (a call of it would not stop) is replaced at once. One
    that is recycled serves until its successor is ready, and ends after the calls it has. Where an
    adapter can't have one more, the successor is started when that one has ended.
    """

    def __init__(
        self,
        launcher: Launcher,
        *,
        name: str,
        sizing: Sizing,
        wakeups: WakeUps,
        recycle: RecyclePolicy | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.name = name
        self.sizing = sizing
        #: How many workers there are to be that take calls.
        self.size = sizing.min
        self.concurrency = launcher.concurrency
        self.wakeups = wakeups
        self.roster = Roster(worker_limit(launcher.adapter))
        self.starting = self.started = self.lost = self.recycled = 0
        self.broken: Exception | None = None
        self.budget = RestartBudget(limit=_FAILURES_IN_A_ROW)
        self.monitor = Monitor(self, heartbeat, recycle, probe_busy=self.concurrency > 1)
        self.launcher = launcher
        self.adapter = launcher.adapter
        self._policy = recycle or RecyclePolicy()
        self._max_calls = self._policy.max_calls or math.inf
        self._numbers = 0
        self._generation = 0
        self._recycling = asyncio.Semaphore(recycled_at_once(sizing.most))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._owner: WorkforceOwner  # from the start on; nothing happens before
        # Looked at for every call.
        self.workers = self.roster.workers
        self.members = self.roster.members

    # --- start and stop ----------------------------------------------------------------------

    async def start(self, owner: WorkforceOwner) -> None:
        """Start all workers; return when each has come up or failed. Failed ones are tried again
        later, and spare ones follow.

        Raises:
            AdapterInitFailed: the adapter's ``init`` raised.
            PoolStartFailed: not one came up. Everything is stopped again.
        """
        self._owner = owner
        init = getattr(self.adapter, "init", None)
        if init is not None:
            try:
                await init()
            except Exception as error:
                raise AdapterInitFailed(f"the adapter could not be initialized: {error}") from error
        try:
            starts = [self._in_background(self._start_worker()) for _ in range(self.size)]
            self.roster.starts.update(dict.fromkeys(starts))
            results = await asyncio.gather(*starts, return_exceptions=True)
            for start in starts:
                # One that failed counted as coming until now, so that it was not tried again.
                self.roster.starts.pop(start, None)
            failures = [result for result in results if isinstance(result, BaseException)]
            if len(failures) == self.size:
                raise PoolStartFailed.of(self.name, failures) from failures[0]
        except BaseException:
            await self.stop("failed to start", grace=0.0)
            raise
        delay = 0.0
        for failure in failures:
            logger.warning("pool %s: a worker did not start: %s", self.name, failure)
            delay = self.budget.record_failure(time.monotonic())
        self._fill(delay)
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
        terminate = getattr(self.adapter, "terminate", None)
        if terminate is None:
            return
        try:
            await asyncio.wait_for(terminate(reason), _TERMINATE_PATIENCE)
        except Exception:
            logger.exception("pool %s: the adapter's terminate() failed", self.name)

    async def _start_worker(self) -> str:
        """Start one that counts as coming until it is up; return its id."""
        member = await self._bring_up()
        self.roster.starts.pop(current_task(), None)
        self._enlist(member)
        return member.worker.worker_id

    async def _bring_up(self) -> Member:
        self._numbers += 1
        worker_id = f"{self.name}-{self._numbers}"
        generation, began_at = self._generation, time.monotonic()
        self.starting += 1
        try:
            worker = await self.launcher.launch(self.name, worker_id, self.sizing.most)
        finally:
            self.starting -= 1
        if self._stopping:
            await worker.stop(0.0)
            raise PoolClosed(f"pool {self.name!r} was closed while {worker_id} started")
        worker.attach(self)
        member = Member(
            worker,
            started_at=time.monotonic(),
            age_limit=self._policy.age_limit(random.random()),
            pulse=self.monitor.new_pulse(),
            generation=generation,
        )
        if bus.listening:
            events.ready(self.name, worker_id, member, began_at)
        return member

    def _enlist(self, member: Member) -> None:
        self.started += 1
        self.roster.enlist(member)
        self.settle()
        if member.generation != self._generation:
            self.recycle(member.worker.worker_id, "it was started before the code was reloaded")

    # --- as many as there are to be ----------------------------------------------------------

    def resize(self, sizing: Sizing) -> None:
        """Have as many workers as ``sizing`` says, from now on."""
        self.sizing = sizing
        self._recycling = asyncio.Semaphore(recycled_at_once(sizing.most))
        self.have(min(max(self.size, sizing.min), sizing.most))

    def have(self, size: int) -> None:
        """Have ``size`` workers that take calls: missing ones are started in the background, those
        too many leave after the calls they have.
        """
        self.size = size
        self.settle()

    def settle(self, delay: float = 0.0, *, replacing: bool = False) -> None:
        """Do what is needed to have the workers there are to be; starts begin after ``delay``
        seconds. ``replacing``: a worker is missing that died, or is unwanted.
        """
        while not self._stopping and self.broken is None and (todo := moves(self._staff())):
            for worker_id in todo.promote:
                self._promote(worker_id)
            for worker_id in (*todo.let_go, *todo.dismiss):
                try:
                    self._leave(worker_id, Standing.DRAINING, "leaves: fewer are needed")
                except Exception:  # the others leave all the same
                    logger.exception("pool %s: worker %s can't be let go", self.name, worker_id)
            for _ in range(todo.start):
                self._start_later(delay, replacing)
            for task in self.roster.coming()[: todo.call_off]:
                del self.roster.starts[task]
                task.cancel()

    def _staff(self) -> Staff:
        sessions: Mapping[str, int] = {}
        if self.roster.serving > self.size:
            sessions = self._owner.sessions_by_worker()
        return self.roster.staff(size=self.size, spares=self.sizing.spares, sessions=sessions)

    def _promote(self, worker_id: str) -> None:
        member = self.members.get(worker_id)
        if member is not None and member.standing is Standing.SPARE:
            member.standing = Standing.SERVING
            self._owner.worker_ready(worker_id)

    def _start_later(self, delay: float, replacing: bool) -> None:
        """Start a worker in the background, after ``delay`` seconds."""
        starts = self.roster.starts
        task = self._in_background(self._start_after(delay, replacing))
        starts[task] = None
        task.add_done_callback(lambda _: starts.pop(task, None))

    async def _start_after(self, delay: float, replacing: bool) -> None:
        try:
            await asyncio.sleep(delay)
            worker_id = await self._start_worker()
            if bus.listening and replacing:
                events.restarted(self.name, worker_id, delay)
        except Exception as error:  # a custom adapter may raise anything
            self.roster.starts.pop(current_task(), None)
            logger.warning("pool %s: a worker did not start: %s", self.name, error)
            if self.roster.serving >= self.sizing.min:
                # It was to be one more than there have to be: no reason to give up, or to hurry.
                self.settle(_GROW_AGAIN)
            else:
                self._fill(self.budget.record_failure(time.monotonic()), error)

    def reset_restarts(self) -> None:
        """Forget the failures so far; start the workers that are missing because of them."""
        self.budget.record_success()
        self.broken = None
        self.settle(replacing=True)

    def _fill(self, delay: float, error: Exception | None = None) -> None:
        """Start the workers that are missing, unless that has failed too often."""
        if self.budget.is_spent:
            count = self.budget.failures
            self._break(error or WorkerStartFailed(f"{count} workers in a row failed"))
        else:
            self.settle(delay, replacing=True)

    def _break(self, error: Exception) -> None:
        logger.error("pool %s: its workers keep failing, it gives up: %s", self.name, error)
        self.broken = error
        if bus.listening:
            events.broken(self.name, self.budget.failures, error)
        self._owner.workforce_broken(error)

    def _in_background(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- WorkerEvents ------------------------------------------------------------------------

    def worker_answered(self, worker_id: str) -> None:
        """Pass on that a worker has all that it has asked for."""
        self._owner.worker_answered(worker_id)

    def call_ended(self, worker_id: str, call: Call, *, interrupted: bool) -> None:
        """Pass on the end of a call; a worker whose code was broken off is replaced."""
        member = self.members[worker_id]
        member.completed += 1
        if self.budget.failures and call.outcome in _COMPLETED and not member.is_dying:
            self.budget.record_success()
        if interrupted:
            self.retire(worker_id, "a call of it was broken off")
        elif member.completed >= self._max_calls:
            self._end_service(worker_id, member)
        elif member.is_probe_due:
            self.monitor.probe(worker_id, member)  # before its next call starts
        self._owner.call_ended(call)
        if member.standing is not _SERVING:
            self._end_if_unwanted(worker_id, member)

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """Pass on the calls that a worker will not start; it may be unwanted without them."""
        self._owner.calls_recalled(worker_id, calls)
        member = self.members.get(worker_id)
        if member is not None and member.standing is not Standing.SERVING:
            self._end_if_unwanted(worker_id, member)

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """Pass on which calls may have killed a worker."""
        self._owner.calls_crashed(calls, error)

    def worker_dying(self, worker_id: str) -> None:
        """See to it that no slot freed by the death gets a call."""
        self.members[worker_id].is_dying = True
        self._owner.worker_leaving(worker_id)

    def worker_lost(self, worker_id: str, error: WorkerError) -> None:
        """Replace a worker that died."""
        member = self.roster.strike(worker_id)
        if member is None:
            return
        member.gone.set()
        if member.timer is not None:
            member.timer.cancel()
        self._owner.worker_gone(worker_id)
        if self.broken is not None and not self.workers:
            self._owner.workforce_broken(self.broken)
        standing, member.standing = member.standing, Standing.GONE
        planned = self._stopping or standing.is_leaving
        if bus.listening:
            events.lost(self.name, worker_id, member, error, planned=planned)
        if planned:
            self.settle()  # perhaps there is room for another one now
            return
        self.lost += 1
        logger.warning("pool %s: %s", self.name, error)
        if isinstance(error, WorkerHung) and error.stacks:
            logger.warning("the stacks of worker %s:\n%s", worker_id, error.stacks)
        self._fill(self.budget.record_death(time.monotonic(), member.started_at))

    # --- MonitorOwner ------------------------------------------------------------------------

    def worker_hung(self, worker_id: str, verdict: Verdict, silent_s: float) -> None:
        """Kill a worker that will never answer again; its death is handled as any other."""
        reason = f"{verdict.value}, it has not answered for {silent_s:g} s"
        worker = self.workers[worker_id]
        if bus.listening:
            events.hung(self.name, worker_id, self.members[worker_id], verdict, silent_s)
        if isinstance(worker, Answering):
            self.worker_dying(worker_id)
            self._in_background(kill_hung(worker, verdict, reason))

    def recycle(self, worker_id: str, reason: str) -> bool:
        """Replace a healthy worker: its successor first; then it ends after the calls it has.

        False if there is no such worker, it is about to leave already, or its successor could not
        be started a moment ago.
        """
        member = self.members.get(worker_id)
        if member is None or self._stopping or time.monotonic() < member.stays_until:
            return False
        if member.standing is Standing.SPARE:
            self._recycle_now(worker_id, reason)
            self.settle()
            return True
        if member.standing is not Standing.SERVING:
            return False
        self._begin_succession(worker_id, member, reason)
        return True

    def _begin_succession(
        self, worker_id: str, member: Member, reason: str
    ) -> asyncio.Task[Exception | None]:
        member.standing = Standing.SUCCEEDED
        return self._in_background(self._succeed(worker_id, member, reason))

    def _end_service(self, worker_id: str, member: Member) -> None:
        """Replace a worker that has ended as many calls as it may."""
        reason = f"it has ended {member.completed} calls"
        if not self._policy.exact:
            self.recycle(worker_id, reason)
        elif member.standing is _SERVING and not self._stopping:
            self._recycle_now(worker_id, reason)
            self.settle()

    async def reload(self) -> None:
        """Replace all workers by ones with the code as it is now, each one's successor first.

        Raises:
            WorkerStartFailed: the new code does not start. The workers that are up serve on.
        """
        reload = getattr(self.adapter, "reload", None)
        if reload is not None:
            await reload()
        self._generation += 1
        reason = "the code was reloaded"
        # Idle ones first: where they have to end before their successors start, they don't wait.
        members = sorted(self.members.items(), key=lambda each: each[1].worker.in_flight)
        for worker_id, member in members:
            if member.standing is Standing.SPARE:
                self.recycle(worker_id, reason)
        successions = [
            self._begin_succession(worker_id, member, reason)
            for worker_id, member in members
            if member.standing is Standing.SERVING and not self._stopping
        ]
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
                if member.standing is not Standing.SUCCEEDED:
                    return None
                successor = await self._bring_up_successor(worker_id, member, reason)
        except Exception as error:  # a custom adapter may raise anything
            self._stay(worker_id, member, reason, error)
            return error
        if member.standing is Standing.SUCCEEDED:
            self._recycle_now(worker_id, reason)
        self._enlist(successor)
        return None

    async def _bring_up_successor(self, worker_id: str, member: Member, reason: str) -> Member:
        """Start the successor; where there is no room for both, when the other has ended."""
        task = current_task()
        self.roster.starts[task] = member
        try:
            if (room := self.roster.room) is not None and room < 0:
                self._recycle_now(worker_id, reason)
                await member.gone.wait()
            return await self._bring_up()
        finally:
            self.roster.starts.pop(task, None)

    def _recycle_now(self, worker_id: str, reason: str) -> None:
        self.recycled += 1
        if bus.listening:
            events.recycled(self.name, worker_id, self.members[worker_id], reason)
        self._leave(worker_id, Standing.DRAINING, f"is recycled: {reason}")

    def _stay(self, worker_id: str, member: Member, reason: str, error: Exception) -> None:
        """A worker's successor did not start."""
        logger.warning(
            "pool %s: worker %s stays, though %s: its successor did not start: %s",
            self.name, worker_id, reason, error,
        )  # fmt: skip
        if member.standing is Standing.SUCCEEDED:
            member.standing = Standing.SERVING
            member.stays_until = time.monotonic() + _RECYCLE_AGAIN
        else:  # it left or died meanwhile, or is about to
            self._fill(self.budget.record_failure(time.monotonic()), error)

    # --- leaving -----------------------------------------------------------------------------

    def retire(self, worker_id: str, reason: str) -> None:
        """Replace a worker that is suspect: its successor starts; it is killed when its calls are
        unwanted."""
        member = self.members.get(worker_id)
        if member is None or member.standing is Standing.UNWANTED:
            return
        loop = asyncio.get_running_loop()
        member.timer = loop.call_later(_RETIRE_PATIENCE, member.worker.kill, reason)
        if bus.listening:
            events.tainted(self.name, worker_id, member, reason)
        self._leave(worker_id, Standing.UNWANTED, reason)
        self.settle(replacing=True)

    def _leave(self, worker_id: str, standing: Standing, reason: str) -> None:
        """Give a worker no more calls; whoever calls has its place taken, if need be."""
        member = self.members.get(worker_id)
        if member is None or (member.standing.is_leaving and standing is Standing.DRAINING):
            return
        what = f"is replaced: {reason}" if standing is Standing.UNWANTED else reason
        logger.info("pool %s: worker %s %s", self.name, worker_id, what)
        member.standing = standing
        self._owner.worker_leaving(worker_id)
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
        return [member.info() for member in self.members.values()]
