"""The program under test: its process, and the host's ends of its channels."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence

from snakepit.errors import ConfigurationError, SnakepitError
from snakepit.link.channels import open_channels
from snakepit.testing.conformance.rules import Broken, broken
from snakepit.wire.exchange import receive, rights
from snakepit.wire.frames import Frame, FrameDecoder
from snakepit.worker.marks import read_mark

# Out of the way of the descriptors that the program is to find.
_FIRST_SPARE_FD = 10
_LOOK_AGAIN_MS = 2
_OUTPUT_SHOWN = 4000


class Channel:
    """The host's end of a channel, for one thread that waits. Owns ``sock``.

    ``patience``: seconds a program may take for what it has to do.
    """

    def __init__(self, sock: socket.socket, name: str, patience: float) -> None:
        self.name = name
        #: Descriptors that came with what was read.
        self.descriptors: list[int | None] = []
        self.ended = False
        self._sock = sock
        self._patience = patience
        self._decoder = FrameDecoder()
        self._frames: deque[Frame] = deque()

    def send(self, data: bytes) -> None:
        """Send bytes; a program that has ended gets none.

        Raises:
            Broken: the program does not read.
        """
        self._sock.settimeout(self._patience)
        try:
            self._sock.sendall(data)
        except TimeoutError:
            broken(f"it does not read its {self.name} channel")
        except ConnectionError:
            pass  # what it did instead of reading is what the rule looks at

    def send_descriptor(self, data: bytes, fd: int) -> bool:
        """Send bytes with a descriptor; always true."""
        self._sock.settimeout(self._patience)
        self._sock.sendmsg([data], rights(fd))
        return True

    def next(self, seconds: float | None = None) -> Frame | None:
        """The next frame; None if none comes in time, or the channel has ended.

        Raises:
            Broken: what came is no frame.
        """
        end = time.monotonic() + (self._patience if seconds is None else seconds)
        while not self._frames and not self.ended:
            if not self._read(max(0.0, end - time.monotonic())):
                return None
        return self._frames.popleft() if self._frames else None

    def end_writing(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.ended = True
        self._sock.close()
        for fd in self.descriptors:
            if fd is not None:
                os.close(fd)
        self.descriptors.clear()

    def _read(self, seconds: float) -> bool:
        """Read once; false when nothing has come in time."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return False
        try:
            received = receive(self._sock, self._decoder.space, socket.MSG_DONTWAIT)
        except ConnectionError:
            self.ended = True
            return True
        self.descriptors += received.descriptors
        if received.size == 0:
            self.ended = True
            return True
        try:
            self._frames += self._decoder.received(received.size)
        except SnakepitError as error:
            raise Broken(f"on its {self.name} channel: {error}") from error
        return True


class Program:
    """A program that was started as a worker.

    Args:
        command: the program and its arguments.
        env: its environment; by default this process's own.
        patience: seconds it may take for what it has to do.

    Raises:
        ConfigurationError: it can't be executed.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None, patience: float
    ) -> None:
        self.patience = patience
        self._exit_code: int | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        ends, worker_ends = open_channels()
        os.close(ends.output)
        self.data = Channel(ends.data, "data", patience)
        self.control = Channel(ends.control, "control", patience)
        self.mark = os.dup(worker_ends.mark)
        try:
            fds = [*worker_ends.fds[:-1], self._output.fileno()]
            self.pid = _start(command, dict(os.environ if env is None else env), fds)
        except OSError as error:
            self._close_ends()
            raise ConfigurationError(f"{command[0]!r} can't be executed: {error}") from error
        finally:
            worker_ends.close()

    def deadline(self) -> float | None:
        """The deadline that its mark shows; None if there is none."""
        return read_mark(self.mark)

    def output(self) -> str:
        """The last of what it wrote to its standard output and error."""
        size = os.fstat(self._output.fileno()).st_size
        start = max(0, size - _OUTPUT_SHOWN)
        return os.pread(self._output.fileno(), _OUTPUT_SHOWN, start).decode(errors="replace")

    def exit_code(self) -> int | None:
        """Wait for its end; the exit code, or the negative number of its signal. None if it lives
        on.
        """
        end = time.monotonic() + self.patience
        while not self._has_ended() and time.monotonic() < end:
            # Only its parent can wait for it, and without a limit.
            select.poll().poll(_LOOK_AGAIN_MS)
        return self._exit_code

    def _has_ended(self) -> bool:
        # It is not reaped: as long as it is a zombie, its group's number is no other's.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            exited = ended.si_code == os.CLD_EXITED
            self._exit_code = ended.si_status if exited else -ended.si_status
        return ended is not None

    def close(self) -> None:
        """Kill it, with all of its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close_ends()

    def _close_ends(self) -> None:
        self.data.close()
        self.control.close()
        os.close(self.mark)
        self._output.close()


def _start(command: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    """Start a program with all ``fds`` but the last as 3, 4, ..., and that one as its output."""
    spare = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for fd in fds]
    *channels, output = spare
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)),
        *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(channels, 3)),
    ]
    try:
        return os.posix_spawnp(
            command[0], list(command), env, file_actions=actions, setpgroup=0,
            setsigdef=[signal.SIGPIPE],
        )  # fmt: skip
    finally:
        for fd in spare:
            os.close(fd)
