"""Calls that are sent to a worker together.

A command may take many calls at once (:class:`~snakepit.Batch`). What its callers submit are calls
like any others; here they are gathered, and what goes through the pool is a call that carries them:
one frame, one run of the command. It takes more of them until it starts, so while all workers are
busy a batch fills up in its place in the queue, and while one is free nobody waits.

Each call keeps its own deadline, caller and error. A batch is stopped when nobody waits for any of
its calls any more.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from snakepit.calls import call_events
from snakepit.calls.call import Call, CallEvent, CallOutcome
from snakepit.calls.deadlines import Deadlines, timeout_error
from snakepit.calls.stats import Counters
from snakepit.checks import seconds
from snakepit.errors import (
    EncodeError,
    Outcome,
    PayloadTooLarge,
    PoisonCall,
    ProtocolError,
    SnakepitError,
)
from snakepit.loops.wakeups import WakeUps
from snakepit.supervision.quarantine import Quarantine
from snakepit.telemetry import bus
from snakepit.wire.codec import encode
from snakepit.worker.batches import SUFFIX, Batch

Key = tuple[str | None, bool, int]
"""What the calls of a batch have in common: the session if they are strict, whether they fail
rather than wait for its worker, and the priority."""


class CallTaker(Protocol):
    """What a call is handed to."""

    def submit(self, call: Call) -> None:
        """Take a call, and see to its end.

        Raises:
            SnakepitError: it is refused.
        """

    def give_up(self, call: Call) -> None:
        """The caller has its answer, or went away; see to it that the work stops."""


class BatchOwner(CallTaker, Protocol):
    """Where batches are sent."""

    name: str
    running: set[Call]
    quarantine: Quarantine
    counters: Counters


class BatchCall(Call):
    """A call of the pool that carries others, its *members*; its answer is dealt out to them."""

    __slots__ = ("_batcher", "key", "members")

    def __init__(self, command: str, key: Key, batcher: Batcher, wakeups: WakeUps) -> None:
        session_id, fail_fast, priority = key
        super().__init__(
            command + SUFFIX,
            {"calls": []},
            wakeups,
            time.monotonic(),
            session_id=session_id,
            # Each member says for itself; only a host function that must not run twice denies it.
            idempotent=True,
            strict=session_id is not None,
            fail_fast=fail_fast,
            priority=priority,
        )
        self.key = key
        self.members: list[Call] = []
        self._batcher = batcher

    def join(self, member: Call) -> None:
        """Take one more call."""
        if not self.members:
            self.deadline = member.deadline
        elif self.deadline is not None:
            # The last of its members may want it until then. It is told to the worker; the host
            # looks at each member's own.
            late = member.deadline
            self.deadline = None if late is None else max(late, self.deadline)
        if member.chain:
            self.chain = tuple(dict.fromkeys((*self.chain, *member.chain)))
        self.members.append(member)
        args = member.args
        self.args["calls"].append(args if type(args) is dict else dict(args))

    def leave(self, member: Call) -> None:
        """Drop a call that is no longer wanted. One that was sent keeps its place."""
        if self.started_at is None:
            place = self.members.index(member)
            del self.members[place]
            del self.args["calls"][place]

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for one of its members."""
        return any(member.outcome is None for member in self.members)

    def limit_at(self, now: float) -> float | None:
        """None: its members have limits, and it ends with the last of them."""
        return None

    def apply(self, event: CallEvent) -> None:
        super().apply(event)
        if event is CallEvent.START:
            self._batcher.started(self)
        elif event is CallEvent.RECALL:
            for member in self.members:
                if member.outcome is None:
                    member.recall()

    def succeed(self, value: Any) -> None:
        if self.outcome is not None:
            return
        try:
            results = list(value)  # those of an array are views of it
        except TypeError:
            results = []
        if len(results) != len(self.members):
            self.fail(
                ProtocolError(f"the answer to {len(self.members)} calls holds {len(results)}")
            )
            return
        super().succeed(None)
        for member, result in zip(self.members, results, strict=True):
            if isinstance(result, SnakepitError):
                member.fail(result)
            else:
                member.succeed(result)
        self._batcher.answered(self)

    def fail(self, error: SnakepitError) -> None:
        if self.outcome is not None:
            return
        super().fail(error)
        if isinstance(error, EncodeError | PayloadTooLarge) and not error.from_peer:
            self._batcher.not_sent(self, error)
            return
        for member in self.members:
            if member.outcome is None:
                member.fail(self._error_of(member, error))
        self._batcher.answered(self)

    def sign(self, error: SnakepitError) -> None:
        """Nothing: its error goes to its members, and each says of itself what is to be said."""

    def _error_of(self, member: Call, error: SnakepitError) -> SnakepitError:
        own = copy.copy(error).with_traceback(error.__traceback__)
        # Each caller may add to his own, and each member does.
        own.details = {**error.details, "batch_id": self.correlation_id}
        if own.outcome is Outcome.UNKNOWN and not own.from_peer:
            own.retryable = own.retryable and member.idempotent
        return own


