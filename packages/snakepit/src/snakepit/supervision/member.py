"""One worker as its pool keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from snakepit.adapters.adapter import DirectWorker
from snakepit.calls.stats import WorkerInfo
from snakepit.supervision.heartbeat import Pulse, Verdict


class Standing(Enum):
    """Whether a worker takes calls, and stays."""

    SPARE = "spare"
    """It is ready, and gets no calls before it is to take another one's place."""
    SERVING = "serving"
    SUCCEEDED = "succeeded"
    """Its successor is being started; until that is ready it serves on."""
    DRAINING = "draining"
    """It gets no new calls, and ends in order after those it has."""
    UNWANTED = "unwanted"
    """It gets no new calls, and is killed when nobody waits for those it has."""
    GONE = "gone"

    @property
    def is_serving(self) -> bool:
        """Whether it gets new calls."""
        return self in (Standing.SERVING, Standing.SUCCEEDED)

    @property
    def is_leaving(self) -> bool:
        """Whether it gets no new calls, never again."""
        return self in (Standing.DRAINING, Standing.UNWANTED)


@dataclass(slots=True)
class Member:
    """A worker, and what its pool remembers of it. Times on the clock of ``time.monotonic()``."""

    worker: DirectWorker
    started_at: float
    age_limit: float
    pulse: Pulse
    # Of the code, as it was when its start began.
    generation: int = 0
    completed: int = 0
    standing: Standing = Standing.SPARE
    verdict: Verdict = Verdict.ALIVE
    is_dying: bool = False
    # Not recycled before.
    stays_until: float = 0.0
    ping: asyncio.Future[None] | None = None
    is_probe_due: bool = False
    has_probe_failed: bool = False
    # What a look at it has failed with, and that is in the log.
    logged: set[type[Exception]] = field(default_factory=set)
    # Ends one that is unwanted, at the latest.
    timer: asyncio.TimerHandle | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def info(self) -> WorkerInfo:
        """What users are told of it."""
        return WorkerInfo(
            worker_id=self.worker.worker_id,
            pid=self.worker.pid,
            in_flight=self.worker.in_flight,
            completed=self.completed,
            leaving=self.standing.is_leaving,
            spare=self.standing is Standing.SPARE,
            # Only workers of the built-in kind share memory and have devices.
            shared_memory_bytes=getattr(self.worker, "shared_memory_bytes", 0),
            devices=getattr(self.worker, "devices", ()),
        )
