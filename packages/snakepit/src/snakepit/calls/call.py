"""One call, one record, one end. Pure: it knows no worker and no socket.

A call is also what its caller awaits: a future for the one task that made it, with what asyncio
asks of the futures that tasks wait for, and no more.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from snakepit.calls.streams import StreamBuffer
from snakepit.errors import (
    CallTimeout,
    ProtocolError,
    QueueTimeout,
    SnakepitError,
    StreamBroken,
    WorkerError,
)
from snakepit.loops.waiting import Awaited
from snakepit.loops.wakeups import WakeUps
from snakepit.telemetry.trace import CORRELATION_ID, IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from snakepit.calls.call_queue import Lane
    from snakepit.calls.nesting import Chain

Priority = Literal["high", "normal", "low"]
#: The classes of calls, those served first first. A call's class is its index here.
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
NORMAL_PRIORITY: Final = PRIORITIES.index("normal")


class CallState(Enum):
    """Where a call is. While RUNNING or STOPPING it holds a slot of its worker."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    """It was sent to a worker."""
    STOPPING = "stopping"
    """Its caller has been answered; the worker has not confirmed yet that it stopped."""
    ENDED = "ended"

    # A member equals itself alone; Enum computes a hash of its name, by Python code.
    __hash__ = object.__hash__


class CallEvent(Enum):
    """What can happen to a call."""

    QUEUE = "queue"
    START = "start"
    RECALL = "recall"
    """The worker it was sent to has not started it, and will not."""
    STOP = "stop"
    """Its caller no longer waits, so its worker is told to stop it."""
    END = "end"

    __hash__ = object.__hash__


class CallOutcome(Enum):
    """How a call was answered; the first answer counts."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


TRANSITIONS: Final[Mapping[tuple[CallState, CallEvent], CallState]] = {
    (CallState.NEW, CallEvent.QUEUE): CallState.QUEUED,
    (CallState.NEW, CallEvent.START): CallState.RUNNING,
    (CallState.NEW, CallEvent.END): CallState.ENDED,
    (CallState.QUEUED, CallEvent.START): CallState.RUNNING,
    (CallState.QUEUED, CallEvent.END): CallState.ENDED,
    (CallState.RUNNING, CallEvent.RECALL): CallState.QUEUED,
    (CallState.RUNNING, CallEvent.STOP): CallState.STOPPING,
    (CallState.RUNNING, CallEvent.END): CallState.ENDED,
    (CallState.STOPPING, CallEvent.END): CallState.ENDED,
}

# Reading an enumeration's member takes ten times as long as reading a name.
_NEW: Final = CallState.NEW
_SUCCEEDED: Final = CallOutcome.SUCCEEDED


