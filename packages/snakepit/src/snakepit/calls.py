"""One call, one record, one end. Pure: it knows no worker and no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from snakepit.errors import (
    CallTimeout,
    ProtocolError,
    QueueTimeout,
    SnakepitError,
    StreamBroken,
    WorkerError,
)
from snakepit.streams import StreamBuffer

if TYPE_CHECKING:
    from snakepit.call_queue import Lane
    from snakepit.nesting import HostCall

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


class CallEvent(Enum):
    """What can happen to a call."""

    QUEUE = "queue"
    START = "start"
    RECALL = "recall"
    """The worker it was sent to has not started it, and will not."""
    STOP = "stop"
    """Its caller no longer waits, so its worker is told to stop it."""
    END = "end"


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

# The same by name: in Python 3.11 the hash of an enum member is computed by Python code.
_NEXT: Final = {
    (state.name, event.name): follows for (state, event), follows in TRANSITIONS.items()
}


class Call:
    """A call from its submission to its end. ``answer`` is what its caller awaits."""

    __slots__ = (
        "answer",
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
        "session_id",
        "started_at",
        "state",
        "stream",
        "strict",
        "submitted_at",
        "wire_id",
        "worker_id",
    )

    def __init__(
        self,
        command: str,
        args: Mapping[str, Any],
        *,
        answer: asyncio.Future[Any],
        submitted_at: float,
        session_id: str | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        stream: StreamBuffer | None = None,
        queue_deadline: float | None = None,
        strict: bool = False,
        fail_fast: bool = False,
        priority: int = NORMAL_PRIORITY,
        chain: tuple[HostCall, ...] = (),
    ) -> None:
        self.command = command
        self.args = args
        self.answer = answer
        self.session_id = session_id
        self.deadline = deadline
        self.idempotent = idempotent
        self.stream = stream
        #: When it fails if it still waits in the queue.
        self.queue_deadline = queue_deadline
        #: Whether its session's worker alone may run it.
        self.strict = strict
        #: Whether it is refused rather than wait for that worker.
        self.fail_fast = fail_fast
        #: Index in PRIORITIES.
        self.priority = priority
        #: Where it waits in the queue, if it does.
        self.lane: Lane | None = None
        #: The host calls this one is nested in, innermost last.
        self.chain = chain
        self.state = CallState.NEW
        self.outcome: CallOutcome | None = None
        self.submitted_at = submitted_at
        self.started_at: float | None = None
        self.worker_id: str | None = None
        #: The worker's own call on whose behalf this one is made. It then runs in the slot of the
        #: call it is nested in.
        self.parent_id: int | None = None
        self.wire_id = 0
        #: Seconds its worker took for it, as far as the host can tell; set at its end.
        self.ran_s = 0.0

    def apply(self, event: CallEvent) -> None:
        """Move to the next state.

        Raises:
            ProtocolError: the event can't happen in this state; a bug of this library.
        """
        try:
            self.state = _NEXT[self.state._name_, event._name_]
        except KeyError:
            raise ProtocolError(
                f"{event.value} can't happen to a call that is {self.state.value}"
            ) from None

    def recall(self) -> None:
        """Back to the queue: its worker has not started it."""
        self.apply(CallEvent.RECALL)
        self.started_at = None
        self.worker_id = None

    def succeed(self, value: Any) -> None:
        """Answer the caller, unless it has its answer."""
        if self._answer_as(CallOutcome.SUCCEEDED):
            if self.stream is not None:
                self.stream.finish(None)
            elif not self.answer.done():
                self.answer.set_result(value)

    def fail(self, error: SnakepitError) -> None:
        """Answer the caller with an error, unless it has its answer."""
        late = isinstance(error, CallTimeout | QueueTimeout)
        if self._answer_as(CallOutcome.TIMED_OUT if late else CallOutcome.FAILED):
            if self.stream is not None:
                self.stream.finish(error)
            elif not self.answer.done():
                self.answer.set_exception(error)

    def lose(self, lost: WorkerError) -> None:
        """Answer the caller that the worker is gone, unless it has its answer."""
        self.fail(lost if self.stream is None else StreamBroken.of(lost, self.stream.delivered))

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

    def cancel(self) -> None:
        """The caller no longer wants an answer."""
        self._answer_as(CallOutcome.CANCELLED)

    def _answer_as(self, outcome: CallOutcome) -> bool:
        if self.outcome is not None:
            return False
        self.outcome = outcome
        return True
