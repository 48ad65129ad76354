"""When a dead worker is replaced. Pure: it takes `now` and returns seconds to wait."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


@dataclass(slots=True)
class RestartBudget:
    """Counts failures in a row: starts that failed, and deaths with no completed call between them.

    The first replacement is immediate, so that a single crash costs milliseconds; then the delay
    doubles. When ``limit`` failures are reached the budget is spent: something is wrong that
    another restart will not mend.
    """

    limit: int
    failures: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether no further restart should be tried."""
        return self.failures >= self.limit

    def record_failure(self) -> float:
        """Note a failure; return the seconds to wait before the next start."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        return min(_FIRST_DELAY * 2.0 ** (self.failures - 2), _LONGEST_DELAY)

    def record_success(self) -> None:
        """Note a completed call."""
        self.failures = 0
