"""Which calls may be sent to a worker that still runs another one. Pure: it takes durations.

While a worker waits for the host to answer with the next call, it does nothing. A few short calls
sent ahead fill that gap. They are bounded in number, only commands that were short of late are
sent so, and the dispatcher calls them back when the one before them turns out slow.
"""

from __future__ import annotations

import math

#: How many calls a worker may be sent beyond the one it runs.
DEPTH = 7
#: Seconds a call may take before those sent ahead behind it are called back.
PATIENCE = 0.002

# Seconds. A worker with all calls ahead of this length is done with them before long.
_SHORT = 0.001
# The weight of the newest duration. A call of 1 s is forgotten after 40 short ones.
_WEIGHT = 0.125


class CommandTimes:
    """How long each command took of late, the newest counting most."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}

    def record(self, command: str, seconds: float) -> None:
        """Note the duration of a call that succeeded."""
        mean = self._mean.get(command, seconds)
        self._mean[command] = mean + _WEIGHT * (seconds - mean)

    def keep_long(self, command: str) -> None:
        """Never take a command for short, however short its calls are."""
        # Whatever is added to it, it stays what it is, and is less than nothing.
        self._mean[command] = math.nan

    def is_short(self, command: str) -> bool:
        """Whether the next call of a command will probably be short; False for an unknown one."""
        return self._mean.get(command, _SHORT) < _SHORT
