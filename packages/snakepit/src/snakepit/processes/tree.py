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
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from snakepit._logs import steady_logger
from snakepit.errors import PoolBroken, WorkerStartFailed
from snakepit.processes import events
from snakepit.processes.channel import ChannelClosed, Message
from snakepit.processes.host_channel import HostChannel
from snakepit.processes.linux import has_ended
from snakepit.processes.reaping import kill_group
from snakepit.processes.spec import PACKAGE_ROOT
from snakepit.processes.sweep import RunMark
from snakepit.telemetry import bus
from snakepit.worker.marks import RUN_VARIABLE

if TYPE_CHECKING:
    from snakepit.processes.templates import SharedTemplate

logger = steady_logger("snakepit.worker")
# Seconds. The kernel reports a death by end-of-file at once; how it came about, the keeper tells a
# moment later, or later than that on a busy machine.
_CAUSE_PATIENCE = 0.05
_LATE_CAUSE_PATIENCE = 1.0
# How long a keeper may take to end, to kill and to start a process; one that takes longer
# is frozen. And how long an exit waits for its watcher.
_STOP_PATIENCE = 1.0
_KILL_PATIENCE = 1.0
_SPAWN_PATIENCE = 5.0
_UNWATCHED_KEPT = 5.0
_T = TypeVar("_T")
# -I and -S: the keeper needs nothing but the standard library, and starts in a third of the time.
_KEEPER_CODE = (
    "import sys; sys.path.append(sys.argv[1]); from snakepit.processes.keeper import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])"
)


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a process ended: an exit code, a signal's name, or neither when nobody could read it.

    ``reason`` is why the keeper killed it by itself. ``keeper_died``: it ended with its keeper.
    """

    code: int | None = None
    signal: str | None = None
    reason: str | None = None
    keeper_died: bool = False

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return "ended for an unknown cause" if self.code is None else f"exited with {self.code}"


class ProcessTree:
    """Starts, kills and watches processes through the keeper. Belongs to one event loop."""

    def __init__(self) -> None:
        #: Those that its users share. Kept here, they go with the tree, whoever forgets to give
        #: them back.
        self.templates: dict[Hashable, SharedTemplate] = {}
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._is_stopping = False
        self._ids = itertools.count(1)
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[ExitReport]] = {}
        self._killing: dict[int, asyncio.TimerHandle] = {}
        self._closed = self._loop.create_future()
        self._run_mark = RunMark.new()
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unused, theirs:
            unused.enter_context(ours)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KEEPER_CODE,
                 PACKAGE_ROOT, str(theirs.fileno()), str(os.getpid()), *_lost_runs],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, RUN_VARIABLE: str(self._run_mark)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A Ctrl-C in the host's terminal must not reach the workers before the host
                # decides.
                start_new_session=True,
            )  # fmt: skip
            unused.pop_all()
        self._channel = HostChannel(ours, self._handle, self._on_keeper_gone)
        if bus.listening:
            events.keeper_started(self.pid)

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
        env: dict[str, str],
        cwd: str | None,
        fds: tuple[int, ...],
        limits: Mapping[str, int | None] | None = None,
    ) -> int:
        """Start a program; return its pid. It gets ``fds`` as 3, 4, ..., and the last one as its
        output. ``limits``: as ``ResourceLimits.to_wire``.

        Raises:
            WorkerStartFailed: it can't be executed.
            PoolBroken: the keeper died meanwhile, or was frozen and is dead now.
        """
        number = next(self._ids)
        future: asyncio.Future[int] = self._loop.create_future()
        self._spawning[number] = future
        order = {"argv": list(argv), "env": env, "cwd": cwd, "limits": dict(limits or {})}
        message = {"op": "spawn", "id": number, **order}
        try:
            self._send(message, fds)
            done, _ = await asyncio.wait([future], timeout=_SPAWN_PATIENCE)
            if not done:
                logger.warning("the keeper (pid %s) does not answer and is replaced", self.pid)
                self._abandon()
            return await future
        finally:
            self._spawning.pop(number, None)

    def guard(self, pid: int, mark: int, grace: float) -> None:
        """Have the keeper kill the worker ``pid``, ``grace`` seconds after the deadline that its
        ``mark`` shows.

        The mark's descriptor remains the caller's.
        """
        with contextlib.suppress(PoolBroken):
            self._send({"op": "guard", "pid": pid, "grace": grace}, (mark,))

    def kill(self, pid: int) -> None:
        """Send SIGKILL to the process group of ``pid`` and to all it has started, unless it has
        ended.
        """
        with contextlib.suppress(PoolBroken):
            self._send({"op": "kill", "pid": pid})
            if pid not in self._killing:
                self._killing[pid] = self._loop.call_later(_KILL_PATIENCE, self._kill_self, pid)

    def _kill_self(self, pid: int) -> None:
        """Kill in the place of a keeper that does not answer."""
        del self._killing[pid]
        exited = self._exits.get(pid)
        # Its number can't be another's: the keeper has not reaped it, or would have said so.
        if exited is not None and not exited.done():
            kill_group(pid)

    def watch(self, pid: int) -> asyncio.Future[ExitReport]:
        """A future for how ``pid`` ends; it may have ended already."""
        future = self._exits.get(pid)
        if future is None:
            future = self._exits[pid] = self._loop.create_future()
            if self.is_broken:
                future.set_result(ExitReport(keeper_died=True))
        return future

    async def end_of(self, pid: int, kill: Callable[[str], None]) -> ExitReport:
        """How ``pid`` has ended, which has closed its channels; it is watched no more. One that
        lives on is ended with ``kill``, which is told the reason. The report is empty if the keeper
        does not tell.
        """
        exited = self.watch(pid)
        try:
            await wait_for_report(exited, pid)
            if not exited.done() and not has_ended(pid):
                kill("closed its channel")
                await wait_for_report(exited, pid)
            return exited.result() if exited.done() else ExitReport()
        finally:
            if not exited.done():  # the keeper is frozen, or nobody waits for it any more
                self.kill(pid)
            self.forget(pid)

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
                self._on_exited(message)
            case "swept":
                logger.warning(
                    "killed the processes %s, which an earlier host had left", message["pids"]
                )
                if bus.listening:
                    events.keeper_swept(self.pid, len(message["pids"]))

    def _on_exited(self, message: Message) -> None:
        pid, number = message["pid"], message["signal"]
        name = None if number is None else _signal_name(number)
        if pid not in self._exits:
            # One whose start is not reported yet, or an orphan that nobody watches.
            self._loop.call_later(_UNWATCHED_KEPT, self._exits.pop, pid, None)
        if pid in self._killing:
            self._killing.pop(pid).cancel()
        _resolve(self.watch(pid), ExitReport(message["code"], name, message["reason"]))

    def _on_keeper_gone(self) -> None:
        if self.is_broken:
            return
        self._channel.close()
        self._process.kill()
        self._closed.set_result(None)
        for timer in self._killing.values():
            timer.cancel()
        for future in self._spawning.values():
            if not future.done():
                future.set_exception(
                    PoolBroken("the keeper process died while it started a worker")
                )
        for pid, exit_future in self._exits.items():
            if not exit_future.done():
                # The kernel kills the workers with their parent, but not what they started.
                kill_group(pid)
                exit_future.set_result(ExitReport(keeper_died=True))
        if self._process.wait() != 0:
            _lost_runs.add(self._run_mark.run_id)
        if bus.listening:
            events.keeper_terminated(self.pid, planned=self._is_stopping)

    async def _stop(self) -> None:
        self._is_stopping = True
        with contextlib.suppress(PoolBroken):
            self._send({"op": "stop"})
        try:
            if not self._closed.done():
                await asyncio.wait([self._closed], timeout=_STOP_PATIENCE)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """End a keeper that does not answer, or whose loop no longer runs."""
        self._process.kill()
        if not self._loop.is_closed():
            self._on_keeper_gone()
        else:
            self._channel.close()
            self._process.wait()


# Runs of this process whose keeper died too early: the next one ends what is left of them.
_lost_runs: set[str] = set()
_trees: dict[asyncio.AbstractEventLoop, ProcessTree] = {}
# A fork has no processes yet.
os.register_at_fork(after_in_child=_trees.clear)


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


async def wait_for_report(exited: asyncio.Future[ExitReport], pid: int) -> None:
    """Wait until the keeper tells how a process ended, or it turns out to live, or the keeper to be
    frozen.
    """
    await asyncio.wait([exited], timeout=_CAUSE_PATIENCE)
    if not exited.done() and has_ended(pid):
        await asyncio.wait([exited], timeout=_LATE_CAUSE_PATIENCE)


def _resolve(future: asyncio.Future[_T] | None, value: _T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
