"""How long calls took of late. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

#: Durations that are remembered.
REMEMBERED: Final = 128
#: Below this many, a quantile near 1 would be little more than the slowest call so far.
ENOUGH: Final = 20


class RecentDurations:
    """The durations of the last calls."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def record(self, seconds: float) -> None:
        """Note the duration of one more call."""
        if len(self._in_order) == REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, part: float) -> float | None:
        """What that part of the calls, from 0 to 1, stayed within; None before ``ENOUGH`` calls."""
        count = len(self._sorted)
        if count < ENOUGH:
            return None
        return self._sorted[max(0, math.ceil(part * count) - 1)]
