"""Looks at a pool's workers at intervals: are they alive, how old are they, what do they hold.

The shell around the decisions of :mod:`heartbeat` and :mod:`recycling`. One timer for all workers,
and nothing in the way of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from snakepit._logs import steady_logger
from snakepit.errors import ConfigurationError, WorkerHung
from snakepit.options import seconds
from snakepit.processes.stacks import StacksUnavailable
from snakepit.processes.vitals import private_memory, read_vitals, resident_memory
from snakepit.supervision import events
from snakepit.supervision.heartbeat import Heartbeat, Pulse, Verdict
from snakepit.supervision.member import Member
from snakepit.supervision.recycling import RecyclePolicy
from snakepit.telemetry import bus

logger = steady_logger("snakepit.pool")
# Seconds between two looks when no heartbeat sets a pace.
_INTERVAL = 1.0
# How long one that does not answer may take to write its stacks: at any time, before it is killed.
_STACKS_PATIENCE = 2.0
_LAST_STACKS_PATIENCE = 0.2


@runtime_checkable
class Answering(Protocol):
    """A worker that can be asked for a sign of life."""

    def ping(self) -> asyncio.Future[None]:
        """Ask; the future is done when the worker has answered."""

    def kill_hung(self, reason: str, stacks: str) -> None:
        """End it; its calls fail with WorkerHung."""

    async def dump_stacks(self, patience: float, *, silent: bool = False) -> str:
        """What its threads are doing; it is not asked if it is ``silent``.

        Raises:
            StacksUnavailable: that can't be had.
        """


class MonitorOwner(Protocol):
    """What a monitor looks at, and whom it tells: a pool with a ``name``."""

    name: str

    @property
    def members(self) -> Mapping[str, Member]:
        """The workers that are up, by their ids."""

    def worker_hung(self, worker_id: str, verdict: Verdict, silent_s: float) -> None:
        """A worker will never answer again."""

    def recycle(self, worker_id: str, reason: str) -> bool:
        """A worker has reached a limit of the recycle policy."""


class Monitor:
    """Looks at the workers of one pool. Belongs to one event loop."""

    def __init__(
        self,
        owner: MonitorOwner,
        heartbeat: Heartbeat | None,
        policy: RecyclePolicy | None,
        *,
        probe_busy: bool,
    ) -> None:
        self._owner = owner
        self._heartbeat = heartbeat
        self._policy = policy
        self._probe_busy = probe_busy
        self._timer: asyncio.TimerHandle | None = None
        self.interval = _INTERVAL
        if heartbeat is not None:
            self.interval = seconds("interval", heartbeat.interval)
        self.last_look = time.monotonic()
        #: Called after each look while somebody listens to events.
        self.on_look: Callable[[], None] | None = None

    def new_pulse(self) -> Pulse:
        """The pulse of a worker that has just become ready."""
        return Pulse(limit=0 if self._heartbeat is None else self._heartbeat.misses)

    def start(self) -> None:
        """Look at intervals from now on."""
        self._look_later()
        if bus.listening:
            events.monitoring(self._owner.name, self.interval, begins=True)

    def _look_later(self) -> None:
        self.last_look = time.monotonic()
        # From the end of one look to the next: intervals missed by a blocked loop are not made up.
        self._timer = asyncio.get_running_loop().call_later(self.interval, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if bus.listening:
                events.monitoring(self._owner.name, self.interval, begins=False)

    def _look(self) -> None:
        now = time.monotonic()
        try:
            for worker_id, member in tuple(self._owner.members.items()):
                self._look_at(worker_id, member, now)
        finally:
            self._look_later()
        if bus.listening and self.on_look is not None:
            self.on_look()

    def _look_at(self, worker_id: str, member: Member, now: float) -> None:
        try:
            self._look_for_life(worker_id, member)
            if self._policy is not None:
                self._look_at_limits(worker_id, member, self._policy, now)
        except Exception as error:  # no worker is to hide the others
            if type(error) not in member.logged:
                member.logged.add(type(error))
                logger.exception("worker %s: it can't be looked at", worker_id)

    # --- heartbeat ---------------------------------------------------------------------------

    def _look_for_life(self, worker_id: str, member: Member) -> None:
        worker = member.worker
        if self._heartbeat is None or not isinstance(worker, Answering):
            return
        pulse = member.pulse
        if member.ping is not None and not member.ping.done():
            if member.completed == pulse.completed:
                vitals = None if worker.pid is None else read_vitals(worker.pid)
                before = member.verdict
                member.verdict = pulse.silent(in_flight=worker.in_flight, vitals=vitals)
                if bus.listening:
                    events.missed(self._owner.name, worker_id, member)
                if member.verdict.is_hung and not before.is_hung:
                    silent_s = pulse.missed * self.interval
                    self._owner.worker_hung(worker_id, member.verdict, silent_s)
                return
        elif member.completed == pulse.completed:
            # Nobody has heard of it since the last look, so it is asked.
            member.ping = worker.ping()
            if bus.listening:
                events.pinged(self._owner.name, worker_id, member)
        pulse.answered(member.completed)
        member.verdict = Verdict.ALIVE

    async def dump_stacks(self, worker_id: str) -> str:
        """The Python stacks of a worker's threads.

        Raises:
            ConfigurationError: there is no such worker, or it can't tell.
            WorkerHung: it does not react.
        """
        members = self._owner.members
        worker: object = members[worker_id].worker if worker_id in members else None
        if not isinstance(worker, Answering):
            raise ConfigurationError(
                f"pool {self._owner.name!r} has no worker {worker_id!r} that can tell its stacks; "
                f"it has {', '.join(members) or 'none'}"
            )
        try:
            return await worker.dump_stacks(_STACKS_PATIENCE)
        except StacksUnavailable as error:
            raise WorkerHung(
                f"worker {worker_id} gave no stacks: {error}", details={"worker_id": worker_id}
            ) from error

    # --- limits ------------------------------------------------------------------------------

    def _look_at_limits(
        self, worker_id: str, member: Member, policy: RecyclePolicy, now: float
    ) -> None:
        reason = policy.reason_by_age(now - member.started_at, member.age_limit)
        if reason is not None:
            self._owner.recycle(worker_id, reason)
        elif policy.max_memory is not None:
            if member.worker.in_flight == 0 or self._probe_busy:
                self.probe(worker_id, member)
            else:
                # What a running call holds is no leak: after it.
                member.is_probe_due = True

    def probe(self, worker_id: str, member: Member) -> None:
        """Compare a worker's memory with its limit."""
        member.is_probe_due = False
        pid, policy = member.worker.pid, self._policy
        if pid is None or policy is None or policy.max_memory is None:
            return
        if member.is_dying or member.standing.is_leaving:
            return  # its process may be gone by now, and it is replaced anyway
        try:
            # The cheap number is never less than the exact one.
            resident = resident_memory(pid)
            private = private_memory(pid) if resident > policy.max_memory else resident
        except OSError as error:
            if not member.has_probe_failed:
                logger.warning("worker %s: its memory can't be read: %s", worker_id, error)
            member.has_probe_failed = True
            return
        reason = policy.reason_by_memory(private)
        if reason is not None:
            self._owner.recycle(worker_id, reason)


async def kill_hung(worker: Answering, verdict: Verdict, reason: str) -> None:
    """End a worker that will never answer again, with its last stacks if they can be had."""
    stacks = ""
    if verdict is Verdict.DEADLOCKED:  # a stopped one can't write them
        with contextlib.suppress(StacksUnavailable):
            stacks = await worker.dump_stacks(_LAST_STACKS_PATIENCE, silent=True)
    worker.kill_hung(reason, stacks)
