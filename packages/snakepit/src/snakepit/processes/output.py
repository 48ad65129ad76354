"""What a process prints: to logging, and its last lines into the error when it dies."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from snakepit import forks
from snakepit._logs import steady_logger

_READ_BYTES: Final = 1 << 16
# What is kept for an error.
_TAIL_BYTES: Final = 1 << 16
_TAIL_LINES: Final = 400
_LINE_BYTES: Final = 2000
# What a dead process can have left in its pipe at the most, if the kernel lets it be enlarged.
_LEFT_IN_PIPE: Final = 1 << 20
# What is logged: so much at once, and then so much a second.
_LOGGED_AT_ONCE: Final = 1 << 18
_LOGGED_A_SECOND: Final = 1 << 16
logger = steady_logger("snakepit.output")


@dataclass(slots=True)
class LogBudget:
    """How much of a process's output goes to logging. Pure: it takes ``now``."""

    at_once: int = _LOGGED_AT_ONCE
    a_second: int = _LOGGED_A_SECOND
    dropped: int = 0
    _left: float = 0.0
    _at: float | None = None

    def allows(self, size: int, now: float) -> bool:
        """Whether a line of ``size`` bytes may be logged; if not, it counts as dropped."""
        if self._at is None:
            self._left = self.at_once
        else:
            self._left = min(self.at_once, self._left + (now - self._at) * self.a_second)
        self._at = now
        # Once it is empty it fills up again to a half, or else every other line would be dropped.
        if size > self._left or (self.dropped and self._left < self.at_once / 2):
            self.dropped += size
            return False
        self._left -= size
        return True

    def take_dropped(self) -> int:
        """How many bytes were dropped since the last time this was asked."""
        dropped, self.dropped = self.dropped, 0
        return dropped


class OutputTail:
    """Drains a process's output pipe, so that printing never blocks it. Owns ``fd``."""

    def __init__(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self._file = open(fd, "rb", buffering=0)  # noqa: SIM115  # as long as this lives
        forks.close_in_child(self._file)
        self._name = name
        self._lines: deque[tuple[float, bytes]] = deque()
        self._kept = 0
        self._partial = b""
        self._budget = LogBudget()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, self._drain)

    def text(self, since: float = 0.0) -> str:
        """The last lines that came since ``since``, on the clock of ``time.monotonic()``.

        Reads what is still in the pipe.
        """
        self._drain_all()
        lines = [line for came, line in self._lines if came >= since]
        if self._partial:
            lines.append(self._partial)
        return "\n".join(map(_as_text, lines))

    def forget(self) -> None:
        """Keep nothing of what was printed up to now: it does not concern whoever comes next."""
        self._drain_all()
        if self._partial:
            self._take(self._partial, time.monotonic())
        self._lines.clear()
        self._kept, self._partial = 0, b""

    def close(self) -> None:
        """Read what is still in the pipe, then stop reading."""
        self._drain_all()
        self._note_dropped()
        self._stop()

    def _stop(self) -> None:
        if not self._file.closed:
            self._loop.remove_reader(self._file)
            self._file.close()

    def _drain_all(self) -> None:
        for _ in range(_LEFT_IN_PIPE // _READ_BYTES):
            if not self._drain():
                return

    def _drain(self) -> bool:
        """Read once; whether there was something."""
        try:
            data = b"" if self._file.closed else os.read(self._file.fileno(), _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._stop()
            return False
        now = time.monotonic()
        *complete, partial = (self._partial + data).split(b"\n")
        for line in complete:
            self._take(line, now)
        # A line without an end must not grow for ever.
        self._partial = partial[-_LINE_BYTES:]
        self._budget.dropped += len(partial) - len(self._partial)
        return True

    def _take(self, line: bytes, now: float) -> None:
        kept = line[-_LINE_BYTES:]
        self._lines.append((now, kept))
        self._kept += len(kept)
        while self._kept > _TAIL_BYTES or len(self._lines) > _TAIL_LINES:
            self._kept -= len(self._lines.popleft()[1])
        if self._budget.allows(len(line), now):
            self._note_dropped()
            logger.info("%s: %s", self._name, _as_text(kept))

    def _note_dropped(self) -> None:
        dropped = self._budget.take_dropped()
        if dropped:
            logger.warning("%s: dropped %d bytes of its output", self._name, dropped)


def _as_text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
