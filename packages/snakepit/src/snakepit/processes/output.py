"""What a process prints: to logging, and its last lines into the error when it dies."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

from snakepit._logs import steady_logger

_READ_BYTES = 1 << 16
_TAIL_LINES = 40
_LINE_CHARACTERS = 2000
logger = steady_logger("snakepit.output")


class OutputTail:
    """Drains a process's output pipe, so that printing never blocks it. Owns ``fd``."""

    def __init__(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._name = name
        self._lines: deque[tuple[float, str]] = deque(maxlen=_TAIL_LINES)
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._drain)

    def text(self, since: float = 0.0) -> str:
        """The last lines that came since ``since``, on the clock of ``time.monotonic()``.

        Reads what is still in the pipe.
        """
        self._drain()
        lines = [line for came, line in self._lines if came >= since]
        return "\n".join([*lines, *self._partial_line()])

    def close(self) -> None:
        """Read what is still in the pipe, then stop reading."""
        self._drain()
        self._stop()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _drain(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES) if self._fd >= 0 else b""
        except BlockingIOError:
            return
        if not data:
            self._stop()
            return
        *complete, self._partial = (self._partial + data).split(b"\n")
        for raw in complete:
            line = _as_text(raw)
            self._lines.append((time.monotonic(), line))
            logger.info("%s: %s", self._name, line)
        # A line without an end must not grow for ever.
        self._partial = self._partial[-_LINE_CHARACTERS:]

    def _partial_line(self) -> list[str]:
        return [_as_text(self._partial)] if self._partial else []


def _as_text(raw: bytes) -> str:
    return raw[-_LINE_CHARACTERS:].decode(errors="replace").rstrip("\r")