class Batcher:
    """Gathers the calls of one command. Belongs to the pool's event loop; satisfies CallTaker."""

    def __init__(self, command: str, options: Batch, owner: BatchOwner, wakeups: WakeUps) -> None:
        self.options = options
        self._command = command
        self._max_wait = seconds("max_wait", options.max_wait, zero=True)
        self._owner = owner
        self._wakeups = wakeups
        # Those that take more calls; those that were not sent to the pool yet, and when they will.
        self._open: dict[Key, BatchCall] = {}
        self._gathering: dict[BatchCall, asyncio.Handle] = {}
        # Where the calls are that have no answer yet.
        self._batches: dict[Call, BatchCall] = {}
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def gathering(self) -> Sequence[BatchCall]:
        """The batches that the pool has not been sent yet."""
        return tuple(self._gathering)

    def submit(self, call: Call) -> None:
        """Take a call into a batch.

        Raises:
            PoisonCall: it has killed workers.
        """
        if self._owner.quarantine.suspects:
            try:
                self._owner.quarantine.require_harmless(call, call.submitted_at)
            except PoisonCall as error:
                if bus.listening:
                    call_events.refused(self._owner.name, call, error)
                raise
        call.apply(CallEvent.QUEUE)
        if bus.listening:
            call_events.submitted(self._owner.name, call)
        # A call whose session is only a hint goes with others: its session has no say then.
        key = (call.session_id if call.strict else None, call.fail_fast, call.priority)
        batch = self._open.get(key)
        if batch is None:
            batch = self._open[key] = BatchCall(self._command, key, self, self._wakeups)
            self._gathering[batch] = self._send_later(batch)
        self._put(call, batch)
        self._watch(call, call.submitted_at)
        if len(batch.members) >= self.options.max_size:
            del self._open[key]
            if batch in self._gathering:
                self._send(batch)

    def give_up(self, call: Call) -> None:
        """The caller has its answer, or went away."""
        batch = self._batches.get(call)
        if batch is None:
            return
        self._forget(call)
        batch.leave(call)
        if not batch.is_wanted and batch.cancel():
            self._close(batch)
            self._owner.give_up(batch)

    def flush(self) -> None:
        """Send what was gathered, without waiting for more."""
        for batch in self.gathering:
            self._send(batch)

    def _put(self, call: Call, batch: BatchCall) -> None:
        batch.join(call)
        self._batches[call] = batch

    def _forget(self, call: Call) -> None:
        """A call has its answer."""
        del self._batches[call]
        self._deadlines.calls.pop(call, None)
        call.apply(CallEvent.END)
        if bus.listening:
            call_events.answered(self._owner.name, call)

    # --- sending -------------------------------------------------------------------------------

    def _send_later(self, batch: BatchCall) -> asyncio.Handle:
        loop = asyncio.get_running_loop()
        if self._max_wait:
            return loop.call_later(self._max_wait, self._send, batch)
        # Calls that are made in the same turn of the loop go together.
        return loop.call_soon(self._send, batch)

    def _send(self, batch: BatchCall) -> None:
        self._gathering.pop(batch).cancel()
        self._submit(batch)

    def _submit(self, batch: BatchCall) -> None:
        try:
            self._owner.submit(batch)
        except SnakepitError as error:
            batch.fail(error)

    def _close(self, batch: BatchCall) -> None:
        """Let a batch take no more calls."""
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
        handle = self._gathering.pop(batch, None)
        if handle is not None:
            handle.cancel()

    # --- what becomes of a batch ---------------------------------------------------------------

    def started(self, batch: BatchCall) -> None:
        """It is about to be sent to a worker."""
        self._close(batch)
        now = time.monotonic()
        for member in batch.members:
            if member.outcome is None:
                member.apply(CallEvent.START)
                member.started_at = now
                member.worker_id = batch.worker_id
                if member.run_limit is not None:
                    member.limit_run(now)
                    self._watch(member, now)
        self._owner.counters.batches += 1
        self._owner.counters.batched += len(batch.members)

    def answered(self, batch: BatchCall) -> None:
        """Its members have their answers."""
        self._close(batch)
        for member in batch.members:
            if member in self._batches:
                self._forget(member)
                if self._owner.quarantine.suspects and member.outcome is CallOutcome.SUCCEEDED:
                    self._owner.quarantine.acquit(member)

    def not_sent(self, batch: BatchCall, error: SnakepitError) -> None:
        """The arguments of its members can't travel together: those whose own can't fail, and the
        others are sent without them.
        """
        asyncio.get_running_loop().call_soon(self._send_apart, batch, error)

    def _send_apart(self, batch: BatchCall, error: SnakepitError) -> None:
        waiting = [member for member in batch.members if member.outcome is None]
        good = []
        for member in waiting:
            own = _why_not_sent(member) or (error if len(waiting) == 1 else None)
            if own is None:
                good.append(member)
            else:
                member.fail(own)
                self._forget(member)
        # Where each could travel, all together are too large.
        middle = len(good) // 2 if len(good) == len(waiting) else 0
        for group in (good[:middle], good[middle:]):
            if group:
                self._send_again(group, batch.key)

    def _send_again(self, members: Sequence[Call], key: Key) -> None:
        batch = BatchCall(self._command, key, self, self._wakeups)
        for member in members:
            member.recall()
            self._put(member, batch)
        self._submit(batch)

    # --- deadlines -----------------------------------------------------------------------------

    def _watch(self, call: Call, now: float) -> None:
        limit = call.limit_at(now)
        if limit is not None and self._deadlines.add(call, limit):
            self._arm(limit)

    def _arm(self, limit: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, limit - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        now = time.monotonic()
        due, next_limit = self._deadlines.due(now)
        for member in due:
            # A host function that the batch has called may have said that it must not run twice.
            member.idempotent = member.idempotent and self._batches[member].idempotent
            member.fail(timeout_error(member, now))
            self.give_up(member)
        if next_limit is not None:
            self._arm(next_limit)


def _why_not_sent(member: Call) -> SnakepitError | None:
    """The error of a call whose arguments can't travel."""
    try:
        encode(dict(member.args), root="args")
    except SnakepitError as error:
        return error
    return None


class Batching:
    """The commands of a pool that take batches. Belongs to the pool's event loop."""

    def __init__(self, owner: BatchOwner, wakeups: WakeUps) -> None:
        self.batchers: dict[str, Batcher] = {}
        self._owner = owner
        self._wakeups = wakeups

    def declared(self, workers: Sequence[Mapping[str, Batch]]) -> None:
        """Go by what the workers declare, the newest last. A command takes batches when it does so
        in all of them: while code is being replaced, it may not.
        """
        if not workers:
            return  # the next one will tell
        common = {
            command: options
            for command, options in workers[-1].items()
            if all(command in each for each in workers)
        }
        for command, batcher in tuple(self.batchers.items()):
            if common.get(command) != batcher.options:
                del self.batchers[command]
                batcher.flush()
        for command, options in common.items():
            if command not in self.batchers:
                self.batchers[command] = Batcher(command, options, self._owner, self._wakeups)

    def taker_of(self, call: Call) -> CallTaker:
        """Who takes a call: the batcher of its command, or the pool itself."""
        batcher = self.batchers.get(call.command)
        if batcher is None or self._goes_alone(call):
            return self._owner
        return batcher

    def _goes_alone(self, call: Call) -> bool:
        # Of several suspects in a batch that crashes, nobody could tell who did it.
        if self._owner.quarantine.suspects and self._owner.quarantine.suspects_call(call):
            return True
        # A call of this pool waits for it, so it may need that one's slot; a batch gets its own.
        return any(host_call.parent in self._owner.running for host_call in call.chain)

    @property
    def gathering(self) -> list[BatchCall]:
        """The batches that the pool has not been sent yet."""
        return [batch for each in self.batchers.values() for batch in each.gathering]

    def flush(self) -> None:
        """Send all that was gathered."""
        for batcher in self.batchers.values():
            batcher.flush()
