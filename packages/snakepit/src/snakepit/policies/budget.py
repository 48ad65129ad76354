"""How many more attempts than calls there may be. Pure."""

from __future__ import annotations

from typing import Final

#: Attempts that may be made before any calls have earned them.
RESERVE: Final = 10


class AttemptBudget:
    """A token bucket: each call earns a part of an attempt, each extra attempt costs one.

    So extra attempts are at most ``per_call`` times the calls, and :data:`RESERVE` more in a burst.
    When everything fails, callers that repeat their calls would otherwise multiply the load at the
    worst moment. (gRPC throttles retries in this way, see its proposal A6; Finagle, too.)
    """

    def __init__(self, per_call: float) -> None:
        self._per_call = per_call
        self._tokens = float(RESERVE)

    def earn(self) -> None:
        """A call is made."""
        self._tokens = min(self._tokens + self._per_call, float(RESERVE))

    def spend(self) -> bool:
        """Whether one more attempt may be made; it is counted then."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
