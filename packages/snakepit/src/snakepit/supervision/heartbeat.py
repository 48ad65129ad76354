"""Telling a busy worker from a hung one. Pure: it takes what was seen, and judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from snakepit.options import seconds, whole_number
from snakepit.processes.vitals import Vitals

# R: a thread runs, or waits for a free processor. D: the kernel waits for a disk on its behalf.
_AT_WORK: Final = frozenset("RD")
_STOPPED: Final = "T"
_TRACED: Final = "t"
#: Of a processor. Each thread that waits in vain for the interpreter's lock wakes up every 5 ms to
#: ask for it, and takes up to 0.01.
_WORKING_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """How a pool finds out that a worker is frozen or deadlocked.

    Every ``interval`` the workers that have shown no other sign of life are asked for one, which a
    thread of theirs gives while commands run. One that has been silent for ``misses`` intervals is
    judged by what the kernel says of its process. When it is hung, it is killed and replaced, and
    its calls end with WorkerHung. When it is busy, it is left alone: C code that holds the
    interpreter's lock keeps that thread from answering, and the call's deadline decides.

    Silence is counted in intervals in which this program's event loop ran, so neither a blocked
    loop nor a change of the clock makes a worker look hung.

    Args:
        interval: seconds between two looks.
        misses: looks without an answer until a worker is judged.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        heartbeat = Heartbeat(interval=0.5, misses=4)
    """

    interval: float | timedelta = 2.0
    misses: int = 3

    def __post_init__(self) -> None:
        seconds("interval", self.interval)
        whole_number("misses", self.misses)


class Verdict(Enum):
    """What a look at a worker came to."""

    ALIVE = "alive"
    SILENT = "silent"
    """It has not answered, for too short a time to judge."""
    BUSY = "busy"
    """It does not answer because it works, or because a debugger or its call holds it."""
    STOPPED = "stopped"
    """Somebody has stopped its process; it will do nothing until it is continued."""
    DEADLOCKED = "deadlocked"
    """It had nothing to do, does nothing, and does not answer."""

    @property
    def is_hung(self) -> bool:
        """Whether the worker has to be killed."""
        return self in (Verdict.STOPPED, Verdict.DEADLOCKED)


def judge(
    *, missed: int, limit: int, idle: bool, before: Vitals | None, now: Vitals | None
) -> Verdict:
    """What to think of a worker that has missed so many heartbeats.

    ``idle``: it had no call when it fell silent. ``before`` and ``now``: its process when it was
    asked, and at this moment; None where the kernel does not tell.

    ======= ============================== ================== ===========
    missed  process                        call               verdict
    ======= ============================== ================== ===========
    0                                                         ALIVE
    < limit                                                   SILENT
    limit   stopped                                           STOPPED
    limit   traced by a debugger                              BUSY
    limit   had a quarter of a processor,                     BUSY
            runs, waits for one or a disk
    limit   sleeps, or unknown             it has one         BUSY
    limit   sleeps, or unknown             it had none        DEADLOCKED
    ======= ============================== ================== ===========

    A call that sleeps in C code and holds the interpreter's lock can't be told from a deadlock, and
    may be right to wait: its deadline decides, as for any call that waits.
    """
    if missed == 0:
        return Verdict.ALIVE
    if missed < limit:
        return Verdict.SILENT
    if now is not None:
        if _TRACED in now.states:
            return Verdict.BUSY
        if _STOPPED in now.states:
            return Verdict.STOPPED
        if now.states & _AT_WORK:
            return Verdict.BUSY
        if before is not None and now.cpu_share(before) >= _WORKING_SHARE:
            return Verdict.BUSY
    return Verdict.DEADLOCKED if idle else Verdict.BUSY


@dataclass(slots=True)
class Pulse:
    """The signs of life of one worker, from one look to the next."""

    limit: int
    missed: int = 0
    completed: int = 0
    before: Vitals | None = None
    _idle: bool = True

    def answered(self, completed: int) -> None:
        """It has answered, or ended a call since the last look."""
        self.completed = completed
        self.missed = 0
        self.before = None
        self._idle = True

    def silent(self, *, in_flight: int, vitals: Vitals | None) -> Verdict:
        """It has given no sign of life since the last look."""
        self.missed += 1
        if self.missed == 1:
            # What it is given later it never began: it was silent before.
            self._idle = in_flight == 0
            self.before = vitals
        return judge(
            missed=self.missed,
            limit=self.limit,
            idle=self._idle,
            before=self.before,
            now=vitals,
        )
