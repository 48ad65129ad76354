"""Has a pool's size follow its calls. The shell around :mod:`scaling`: one timer, while it may."""

from __future__ import annotations

import asyncio
import time

from snakepit._logs import steady_logger
from snakepit.calls.scheduler import Scheduler
from snakepit.supervision import events
from snakepit.supervision.scaling import Load, Scaler
from snakepit.supervision.sizing import Sizing
from snakepit.supervision.workforce import Workforce
from snakepit.telemetry import bus

logger = steady_logger("snakepit.pool")


class Autoscaler:
    """Looks at the calls of one pool at intervals. Belongs to one event loop."""

    def __init__(self, workforce: Workforce, scheduler: Scheduler) -> None:
        self._workforce = workforce
        self._scheduler = scheduler
        self._scaler: Scaler | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What a look has failed with, and that is in the log.
        self._logged: set[type[Exception]] = set()

    def start(self) -> None:
        """Look from now on, if the pool may have more than one size."""
        sizing = self._workforce.sizing
        if sizing.min < sizing.most:
            self._scaler = Scaler(sizing, time.monotonic())
            self._look_later(self._scaler)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resize(self, sizing: Sizing) -> None:
        """Keep to other sizes from now on."""
        self.stop()
        self._workforce.resize(sizing)
        self.start()

    def _look_later(self, scaler: Scaler) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(scaler.interval, self._look, scaler)

    def _look(self, scaler: Scaler) -> None:
        try:
            self._follow(scaler)
        except Exception as error:
            if type(error) not in self._logged:
                self._logged.add(type(error))
                logger.exception("pool %s: its size can't follow its calls", self._workforce.name)
        finally:
            self._look_later(scaler)

    def _follow(self, scaler: Scaler) -> None:
        change = scaler.decide(self._load(), time.monotonic())
        if change is not None:
            name, size = self._workforce.name, self._workforce.size
            logger.info("pool %s: from %d to %d workers: %s", name, size, *change)
            if bus.listening:
                events.scaled(name, size, *change)
            self._workforce.have(change.size)

    def _load(self) -> Load:
        return Load(
            size=self._workforce.size,
            serving=self._workforce.roster.serving,
            slots=self._workforce.concurrency,
            taken=self._scheduler.load,
            waiting=self._scheduler.waiting_for_any,
            waits_since=self._scheduler.waits_since,
        )
