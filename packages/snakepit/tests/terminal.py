"""A command in a terminal of a given size, and what is to be seen there."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

_HOME = "\x1b[H"
_CLEAR_LINE = "\x1b[2K"
_CLEAR_REST = "\x1b[J"
PATIENCE = 30.0


class Terminal:
    """Runs a command with a pseudo-terminal as its standard input, output and error."""

    def __init__(self, command: Sequence[str], *, columns: int, rows: int) -> None:
        self._master, self._slave = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)
        self.settings_before = termios.tcgetattr(self._slave)
        # Not the environment of the C library, in which readline notes a size of its own.
        environment = dict(os.environ)
        self.process = subprocess.Popen(
            command, stdin=self._slave, stdout=self._slave, stderr=self._slave, env=environment
        )
        self.text = ""
        # What is read ends anywhere, also in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def frames(self) -> list[list[str]]:
        """The lines of each screen that was drawn wholly."""
        drawn = self.text.split(_HOME)[1:]
        return [
            [line.removeprefix(_CLEAR_LINE) for line in frame.split(_CLEAR_REST)[0].split("\r\n")]
            for frame in drawn
            if _CLEAR_REST in frame
        ]

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read what the command writes until that is enough."""
        end = time.monotonic() + PATIENCE
        while not condition():
            left = end - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0.0, left))
            assert ready, f"in vain; it wrote {self.text!r}"
            self._read()

    def wait(self) -> int:
        """Wait for the end of the command; read what it has written."""
        status = self.process.wait(PATIENCE)
        while select.select([self._master], [], [], 0)[0]:
            self._read()
        return status

    def _read(self) -> None:
        self.text += self._decoder.decode(os.read(self._master, 1 << 16))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
