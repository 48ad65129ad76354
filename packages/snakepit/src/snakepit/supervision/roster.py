"""Who is there: the workers of a pool that are up, and those that are coming. No IO."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from snakepit.adapters.adapter import DirectWorker
from snakepit.supervision.member import Member, Standing
from snakepit.supervision.staffing import Staff


class Roster:
    """The workers of one pool. ``limit``: how many there may be at a time, None for no limit."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.members: dict[str, Member] = {}
        self.workers: dict[str, DirectWorker] = {}
        #: The tasks that start workers, and whom each of these is to succeed.
        self.starts: dict[asyncio.Task[Any], Member | None] = {}

    @property
    def serving(self) -> int:
        """How many workers take calls."""
        return sum(member.standing.is_serving for member in self.members.values())

    @property
    def spares(self) -> int:
        """How many are ready beyond these."""
        return sum(member.standing is Standing.SPARE for member in self.members.values())

    @property
    def room(self) -> int | None:
        """How many more there may be than are up or coming, None for no limit."""
        if self.limit is None:
            return None
        return self.limit - len(self.members) - len(self.starts)

    def enlist(self, member: Member) -> None:
        """A worker is up; it is a spare one at first."""
        self.workers[member.worker.worker_id] = member.worker
        self.members[member.worker.worker_id] = member

    def strike(self, worker_id: str) -> Member | None:
        """A worker is gone; what was known of it, if anything."""
        self.workers.pop(worker_id, None)
        return self.members.pop(worker_id, None)

    def coming(self) -> list[asyncio.Task[Any]]:
        """The starts of workers that will be more than there are now, the last one first."""
        more = [
            task
            for task, predecessor in self.starts.items()
            if predecessor is None or not predecessor.standing.is_serving
        ]
        return more[::-1]

    def staff(self, *, size: int, spares: int, sessions: Mapping[str, int]) -> Staff:
        """What there is, for who decides what is to be done about it. ``sessions``: how many are
        bound to each worker; asked only when some are to be let go.
        """
        serving = [each for each, m in self.members.items() if m.standing.is_serving]
        serving.sort(key=lambda each: self._dispensability(each, sessions))
        return Staff(
            size=size,
            spares=spares,
            serving=tuple(serving),
            spare=tuple(each for each, m in self.members.items() if m.standing is Standing.SPARE),
            coming=len(self.coming()),
            room=self.room,
        )

    def _dispensability(self, worker_id: str, sessions: Mapping[str, int]) -> tuple[Any, ...]:
        """The order in which workers are let go: first those that are to leave anyway, then those
        with the least to do, then those with the least to lose, then the newest.
        """
        member = self.members[worker_id]
        is_to_stay = member.standing is Standing.SERVING
        bound = sessions.get(worker_id, 0)
        return is_to_stay, member.worker.in_flight, bound, -member.started_at


def current_task() -> asyncio.Task[Any]:
    """The task that starts a worker."""
    task = asyncio.current_task()
    assert task is not None, "starts are tasks"
    return task
