"""When a worker is replaced though nothing is wrong with it. Pure: it takes what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from snakepit.options import seconds, whole_number

# Workers that were started together must not all leave together.
_AGE_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecyclePolicy:
    """After what a pool replaces a healthy worker, before its leaks hurt.

    The successor is started first; only when it is ready does the old worker get no more calls. It
    ends when those it has are done. So no call is lost and there are never fewer workers than the
    pool's size; a limit may be passed by what a worker does meanwhile, unless it is ``exact``.

    Args:
        max_calls: calls that a worker ends, however they end.
        max_age: seconds since it became ready. Each worker gets a limit of its own between 0.9 and
            1.0 times this, so that those started together do not leave together.
        max_memory: bytes of its private memory (on Linux: private pages and swap of
            ``/proc/<pid>/smaps_rollup``), which leaves out what it shares with its template. It is
            looked at between calls; in a worker that serves several calls at a time, at intervals.
        exact: after ``max_calls`` a worker gets no more, and only then its successor is started, so
            that there is one worker less for a moment. (In a pool that sends calls ahead, or runs
            several at a time, those that a worker has then are run beyond the limit.)

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        policy = RecyclePolicy(max_calls=10_000, max_age=3600.0, max_memory=2 * 1024**3)
    """

    max_calls: int | None = None
    max_age: float | timedelta | None = None
    max_memory: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.max_calls is not None:
            whole_number("max_calls", self.max_calls)
        if self.max_age is not None:
            seconds("max_age", self.max_age)
        if self.max_memory is not None:
            whole_number("max_memory", self.max_memory)

    def age_limit(self, chance: float) -> float:
        """The greatest age of one worker, in seconds; ``chance`` is between 0 and 1."""
        if self.max_age is None:
            return math.inf
        return seconds("max_age", self.max_age) * (1.0 - _AGE_JITTER * chance)

    def reason_by_age(self, age: float, limit: float) -> str | None:
        """Why a worker of that age is to be replaced, or None."""
        return f"it is {age:.1f} s old" if age >= limit else None

    def reason_by_memory(self, private: int) -> str | None:
        """Why a worker with so many bytes of its own is to be replaced, or None."""
        if self.max_memory is None or private <= self.max_memory:
            return None
        return f"it has {private} bytes of private memory, and {self.max_memory} are allowed"


def recycled_at_once(workers: int) -> int:
    """How many of so many workers may be recycled at a time: a quarter, and at least one."""
    return max(1, workers // 4)