class Call(Awaited):
    """A call from its submission to its end; awaiting it gives its result.

    Until it has its ``outcome`` its caller waits; what comes after the first answer is ignored.
    """

    __slots__ = (
        "_error",
        "_total_deadline",
        "_value",
        "_wakeups",
        "args",
        "chain",
        "command",
        "deadline",
        "fail_fast",
        "idempotent",
        "lane",
        "outcome",
        "parent_id",
        "priority",
        "queue_deadline",
        "ran_s",
        "run_limit",
        "session_id",
        "started_at",
        "state",
        "stream",
        "strict",
        "submitted_at",
        "trace",
        "wire_id",
        "worker_id",
    )

    #: Those that it carries to a worker together; see batching.
    members: Sequence[Call] = ()

    def __init__(
        self,
        command: str,
        args: Mapping[str, Any],
        wakeups: WakeUps,
        submitted_at: float,
        deadline: float | None = None,
        session_id: str | None = None,
        stream: StreamBuffer | None = None,
        idempotent: bool = False,
        queue_deadline: float | None = None,
        strict: bool = False,
        fail_fast: bool = False,
        priority: int = NORMAL_PRIORITY,
        chain: Chain = (),
        run_limit: float | None = None,
    ) -> None:
        # What the constructor of Awaited does, without calling it for every call.
        self._waiter = None
        self._asyncio_future_blocking = False
        self.command = command
        self.args = args
        self._wakeups = wakeups
        self.submitted_at = submitted_at
        self.deadline = deadline
        self.session_id = session_id
        self.stream = stream
        self.idempotent = idempotent
        #: When it fails if it still waits in the queue.
        self.queue_deadline = queue_deadline
        #: Whether its session's worker alone may run it.
        self.strict = strict
        #: Whether it is refused rather than wait for that worker.
        self.fail_fast = fail_fast
        #: Index in PRIORITIES.
        self.priority = priority
        #: The calls of host functions this one is nested in, innermost last.
        self.chain = chain
        #: Seconds it may run once it has started.
        self.run_limit = run_limit
        self._total_deadline = deadline
        self.state = _NEW
        self.outcome: CallOutcome | None = None
        #: The worker's own call on whose behalf this one is made. It then runs in the slot of the
        #: call it is nested in.
        self.parent_id: int | None = None
        self.started_at: float | None = None
        self.worker_id: str | None = None
        #: Where it waits in the queue, if it does.
        self.lane: Lane | None = None
        self._error: BaseException | None = None
        self.wire_id = 0
        #: What its worker is told for traces and logs; nearly always nothing. See telemetry.trace.
        self.trace: dict[str, str] | None = None
        #: Seconds its worker took for it, as far as the host can tell; set at its end.
        self.ran_s = 0.0
        self._value: Any = None

    def apply(self, event: CallEvent) -> None:
        """Move to the next state.

        Raises:
            ProtocolError: the event can't happen in this state; a bug of this library.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise ProtocolError(
                f"{event.value} can't happen to a call that is {self.state.value}"
            ) from None

    @property
    def correlation_id(self) -> str:
        """The text by which its events, log records and errors are found, here and in its worker.

        Unless somebody asks before it is sent, it is made of what both sides know anyway.
        """
        if self.trace is not None:
            return self.trace[CORRELATION_ID]
        if self.worker_id is not None and self.wire_id:
            return f"{self.worker_id}/{self.wire_id}"
        self.trace = {CORRELATION_ID: os.urandom(8).hex()}
        return self.trace[CORRELATION_ID]

    def keep_correlation_id(self) -> None:
        """Stay with the one it has, wherever it is sent next."""
        if self.trace is None:
            self.trace = {CORRELATION_ID: self.correlation_id}

    @property
    def idempotency_key(self) -> str | None:
        """Its caller's own name for it; nearly always none."""
        return None if self.trace is None else self.trace.get(IDEMPOTENCY_KEY)

    def name_by(self, idempotency_key: str) -> None:
        """Give it its caller's name. It travels with what else only some calls have, so that all
        others are as small, and as quick, as ever.
        """
        self.trace = {CORRELATION_ID: self.correlation_id, IDEMPOTENCY_KEY: idempotency_key}

    @property
    def error(self) -> BaseException | None:
        """What it is answered with, until the caller has it."""
        return self._error

    def limit_run(self, now: float) -> None:
        """It starts now: its deadline comes with the end of ``run_limit``, or before."""
        if self.run_limit is not None:
            ends = now + self.run_limit
            total = self._total_deadline
            self.deadline = ends if total is None else min(ends, total)

    @property
    def has_overrun(self) -> bool:
        """Whether it is ``run_limit`` that sets its deadline."""
        return self.run_limit is not None and self.deadline != self._total_deadline

    def recall(self) -> None:
        """Back to the queue: its worker has not started it."""
        self.apply(CallEvent.RECALL)
        if self.run_limit is not None:
            self.deadline = self._total_deadline
        self.started_at = None
        self.worker_id = None

    def spent(self, now: float) -> tuple[float, float]:
        """The seconds it has waited for a worker, and those since one was sent it."""
        started = now if self.started_at is None else self.started_at
        return started - self.submitted_at, now - started

    @property
    def has_limit(self) -> bool:
        """Whether it may ever be late."""
        return (
            self.deadline is not None or self.queue_deadline is not None or self.stream is not None
        )

    def limit_at(self, now: float) -> float | None:
        """When the first of its limits is reached, if nothing happens until then."""
        if self.queue_deadline is None and self.stream is None:
            return self.deadline  # nearly every call
        limits = [self.deadline]
        if self.started_at is None:
            limits.append(self.queue_deadline)
        if self.stream is not None and self.stream.idle_limit is not None:
            limits.append(self.stream.idle_until(now, self.started_at))
        return min((limit for limit in limits if limit is not None), default=None)

    # --- its answer ----------------------------------------------------------------------------

    def succeed(self, value: Any) -> None:
        """Answer the caller."""
        if self.outcome is None:
            self.outcome = _SUCCEEDED
            self._value = value
            if self.stream is not None:
                self.stream.finish(None)
            elif self._waiter is not None:
                self._wakeups.add(self)

    def fail(self, error: SnakepitError) -> None:
        """Answer the caller with an error."""
        if self.outcome is None:
            self.sign(error)
            late = isinstance(error, CallTimeout | QueueTimeout)
            self.outcome = CallOutcome.TIMED_OUT if late else CallOutcome.FAILED
            self._error = error
            if self.stream is not None:
                self.stream.finish(error)
            elif self._waiter is not None:
                self._wakeups.add(self)

    def sign(self, error: SnakepitError) -> None:
        """Have an error say which call it ended, where that was and where its time went.

        One that has ended a nested call before says all this of that one, and goes on to: half of
        it about each call would be about none.
        """
        details = error.details
        if CORRELATION_ID in details:
            return
        queued_s, ran_s = self.spent(time.monotonic())
        details[CORRELATION_ID] = self.correlation_id
        if self.worker_id is not None:
            details.setdefault("worker_id", self.worker_id)
        details.setdefault("queued_s", queued_s)
        details.setdefault("ran_s", ran_s)

    def lose(self, lost: WorkerError) -> None:
        """Answer the caller that the worker is gone."""
        self.fail(lost if self.stream is None else StreamBroken.of(lost, self.stream.delivered))

    def cancel(self, msg: Any = None) -> bool:
        """The caller no longer wants an answer; False if it has one."""
        if self.outcome is not None:
            return False
        self.outcome = CallOutcome.CANCELLED
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._waiter is not None:
            self._wakeups.add(self)
        return True

    def result(self) -> Any:
        """What it was answered with; raises its error, once."""
        error = self._error
        if error is not None:
            # Kept here, it would keep itself alive: its traceback leads to the caller, that to us.
            self._error = None
            try:
                raise error
            finally:
                del error
        return self._value

    # --- what a task asks of what it waits for --------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        if self.outcome is None:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._wakeups.loop or asyncio.get_running_loop()
