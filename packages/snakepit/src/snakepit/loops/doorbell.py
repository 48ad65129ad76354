"""How threads and an event loop wake each other: by a byte in a pipe.

A queue or a lock would do, and for the loop ``call_soon_threadsafe``, but a round trip takes up to
three times as long: the kernel lets a woken thread push aside the one that woke it, which still has
Python's lock, so that it goes back to sleep at once. Who writes to a pipe is let go on until it
waits itself.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["Doorbell"]

_ALL: Final = 4096


class Doorbell:
    """Rung after something was put in its place; whoever hears it takes all there is, for it may
    have been rung many times.

    Any number of threads may ring and wait. One of those that wait is woken; if it leaves anything,
    it rings for the next.
    """

    def __init__(self) -> None:
        self._ends: tuple[int, ...] = ()
        self._reader, self._writer = self._ends = os.pipe()
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return the descriptor that can be read when it was rung."""
        return self._reader

    def ring(self) -> None:
        """Wake one of those who wait, or the next one to do so."""
        # No note of having rung saves another byte: an interrupt between the two would be the end.
        try:  # noqa: SIM105 - suppress() would take as long as the call
            os.write(self._writer, b"\0")
        except BlockingIOError:
            pass  # full: it was rung more than enough

    def wait(self) -> None:
        """Sleep until it is rung."""
        os.read(self._reader, _ALL)

    def close(self) -> None:
        """Give the pipe back; done at the latest when nobody has this object any more. Nobody waits
        or rings from now on. Idempotent.
        """
        ends, self._ends = self._ends, ()
        for end in ends:
            os.close(end)

    def __del__(self) -> None:
        self.close()
