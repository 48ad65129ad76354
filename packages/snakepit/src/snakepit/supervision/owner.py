"""Whom a pool's workforce reports to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from snakepit.calls.call import Call
from snakepit.errors import WorkerError


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

    def worker_answered(self, worker_id: str) -> None:
        """A worker has the answers to all its calls to the host."""

    def call_ended(self, call: Call) -> None:
        """A worker has ended a call, and its caller is answered."""

    def calls_crashed(self, calls: Sequence[Call], error: WorkerError) -> None:
        """A worker crashed while it ran these, which have not ended yet."""

    def calls_recalled(self, worker_id: str, calls: Sequence[Call]) -> None:
        """A worker has not started these calls, and will not; the first was sent first."""

    def sessions_by_worker(self) -> Mapping[str, int]:
        """How many sessions are bound to each worker."""
