"""Faults inside worker processes: at a named phase of its life, the process dies, raises or stops.

The host's side: what is to happen where, and the record that it did. What runs in the worker is
`faulty_worker`; the library itself knows nothing of faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from types import TracebackType
from typing import Any

from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.errors import ConfigurationError
from snakepit.link.channels import HostEnds, WorkerEnds
from snakepit.options import whole_number
from snakepit.processes.spec import ProcessSpec
from snakepit.testing.frame_proxy import FrameProxy
from snakepit.testing.gates import Gate
from snakepit.testing.waiting import PATIENCE, readable


class Phase(Enum):
    """The places in a worker's life where a fault can strike, in order."""

    BEFORE_CONNECT = "before_connect"
    """The process runs, and has not touched its channel."""
    AFTER_CONNECT = "after_connect"
    """It has opened its channel, and said nothing."""
    AFTER_HELLO = "after_hello"
    """It has said ``HELLO``, and read nothing."""
    BEFORE_READY = "before_ready"
    """Its object is constructed; ``READY`` is not sent."""
    IDLE = "idle"
    """It waits for calls and has none. Strikes at once when armed, in any one idle worker."""
    HEADER_HALF_READ = "header_half_read"
    """It has read 8 of the 16 bytes of a ``CALL``'s header."""
    ARGUMENTS_DECODED = "arguments_decoded"
    """A call is decoded and not started."""
    RUNNING = "running"
    """The command runs; its own code is about to start."""
    STREAMING = "streaming"
    """A stream's producer has had ``after_items`` items taken from it."""
    IN_HOST_CALL = "in_host_call"
    """The command has called a host function and has no answer."""
    RESULT_HALF_WRITTEN = "result_half_written"
    """Half of the bytes of a call's last frame (result, error or end) are sent."""
    RESULT_SENT = "result_sent"
    """A call's last frame is sent, and nothing was done since."""
    SHUTDOWN = "shutdown"
    """The host has said ``SHUTDOWN``: the end of a recycled or drained worker.

    To strike earlier in a recycle or a drain, park a call at ``RUNNING`` with a gate, start the
    recycle or the drain, then open the gate.
    """


class Action(Enum):
    """What a fault does to the process."""

    KILL = "kill"
    """SIGKILL to itself."""
    SEGFAULT = "segfault"
    """A real invalid memory access."""
    ABORT = "abort"
    """``os.abort()``: SIGABRT."""
    EXIT_0 = "exit_0"
    """``os._exit(0)``: an end that looks orderly."""
    EXIT_42 = "exit_42"
    """``os._exit(42)``."""
    RAISE = "raise"
    """Raise :class:`~snakepit.testing.faulty_worker.FaultRaised`.

    In ``RUNNING``, ``STREAMING`` and ``IN_HOST_CALL`` it is the command's own exception, and the
    worker lives on; elsewhere it goes through the worker's own code, and ends the process with exit
    code 1.
    """
    FREEZE = "freeze"
    """SIGSTOP to itself: alive, and silent for ever."""
    PASS = "pass"
    """Nothing: the fault is only a place to stop at its gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One time that a fault struck: in which process, and in which command if it was in one."""

    pid: int
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOrder:
    """What a worker has to know of a fault; travels as text on its command line."""

    phase: str
    action: str
    command: str | None
    after_items: int
    tokens: str
    firings: str
    gate: str | None


