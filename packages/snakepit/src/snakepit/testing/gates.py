"""Gates: places where a process waits until a test lets it go on.

A gate is a listening local socket of the test. Who comes to it connects, which the test can await,
and waits for the end of the connection. Opening the gate closes everything, so it also opens when
the test fails, or its process dies: nobody stays parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from snakepit.testing.waiting import PATIENCE, readable

_MAX_ARRIVALS = 4096
_NOTE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who came to a gate: the process id, and the note it brought."""

    pid: int
    note: str


class Gate:
    """A place where workers (or threads and tasks of any process) wait until the test opens it.

    Give ``gate.key``, a text, to the code that is to wait, and have it call :func:`pass_gate`. Use
    the gate in ``with``: its end opens it, whatever happens in between.

    Example, with a command ``def work(self, gate: str)`` that calls ``pass_gate(gate)``::

        with Gate() as gate:
            call = asyncio.create_task(pool.execute("work", {"gate": gate.key}))
            await gate.reached()      # the command runs now, and waits
            ...                       # whatever has to happen meanwhile
            gate.open()
            await call

    >>> import asyncio
    >>> from snakepit.testing import Gate, apass_gate
    >>> with Gate() as gate:
    ...     task = asyncio.create_task(apass_gate(gate.key, "hello"))
    ...     arrivals = await gate.reached()
    ...     print([arrival.note for arrival in arrivals], task.done())
    ...     gate.open()
    ...     await task
    ['hello'] False
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        if sys.platform == "linux":
            # An abstract name leaves nothing in any folder.
            self.key = f"@snakepit-gate-{os.getpid()}-{secrets.token_hex(8)}"
        else:
            self._folder = tempfile.mkdtemp(prefix="snakepit-gate-")
            self.key = str(Path(self._folder) / "gate")
        self._listener: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(_address(self.key))
        self._listener.listen(_MAX_ARRIVALS)
        self._parked: list[socket.socket] = []
        self.arrivals: list[Arrival] = []

    def __repr__(self) -> str:
        state = "open" if self.is_open else f"closed, {len(self.arrivals)} waiting"
        return f"<Gate {state}>"

    @property
    def is_open(self) -> bool:
        """Whether whoever comes passes at once."""
        return self._listener is None

    async def reached(self, count: int = 1, timeout: float = PATIENCE) -> list[Arrival]:
        """Wait until ``count`` have come to the gate in all; return them in order.

        Raises:
            TimeoutError: fewer came within ``timeout`` seconds.
        """
        end = time.perf_counter() + timeout
        while not self._has(count):
            listener = self._require_closed()
            if not await readable(listener.fileno(), end - time.perf_counter()):
                raise self._too_few(count, timeout)
        return self.arrivals[:count]

    def wait_reached(self, count: int = 1, timeout: float = PATIENCE) -> list[Arrival]:
        """As :meth:`reached`, blocking."""
        end = time.perf_counter() + timeout
        while not self._has(count):
            poller = select.poll()
            poller.register(self._require_closed(), select.POLLIN)
            if not poller.poll(max(0.0, end - time.perf_counter()) * 1000):
                raise self._too_few(count, timeout)
        return self.arrivals[:count]

    def open(self) -> None:
        """Let everybody who waits go on, and everybody who comes later pass. For good."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for parked in self._parked:
            parked.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open()

    def _has(self, count: int) -> bool:
        self._accept_all()
        return len(self.arrivals) >= count

    def _accept_all(self) -> None:
        if self._listener is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                parked, _ = self._listener.accept()
                parked.settimeout(PATIENCE)
                # Sent with the connection, unless the process was killed in between.
                # A long note was cut, perhaps in the middle of a character.
                pid, _, note = parked.recv(_NOTE_BYTES).decode(errors="ignore").partition(" ")
                if pid:
                    self._parked.append(parked)
                    self.arrivals.append(Arrival(int(pid), note))
                else:
                    parked.close()

    def _require_closed(self) -> socket.socket:
        if self._listener is None:
            raise RuntimeError("the gate is open, so nobody waits at it; await it before open()")
        return self._listener

    def _too_few(self, count: int, timeout: float) -> TimeoutError:
        return TimeoutError(
            f"{len(self.arrivals)} of {count} came to the gate within {timeout:g} s: "
            f"{self.arrivals}"
        )


def pass_gate(key: str, note: str = "") -> None:
    """Wait at the gate with this ``key`` until it opens. Blocks; runs in any process.

    A gate that is open, or whose test is gone, lets you pass at once. ``note`` shows up in the
    test's ``gate.arrivals``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(_address(key))
            sock.send(_greeting(note))
            sock.recv(1)
        except (ConnectionError, FileNotFoundError):
            return


async def apass_gate(key: str, note: str = "") -> None:
    """As :func:`pass_gate`, for async code: other tasks of the loop go on."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, _address(key))
            await loop.sock_sendall(sock, _greeting(note))
            await loop.sock_recv(sock, 1)
        except (ConnectionError, FileNotFoundError):
            return


def _greeting(note: str) -> bytes:
    return f"{os.getpid()} {note}".encode()[:_NOTE_BYTES]


def _address(key: str) -> str:
    return "\0" + key[1:] if key.startswith("@") else key
