"""The thread that sends the gathered items of a worker's streams, when their producers don't."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Final

# Seconds between two looks.
_LOOK: Final = 0.0005


class Flusher:
    """Sends after a moment, or as soon as the producer lets go of the GIL. It starts when it is
    needed first.

    ``flush`` sends what has been gathered, and returns whether there was anything.
    """

    def __init__(self, flush: Callable[[], bool]) -> None:
        self._flush = flush
        self._wanted = threading.Event()
        self._started = False
        self._looking = False

    def watch(self) -> None:
        """Flush soon. The caller holds the lock that ``flush`` takes."""
        if self._looking:
            return
        self._looking = True
        self._wanted.set()
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="snakepit-flush", daemon=True).start()

    def _run(self) -> None:
        # Signals are for the main thread, whose code they may break off.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pause = threading.Event()
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while True:
                pause.wait(_LOOK)
                # Before the flush: what is gathered after it asks for another look.
                self._looking = False
                if not self._flush():
                    break
                self._looking = True
