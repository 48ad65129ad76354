"""What a worker tells the pool that owns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from snakepit.calls.call import Call
from snakepit.errors import WorkerError
from snakepit.loops.wakeups import WakeUps


class WorkerEvents(Protocol):
    """What a worker tells its pool, which has a ``name``. ``wakeups``: the pool's callers that have
    their answers.
    """

    name: str
    wakeups: WakeUps

    def worker_answered(self, worker_id: str) -> None:
        """The worker has the answers to all its calls to the host."""

    def call_ended(self, worker_id: str, call: Call, *, interrupted: bool) -> None:
        """A call ended and its caller was answered.

        ``interrupted``: it was broken off by force, so the worker is suspect.
        """

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """The worker has not started these calls, perhaps none, and will not; the first was sent
        first. It has given back all it was told to.
        """

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """The worker crashed while it ran these, which have not ended yet."""

    def worker_dying(self, worker_id: str) -> None:
        """The worker can't take calls any more; those it has are about to end."""

    def worker_lost(self, worker_id: str, error: WorkerError) -> None:
        """The worker is dead, and its calls have ended."""
