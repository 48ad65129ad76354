"""A terminal that is used as a whole, and given back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[2K"
_CLEAR_REST: Final = "\x1b[J"
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Screen:
    """The terminal of standard output, and of standard input for keys.

    While it is open, signals that end the process raise SystemExit, so that it is closed.
    """

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._settings: list[Any] = []

    def __enter__(self) -> Screen:
        if self._keys is not None:
            self._settings = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        for number in _ENDING:
            signal.signal(number, _end)
        _write(_ENTER)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keys is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._settings)
        _write(_LEAVE)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines from the top, and nothing else."""
        shown = "\n".join(_CLEAR_LINE + line for line in lines)
        _write(_HOME + shown + _CLEAR_REST)

    def wait_for_key(self, keys: str, patience: float) -> bool:
        """Wait for one of ``keys``; False if there was none within ``patience`` seconds."""
        end = time.monotonic() + patience
        watched = [] if self._keys is None else [self._keys]
        while (left := end - time.monotonic()) > 0:
            for fd in select.select(watched, [], [], left)[0]:
                pressed = os.read(fd, 64)
                if not pressed or set(pressed.decode(errors="replace")) & set(keys):
                    return True
        return False


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
