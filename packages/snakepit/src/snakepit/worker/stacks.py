"""What a worker's threads are doing: into its output when it crashes, and when the host asks.

The host asks by a signal, because C code that holds the interpreter's lock keeps every thread from
running Python code. The signal's handler is C code of the standard library, so it runs all the
same. It is taken by the control thread alone: a signal in any other one could end a system call
there, which C code seldom expects.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import sys
from typing import Final

#: Real-time, so that it collides with nothing a program uses by habit; None where there is none.
STACKS_SIGNAL: Final = getattr(signal, "SIGRTMAX", None)
STACKS_FILE: Final = "snakepit-stacks"
# Kept open although the program may close its standard streams.
_STDERR: Final = 2


def dump_stacks_on_demand() -> int | None:
    """Make ready to write the stacks of all threads; return the descriptor of their file, or None
    where this system has no such facility.

    Main thread, before any other thread is started: they inherit that the signal is blocked.
    """
    faulthandler.enable(file=fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))
    if STACKS_SIGNAL is None or not hasattr(os, "memfd_create"):
        return None
    signal.pthread_sigmask(signal.SIG_BLOCK, [STACKS_SIGNAL])
    fd = os.memfd_create(STACKS_FILE)
    # The host empties it; what is written then has to start at its beginning.
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    # The handler restarts interrupted system calls, and calls no other handler.
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def take_stacks_signals() -> None:
    """Have this thread, the only one, take the host's signal, and no other signal."""
    signals = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, signals - {STACKS_SIGNAL})


def dump_stacks_before(number: int) -> None:
    """Write the stacks to the output when a signal comes that ends the process."""
    faulthandler.register(number, file=sys.stderr, all_threads=True, chain=True)
