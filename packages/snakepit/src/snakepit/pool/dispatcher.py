"""From a submitted call to its end: the event-loop shell around the pure decisions.

It decides nothing itself but when to ask. Which call runs where is the scheduler's decision, which
calls are late the deadlines'; the workforce runs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from snakepit._logs import steady_logger
from snakepit.calls import call_events
from snakepit.calls.call import Call, CallEvent, CallOutcome, CallState
from snakepit.calls.deadlines import Deadlines, timeout_error
from snakepit.calls.look_ahead import PATIENCE, CommandTimes
from snakepit.calls.nesting import find_lender
from snakepit.calls.scheduler import Scheduler
from snakepit.calls.stats import Counters
from snakepit.errors import (
    Outcome,
    PoisonCall,
    PoolBroken,
    PoolSaturated,
    QueueTimeout,
    SessionWorkerUnavailable,
    SnakepitError,
    WorkerBusy,
    WorkerError,
    as_typed,
)
from snakepit.options import Affinity
from snakepit.pool.batching import Batching
from snakepit.pool.explain import Explanation, explain
from snakepit.pool.looking import Looking
from snakepit.pool.readiness import Readiness
from snakepit.supervision.quarantine import Quarantine
from snakepit.supervision.workforce import Workforce
from snakepit.telemetry import bus
from snakepit.wire.credit import Credit
from snakepit.worker.batches import SUFFIX

logger = steady_logger("snakepit.pool")
# Reading an enumeration's member takes ten times as long as reading a name.
_QUEUE: Final = CallEvent.QUEUE
_START: Final = CallEvent.START
_END: Final = CallEvent.END
_SUCCEEDED: Final = CallOutcome.SUCCEEDED


class Dispatcher:
    """The calls of one pool. Belongs to the event loop it is used in; satisfies WorkforceOwner."""

    def __init__(
        self,
        name: str,
        workforce: Workforce,
        scheduler: Scheduler,
        *,
        look_ahead: int,
        quarantine: Quarantine,
    ) -> None:
        self.workforce = workforce
        self.scheduler = scheduler
        self.counters = Counters()
        self.running: set[Call] = set()
        self.readiness = Readiness()
        self.name = name
        self.quarantine = quarantine
        self.batching = Batching(self, workforce.wakeups)
        self._grace = workforce.launcher.cancel_grace
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        # For whom all calls have to have ended.
        self._idle: asyncio.Event | None = None
        self._placing = False
        self._look_ahead = look_ahead
        self._times = CommandTimes()
        self._recall_timer: asyncio.TimerHandle | None = None
        self._looking = Looking(workforce.launcher.spin, self.running, workforce.wakeups)

    # --- the start of a call -------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Start a call or queue it; errors of the caller's making are raised here."""
        lender = find_lender(call, self.running, self.scheduler) if call.chain else None
        if lender is None:
            try:
                if self.quarantine.suspects:
                    self.quarantine.require_harmless(call, call.submitted_at)
                short = call.stream is None and self._times.is_short(call.command)
                worker_id = self.scheduler.submit(call, short=short)
            except (PoisonCall, PoolSaturated, SessionWorkerUnavailable, WorkerBusy) as error:
                self.counters.refused += 1
                call.sign(error)
                if bus.listening:
                    call_events.refused(self.name, call, error)
                raise
        else:
            worker_id, call.parent_id = lender.worker_id, lender.call_id
            self.scheduler.borrowed(call, worker_id)
        self.counters.submitted += 1
        now = call.submitted_at
        if call.has_limit:
            self._watch(call, now)
        if worker_id is None:
            call.apply(_QUEUE)
            if bus.listening:
                call_events.submitted(self.name, call)
                call_events.queued(self.name, call, self.scheduler.queued, self._capacity())
        else:
            if bus.listening:
                call_events.submitted(self.name, call)
            self._start(call, worker_id, now)
            worker = self.workforce.workers.get(worker_id)
            if worker is not None and call.stream is None:
                self._looking.for_answer(worker, call)

    def _start(self, call: Call, worker_id: str, now: float) -> None:
        call.worker_id = worker_id
        call.apply(_START)
        call.started_at = now
        self.running.add(call)
        if call.run_limit is not None:
            call.limit_run(now)
            self._watch(call, now)
        try:
            if self.quarantine.suspects:  # perhaps since it was queued
                self.quarantine.require_harmless(call, now)
            self.workforce.workers[worker_id].start_call(call)
        except BaseException as error:
            # What could not be sent holds no slot, whatever the reason.
            call.fail(as_typed(error))
            self.call_ended(call)
        else:
            if self.scheduler.ahead and self._recall_timer is None:
                self._watch_for_slow_calls()
            if bus.listening:
                moves = self.scheduler.take_rebindings()
                call_events.started(self.name, call, self.scheduler.queued, moves)

    def _capacity(self) -> int:
        """How many calls can run at a time."""
        return self.scheduler.open_workers * self.workforce.concurrency

    def start_waiting(self) -> None:
        """Start the queued calls for which there is a slot."""
        if self._placing or not self.scheduler.queued:
            return  # called for a call that ended at its start: the loop below goes on
        self._placing = True
        try:
            while (assignment := self.scheduler.next(self._is_short)) is not None:
                call, worker_id = assignment
                now = time.monotonic()
                limit = call.limit_at(now)
                if limit is None or now < limit:
                    if bus.listening:
                        call_events.left_queue(self.name, call, self.scheduler.queued, "started")
                    self._start(call, worker_id, now)
                else:  # the timer has not come to it yet
                    self.scheduler.release(worker_id)
                    call.fail(self._time_out(call, now))
                    self._close(call)
        finally:
            self._placing = False

    def explain(self, call: Call, affinity: Affinity) -> Explanation:
        """What would become of a call that is not submitted."""
        lender = find_lender(call, self.running, self.scheduler)
        return explain(
            call,
            affinity,
            self.scheduler,
            lender=None if lender is None else lender.worker_id,
            short=self._is_short(call),
        )

    def grant(self, call: Call, credit: Credit) -> None:
        """Let a stream's producer go on, if it still runs."""
        worker = self.workforce.workers.get(call.worker_id or "")
        if worker is not None:
            worker.grant(call, credit)

    # --- looking ahead -------------------------------------------------------------------------

    def _is_short(self, call: Call) -> bool:
        return call.stream is None and self._times.is_short(call.command)

    def _watch_for_slow_calls(self) -> None:
        loop = asyncio.get_running_loop()
        self._recall_timer = loop.call_later(PATIENCE, self._recall_behind_slow_calls)

    def _recall_behind_slow_calls(self) -> None:
        self._recall_timer = None
        for worker_id, worker in tuple(self.workforce.workers.items()):
            if self.scheduler.ahead_of(worker_id):
                if worker.recall(PATIENCE):
                    self.scheduler.hold(worker_id)
                if self._recall_timer is None:
                    self._watch_for_slow_calls()

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """A worker crashed while it ran these. (WorkforceOwner)"""
        calls = [each for call in calls for each in call.members or (call,)]
        for command in self.quarantine.record_crash(calls, error, time.monotonic()):
            logger.error(
                "pool %s: a call of %r is refused from now on: %s", self.name, command, error
            )
            if bus.listening:
                call_events.quarantined(self.name, command, error)

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """A worker has not started these and will not; the first was sent first.
        (WorkforceOwner)
        """
        self.counters.recalled += len(calls)
        self.scheduler.recall_ended(worker_id)
        for call in reversed(calls):
            self.running.discard(call)
            if bus.listening:
                call.keep_correlation_id()
            call.recall()
            self.scheduler.recalled(call, worker_id)
            self._watch(call, time.monotonic())
            if bus.listening:
                call_events.recalled(self.name, call, worker_id)
        self._fail_stranded(worker_id)
        self.start_waiting()

    # --- the end of a call ---------------------------------------------------------------------

    def worker_answered(self, worker_id: str) -> None:
        """A worker has the answers to all its calls to the host. (WorkforceOwner)"""
        worker = self.workforce.workers.get(worker_id)
        if worker is not None:
            self._looking.after_answering(worker)

    def call_ended(self, call: Call) -> None:
        """The worker has ended a call and its slot is free. (WorkforceOwner)"""
        self.running.discard(call)
        if call.parent_id is None and call.worker_id is not None:
            self.scheduler.release(call.worker_id)
        self._close(call)
        if self.scheduler.queue.size:
            self.start_waiting()

    def _close(self, call: Call) -> None:
        """Count a call that holds nothing any more."""
        before = call.state
        call.apply(_END)
        self._deadlines.calls.pop(call, None)
        if call.outcome is _SUCCEEDED:
            self.counters.succeeded += 1
            self._times.record(call.command, call.ran_s)
            if self.quarantine.suspects:
                self.quarantine.acquit(call)
        elif call.outcome is not None:
            self.counters.count(call.outcome)
        if self._idle is not None and self.is_idle():
            self._idle.set()
        if bus.listening:
            call_events.ended(self.name, call, before, self.scheduler.queued)

    def is_idle(self) -> bool:
        """Whether no call runs or waits."""
        return not self.running and not self.scheduler.queue.size

    def give_up(self, call: Call) -> None:
        """The caller has its answer, or went away; see to it that the work stops."""
        self._deadlines.calls.pop(call, None)
        if call.state is CallState.QUEUED:
            self.scheduler.withdraw(call)
            self._close(call)
            self.start_waiting()
        elif call.state is CallState.RUNNING:
            call.apply(CallEvent.STOP)
            worker = self.workforce.workers.get(call.worker_id or "")
            if worker is not None:
                worker.stop_call(call)
                loop = asyncio.get_running_loop()
                if call.stream is not None:
                    loop.call_later(self._grace / 2, self._insist, call)
                loop.call_later(self._grace, self._end_stuck_call, call)
            if bus.listening:
                call_events.answered(self.name, call)

    def _insist(self, call: Call) -> None:
        """Have a stream that did not come to its next item broken off."""
        worker = self.workforce.workers.get(call.worker_id or "")
        if call.state is CallState.STOPPING and worker is not None:
            worker.stop_call(call)

    def _end_stuck_call(self, call: Call) -> None:
        if call.state is CallState.STOPPING and call.worker_id is not None:
            self.workforce.retire(
                call.worker_id,
                f"its call of {call.command!r} did not stop within {self._grace:g} s",
            )

    # --- deadlines -----------------------------------------------------------------------------

    def _watch(self, call: Call, now: float) -> None:
        limit = call.limit_at(now)
        if limit is not None and self._deadlines.add(call, limit):
            self._arm(limit)

    def _time_out(self, call: Call, now: float) -> SnakepitError:
        error = timeout_error(call, now)
        if isinstance(error, QueueTimeout):
            self.counters.queue_timeouts += 1
        return error

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        now = time.monotonic()
        due, next_deadline = self._deadlines.due(now)
        self._fail_all(due, lambda call: self._time_out(call, now))
        if next_deadline is not None:
            self._arm(next_deadline)

    # --- WorkforceOwner --------------------------------------------------------------------------

    def worker_ready(self, worker_id: str) -> None:
        """A worker may be given calls."""
        ahead = self._look_ahead if self.workforce.workers[worker_id].queues else 0
        self.scheduler.add_worker(worker_id, self.workforce.concurrency, ahead=ahead)
        self._look_at_batches()
        self.readiness.changed()
        self.start_waiting()

    def worker_leaving(self, worker_id: str) -> None:
        """A worker must not be given calls any more; those that can run on no other fail."""
        self.scheduler.close_worker(worker_id)
        self._fail_stranded(worker_id)
        self.start_waiting()

    def worker_gone(self, worker_id: str) -> None:
        """A worker is dead."""
        self.scheduler.remove_worker(worker_id)
        self._look_at_batches()
        self._fail_stranded(worker_id)
        self.start_waiting()

    def sessions_by_worker(self) -> Mapping[str, int]:
        """How many sessions are bound to each worker. (WorkforceOwner)"""
        return self.scheduler.sessions_by_worker()

    def _look_at_batches(self) -> None:
        workers = self.workforce.workers.values()
        self.batching.declared([getattr(worker, "batches", {}) for worker in workers])
        for command in self.batching.batchers:
            # What was sent ahead would wait in a worker, where nothing can join it.
            self._times.keep_long(command + SUFFIX)

    def _fail_stranded(self, worker_id: str) -> None:
        stranded = self.scheduler.stranded(worker_id)
        if stranded:
            self._fail_all(stranded, self.scheduler.lost_worker_error)

    def workforce_broken(self, error: Exception) -> None:
        """No worker will be started any more: whoever waits for one waits in vain."""

        def broken(_: Call) -> PoolBroken:
            broken = PoolBroken(f"pool {self.name!r}: its workers keep dying: {error}")
            broken.__cause__ = error
            return broken

        self.readiness.changed()
        if not self.workforce.workers:
            self.batching.flush()
            self._fail_all(list(self.scheduler.waiting()), broken)

    # --- ending all ----------------------------------------------------------------------------

    async def drain(self, limit: float) -> None:
        """Wait until no call runs or waits, for at most ``limit`` seconds."""
        self.batching.flush()
        if not self.is_idle():
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), limit)

    def end_all(self, error: Callable[[], SnakepitError]) -> None:
        """Answer every call that has not ended with an error, and have its work stopped."""

        def ended(call: Call) -> SnakepitError:
            ending = error()
            if call.started_at is not None:
                ending.outcome = Outcome.UNKNOWN
            return ending

        waiting = (*self.batching.gathering, *self.scheduler.waiting())
        self._fail_all([*waiting, *self.running], ended)

    def _fail_all(self, calls: Sequence[Call], error: Callable[[Call], SnakepitError]) -> None:
        """Answer calls with an error each, and have their work stopped. None of them starts."""
        placing, self._placing = self._placing, True
        try:
            for call in calls:
                call.fail(error(call))
                self.give_up(call)
        finally:
            self._placing = placing
        self.start_waiting()

    def close(self) -> None:
        """Forget the timers; every call has ended."""
        for timer in (self._timer, self._recall_timer):
            if timer is not None:
                timer.cancel()
