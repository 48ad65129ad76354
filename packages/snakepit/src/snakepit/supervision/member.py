"""One worker as its pool keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from snakepit.adapter import DirectWorker
from snakepit.supervision.heartbeat import Pulse, Verdict


class Standing(Enum):
    """Whether a worker stays."""

    SERVING = "serving"
    SUCCEEDED = "succeeded"
    """Its successor is being started; until that is ready it serves on."""
    DRAINING = "draining"
    """It gets no new calls, and ends in order after those it has."""
    UNWANTED = "unwanted"
    """It gets no new calls, and is killed when nobody waits for those it has."""
    GONE = "gone"

    @property
    def is_leaving(self) -> bool:
        """Whether it gets no new calls."""
        return self in (Standing.DRAINING, Standing.UNWANTED)


@dataclass(slots=True)
class Member:
    """A worker, and what its pool remembers of it. Times on the clock of ``time.monotonic()``."""

    worker: DirectWorker
    started_at: float
    age_limit: float
    pulse: Pulse
    completed: int = 0
    standing: Standing = Standing.SERVING
    verdict: Verdict = Verdict.ALIVE
    is_dying: bool = False
    # Not recycled before.
    stays_until: float = 0.0
    ping: asyncio.Future[None] | None = None
    is_probe_due: bool = False
    has_probe_failed: bool = False
    # Ends one that is unwanted, at the latest.
    timer: asyncio.TimerHandle | None = None
