"""The host's side of its process tree: one keeper, shared by all pools of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from snakepit.errors import PoolBroken, WorkerStartFailed
from snakepit.processes.channel import Channel, ChannelClosed, Message

# Seconds. The kernel reports a death by end-of-file at once; how it came about, the keeper tells a
# moment later.
CAUSE_PATIENCE = 0.05
# How long a keeper may take to end, and how long an exit waits for its watcher.
_STOP_PATIENCE = 1.0
_UNWATCHED_KEPT = 5.0
_T = TypeVar("_T")
# -I and -S: the keeper needs nothing but the standard library, and starts in a third of the time.
_KEEPER_CODE = (
    "import sys; sys.path.append(sys.argv[1]); from snakepit.processes.keeper import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)
PACKAGE_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a process ended: an exit code, a signal's name, or neither when nobody could read it."""

    code: int | None = None
    signal: str | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return "ended for an unknown cause" if self.code is None else f"exited with {self.code}"


class ProcessTree:
    """Starts, kills and watches processes through the keeper. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._ids = itertools.count(1)
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[ExitReport]] = {}
        self._closed = self._loop.create_future()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = Channel(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KEEPER_CODE,
                 PACKAGE_ROOT, str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A Ctrl-C in the host's terminal must not reach the workers before the host
                # decides.
                start_new_session=True,
            )  # fmt: skip
        self._loop.add_reader(ours, self._on_readable)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._process.pid

    @property
    def is_broken(self) -> bool:
        """Whether the keeper is gone, and with it every process it kept."""
        return self._closed.done()

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None,
        cwd: str | None,
        fds: tuple[int, ...],
    ) -> int:
        """Start a program; return its pid. It gets ``fds`` as 3, 4, ..., and the last one as its
        output.

        Raises:
            WorkerStartFailed: it can't be executed.
            PoolBroken: the keeper died meanwhile.
        """
        number = next(self._ids)
        future: asyncio.Future[int] = self._loop.create_future()
        self._spawning[number] = future
        message = {"op": "spawn", "id": number, "argv": list(argv), "env": env, "cwd": cwd}
        self._send(message, fds)
        try:
            return await future
        finally:
            self._spawning.pop(number, None)

    def kill(self, pid: int) -> None:
        """Send SIGKILL to the process group of ``pid``, unless it has ended."""
        with contextlib.suppress(PoolBroken):
            self._send({"op": "kill", "pid": pid})

    def watch(self, pid: int) -> asyncio.Future[ExitReport]:
        """A future for how ``pid`` ends; it may have ended already."""
        future = self._exits.get(pid)
        if future is None:
            future = self._exits[pid] = self._loop.create_future()
            if self.is_broken:
                future.set_result(ExitReport())
        return future

    def forget(self, pid: int) -> None:
        """Stop watching ``pid``, whose end has been seen."""
        self._exits.pop(pid, None)

    def _send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        try:
            if self.is_broken:
                raise ChannelClosed
            self._channel.send(message, fds)
        except ChannelClosed as error:
            raise PoolBroken(
                "the keeper process is gone, and with it all workers; they are being started again"
            ) from error

    def _on_readable(self) -> None:
        try:
            for message, _ in self._channel.receive():
                self._handle(message)
        except ChannelClosed:
            self._on_keeper_gone()

    def _handle(self, message: Message) -> None:
        match message["event"]:
            case "spawned":
                _resolve(self._spawning.get(message["id"]), message["pid"])
            case "spawn_failed":
                future = self._spawning.get(message["id"])
                if future is not None and not future.done():
                    future.set_exception(
                        WorkerStartFailed(f"can't be executed: {message['error']}")
                    )
            case "exited":
                number = message["signal"]
                name = None if number is None else _signal_name(number)
                pid = message["pid"]
                if pid not in self._exits:
                    # One whose start is not reported yet, or an orphan that nobody watches.
                    self._loop.call_later(_UNWATCHED_KEPT, self._exits.pop, pid, None)
                _resolve(self.watch(pid), ExitReport(message["code"], name))

    def _on_keeper_gone(self) -> None:
        if self.is_broken:
            return
        self._loop.remove_reader(self._channel)
        self._channel.close()
        self._closed.set_result(None)
        for future in self._spawning.values():
            future.set_exception(PoolBroken("the keeper process died while it started a worker"))
        for pid, exit_future in self._exits.items():
            if not exit_future.done():
                # The kernel kills the workers with their parent, but not what they started.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                exit_future.set_result(ExitReport())
        self._process.wait()

    async def _stop(self) -> None:
        with contextlib.suppress(PoolBroken):
            self._send({"op": "stop"})
        if not self._closed.done():
            await asyncio.wait([self._closed], timeout=_STOP_PATIENCE)
        self._abandon()

    def _abandon(self) -> None:
        """End a keeper that does not answer, or whose loop no longer runs."""
        self._process.kill()
        if not self._loop.is_closed():
            self._on_keeper_gone()
        else:
            self._channel.close()
            self._process.wait()


_trees: dict[asyncio.AbstractEventLoop, ProcessTree] = {}


def acquire_tree() -> ProcessTree:
    """The running loop's process tree, started if need be. Give it back with ``release_tree``."""
    loop = asyncio.get_running_loop()
    for other in [other for other in _trees if other.is_closed()]:
        _trees.pop(other)._abandon()  # its pools were never closed
    tree = _trees.get(loop)
    if tree is None or tree.is_broken:
        tree = _trees[loop] = ProcessTree()
    tree._users += 1
    return tree


async def release_tree(tree: ProcessTree) -> None:
    """Give a tree back; the last user's return ends the keeper and everything below it."""
    tree._users -= 1
    if tree._users == 0:
        loop = asyncio.get_running_loop()
        if _trees.get(loop) is tree:
            del _trees[loop]
        await tree._stop()


def _resolve(future: asyncio.Future[_T] | None, value: _T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
