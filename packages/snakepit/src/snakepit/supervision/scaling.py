"""When a pool's size follows its calls. Pure: it takes what was seen and ``now``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from snakepit.options import seconds
from snakepit.supervision.sizing import Sizing


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pool's calls ask of it, at one moment.

    ``size``: the workers it is to have; ``serving``: those that take calls; ``slots``: the calls a
    worker serves at a time; ``taken``: the slots that are taken. ``waiting``: calls that wait and
    that another worker could serve; ``waits_since``: when the one that is to be served next was
    submitted, None when none waits.
    """

    size: int
    serving: int
    slots: int
    taken: int
    waiting: int
    waits_since: float | None

    @property
    def demand(self) -> int:
        """How many workers would serve all these calls at once."""
        return math.ceil((self.taken + self.waiting) / self.slots)


class Change(NamedTuple):
    """A size to have, and why."""

    size: int
    reason: str


class Scaler:
    """Decides on a pool's size, from one look at its load to the next.

    Growing: a call has waited ``queue_wait`` seconds since the last change; twice the size at most
    (of a doubling each step is as large as what led to it, and the number of steps grows with the
    logarithm only). Not while workers are still coming: they may be enough.

    Shrinking: at the end of a spell of ``idle`` seconds in which no moment would have needed the
    workers there are; to what the busiest moment needed, but to half the size at most. A change
    begins a new spell.
    """

    def __init__(self, sizing: Sizing, now: float) -> None:
        self._sizing = sizing
        self._queue_wait = seconds("queue_wait", sizing.queue_wait)
        self._idle = seconds("idle", sizing.idle)
        self._changed_at = now
        self._spell_began = now
        self._peak = 0

    @property
    def interval(self) -> float:
        """Seconds from one look to the next that are short enough to see all in time."""
        return min(self._queue_wait / 2, self._idle / 2, 1.0)

    def decide(self, load: Load, now: float) -> Change | None:
        """The size to have from now on, if it is another than now."""
        self._peak = max(self._peak, load.demand)
        is_over = now - self._spell_began >= self._idle
        change = self._grown(load, now) or (self._shrunk(load) if is_over else None)
        if change is not None:
            self._changed_at = now
        if change is not None or is_over:
            self._spell_began, self._peak = now, load.demand
        return change

    def _grown(self, load: Load, now: float) -> Change | None:
        if load.waits_since is None or load.serving < load.size:
            return None
        waited = now - max(load.waits_since, self._changed_at)
        wanted = load.size + math.ceil(load.waiting / load.slots)
        size = min(wanted, 2 * load.size, self._sizing.most)
        if waited < self._queue_wait or size <= load.size:
            return None
        return Change(size, f"{load.waiting} calls wait, the next one for {waited:.2g} s")

    def _shrunk(self, load: Load) -> Change | None:
        size = max(self._peak, math.ceil(load.size / 2), self._sizing.min)
        if size >= load.size:
            return None
        return Change(size, f"for {self._idle:g} s no more than {self._peak} were needed")
