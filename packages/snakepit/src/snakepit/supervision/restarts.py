"""When a dead worker is replaced. Pure: it takes `now` and returns seconds to wait."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
# From this many failures in a row on it is no accident any more, unless the last one is long ago.
_LOOP_FAILURES = 3
_LOOP_MEMORY = 30.0


@dataclass(slots=True)
class RestartBudget:
    """Counts failures in a row: starts that failed, and deaths with no completed call between them.

    Workers that die together count once, whatever killed them: only the death of a worker that was
    started after the last failure shows that starting workers does not help.

    The first replacement is immediate, so that a single crash costs milliseconds; then the delay
    doubles. When ``limit`` failures are reached the budget is spent: something is wrong that
    another restart will not mend.
    """

    limit: int
    failures: int = 0
    last_failure: float = -math.inf

    @property
    def is_spent(self) -> bool:
        """Whether no further restart should be tried."""
        return self.failures >= self.limit

    def is_looping(self, now: float) -> bool:
        """Whether workers keep failing as soon as they are started."""
        return self.failures >= _LOOP_FAILURES and now - self.last_failure < _LOOP_MEMORY

    def record_failure(self, now: float) -> float:
        """Note a failure; return the seconds to wait before the next start."""
        self.failures += 1
        self.last_failure = now
        if self.failures == 1:
            return 0.0
        return min(_FIRST_DELAY * 2.0 ** (self.failures - 2), _LONGEST_DELAY)

    def record_death(self, now: float, started_at: float) -> float:
        """Note the death of a worker that was started at ``started_at``; return the seconds to wait
        before the next start.
        """
        return self.record_failure(now) if started_at > self.last_failure else 0.0

    def record_success(self) -> None:
        """Note a completed call."""
        self.failures = 0
