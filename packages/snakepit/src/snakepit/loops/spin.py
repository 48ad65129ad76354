"""When to wait for an answer by looking again and again instead of sleeping. Pure.

A process that sleeps has to be woken, which costs more than a short call takes. So whoever expects
an answer at once looks for it for a moment first. Where answers do not come that soon (long calls,
no processor to spare) looking is in vain, and is tried ever less often.
"""

from __future__ import annotations

#: Seconds to look for an answer, by default.
DEFAULT_SPIN = 50e-6

# After this many failures in a row, looking is not tried the next 1, 2, 4, ... times.
_PATIENCE = 4
_LONGEST_PAUSE = 1024


class AdaptiveSpin:
    """Decides for one waiting party; ``limit`` is in seconds, 0 for never."""

    __slots__ = ("_failures", "_skip", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._failures = 0
        self._skip = 0

    def is_worthwhile(self) -> bool:
        """Whether to look this time. Report what came of it with ``record``."""
        if self._skip:
            self._skip -= 1
            return False
        return self.limit > 0.0

    def record(self, *, found: bool) -> None:
        """Note whether the answer came within the limit."""
        if found:
            self._failures = 0
        else:
            self._failures += 1
            if self._failures >= _PATIENCE:
                self._skip = min(1 << (self._failures - _PATIENCE), _LONGEST_PAUSE)
