"""Which calls are due. Pure: it takes `now`.

A timer per call costs more than the call, and nearly every call ends long before its deadline. So
one timer is kept for the earliest deadline that was ever armed, and looks at the calls when it
fires. A stream's idle limit moves with each item, and the limit of waiting falls away at the start;
so what is kept for a call is when to look at it, and looking tells when to look again.
"""

from __future__ import annotations

import math

from snakepit.calls.call import Call
from snakepit.errors import CallTimeout, LimitName, Outcome, QueueTimeout


class Deadlines:
    """The calls that have a deadline and whose callers wait."""

    def __init__(self) -> None:
        #: When to look at each; who no longer waits is taken out.
        self.calls: dict[Call, float] = {}
        self._armed = math.inf

    def add(self, call: Call, deadline: float) -> bool:
        """Watch a call; true if ``deadline``, its first, is earlier than the timer's, which has to
        be set then.
        """
        self.calls[call] = deadline
        if deadline < self._armed:
            self._armed = deadline
            return True
        return False

    def due(self, now: float) -> tuple[list[Call], float | None]:
        """The calls whose time is up, which are no longer watched, and when to look again."""
        due = []
        for call in [call for call, look_at in self.calls.items() if look_at <= now]:
            limit = call.limit_at(now)
            if limit is not None and limit > now:
                self.calls[call] = limit
            else:
                del self.calls[call]
                if limit is not None:
                    due.append(call)
        self._armed = min(self.calls.values(), default=math.inf)
        return due, None if self._armed == math.inf else self._armed


def timeout_error(call: Call, now: float) -> CallTimeout | QueueTimeout:
    """The error of a call whose time is up: which limit it reached, and where its time went."""
    queued_s, ran_s = call.spent(now)
    queue_deadline = call.queue_deadline
    if call.started_at is None and queue_deadline is not None and queue_deadline <= now:
        return QueueTimeout.of(
            call.command, timeout_s=queue_deadline - call.submitted_at, queued_s=queued_s
        )
    limit: LimitName = "total"
    timeout_s = (call.deadline or now) - call.submitted_at
    if call.has_overrun:
        limit, timeout_s = "run", call.run_limit or 0.0
    if call.stream is not None and (call.deadline is None or call.deadline > now):
        limit, timeout_s = "stream_idle", call.stream.idle_limit or 0.0
    error = CallTimeout.of(
        call.command, limit=limit, timeout_s=timeout_s, queued_s=queued_s, ran_s=ran_s
    )
    error.retryable = call.idempotent
    if call.started_at is None:
        error.outcome, error.retryable = Outcome.NONE, True
    return error