class Fault:
    """One fault: an action at a phase, to strike as often as it is armed for.

    It strikes in whichever worker comes to the phase first, once for each time it is armed; which
    one that was is in ``firings``. Always assert ``fired``: a fault that never struck proves
    nothing. Close it (``with``), or it leaves a folder behind.

    Args:
        phase: where it strikes.
        action: what it does there.
        command: strike only in calls of this command; any by default. Phases outside calls have no
            command.
        times: how often it is armed from the start. With 0, nothing happens before :meth:`arm`.
        after_items: for ``STREAMING``: how many items the producer has yielded before.
        gate: wait there before striking: ``await gate.reached()`` tells that the worker is at the
            phase, ``gate.open()`` lets the fault strike. ``fired`` is true from then on.

    Example::

        with Fault(Phase.RUNNING, Action.KILL) as fault:
            adapter = FaultyAdapter("my_worker:Worker", faults=[fault])
            async with Pool(adapter, size=2) as pool:
                with pytest.raises(WorkerLost):
                    await pool.execute("greet", {"name": "Ada"})
        assert fault.fired
    """

    def __init__(
        self,
        phase: Phase,
        action: Action,
        *,
        command: str | None = None,
        times: int = 1,
        after_items: int = 1,
        gate: Gate | None = None,
    ) -> None:
        self.phase = phase
        self.action = action
        self.command = command
        self._after_items = whole_number("after_items", after_items)
        self._gate = gate
        self._seen: list[Firing] = []
        self._partial = b""
        times = whole_number("times", times, least=0)
        # Two pipes with names: a token is taken from one by exactly one process, whatever happens;
        # a line in the other is there also when its writer died right afterwards.
        self._folder = tempfile.mkdtemp(prefix="snakepit-fault-")
        self._tokens = _named_pipe(f"{self._folder}/tokens")
        self._firings = _named_pipe(f"{self._folder}/firings")
        self.arm(times)

    def __repr__(self) -> str:
        return f"<Fault {self.action.value} at {self.phase.value}, fired {len(self._seen)}x>"

    def arm(self, times: int = 1) -> None:
        """Let it strike that many times more."""
        if times:
            os.write(self._tokens, b"t" * times)

    def disarm(self) -> None:
        """Let it strike no more until it is armed again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._tokens, 1 << 16)

    @property
    def firings(self) -> list[Firing]:
        """Every time it struck, in order."""
        if self._firings >= 0:
            with contextlib.suppress(BlockingIOError):
                self._partial += os.read(self._firings, 1 << 16)
        *lines, self._partial = self._partial.split(b"\n")
        self._seen += [Firing(**json.loads(line)) for line in lines]
        return list(self._seen)

    @property
    def fired(self) -> bool:
        """Whether it has struck."""
        return bool(self.firings)

    async def wait_fired(self, times: int = 1, timeout: float = PATIENCE) -> list[Firing]:
        """Wait until it has struck ``times`` times in all; return the records.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds.
        """
        end = time.perf_counter() + timeout
        while len(self.firings) < times:
            if not await readable(self._firings, end - time.perf_counter()):
                raise TimeoutError(f"{self!r} did not fire {times}x within {timeout:g} s")
        return self.firings[:times]

    def close(self) -> None:
        """Disarm it for good. The records stay readable."""
        if self._tokens < 0:
            return
        self.firings  # noqa: B018 - takes what is still in the pipe
        os.close(self._tokens)
        os.close(self._firings)
        self._tokens = self._firings = -1
        shutil.rmtree(self._folder)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def order(self) -> FaultOrder:
        """What a worker is told of it."""
        return FaultOrder(
            phase=self.phase.value,
            action=self.action.value,
            command=self.command,
            after_items=self._after_items,
            tokens=f"{self._folder}/tokens",
            firings=f"{self._folder}/firings",
            gate=None if self._gate is None else self._gate.key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _FaultySpec(ProcessSpec):
    """The processes of a FaultyAdapter: the real ones, entered through `faulty_worker`."""

    plan: str

    def template_argv(self) -> list[str]:
        return self._argv("snakepit.testing.faulty_worker", "template_main", self.plan)

    def worker_argv(self, inherited: Iterable[int]) -> list[str]:
        entry = "snakepit.testing.faulty_worker", "worker_main"
        return self._argv(*entry, self.plan, *map(str, inherited))


class FaultyAdapter(PythonAdapter):
    """A :class:`~snakepit.PythonAdapter` whose workers have faults built in.

    Takes ``faults``, a ``proxy`` between host and workers, and all options of PythonAdapter. The
    workers run the same code as any other; only the way into it is another, which wraps the
    worker's end of the channel and its commands.
    """

    def __init__(
        self,
        target: str,
        *,
        faults: Sequence[Fault] = (),
        proxy: FrameProxy | None = None,
        **options: Any,
    ) -> None:
        super().__init__(target, **options)
        self._proxy = proxy
        if not all(isinstance(fault, Fault) for fault in faults):
            raise ConfigurationError("faults has to be a sequence of Fault")
        self._plan = json.dumps([_as_mapping(fault.order()) for fault in faults])

    def _process_spec(self) -> ProcessSpec:
        real = super()._process_spec()
        return _FaultySpec(plan=self._plan, **_as_mapping(real))

    def _open_channels(self) -> tuple[HostEnds, WorkerEnds]:
        host, worker = super()._open_channels()
        return host if self._proxy is None else self._proxy.insert(host), worker

    async def terminate(self, reason: str) -> None:
        """As PythonAdapter; what the proxy still holds is lost."""
        await super().terminate(reason)
        if self._proxy is not None:
            self._proxy.close()


def _as_mapping(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _named_pipe(path: str) -> int:
    """Create a named pipe and keep both ends of it open."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)
