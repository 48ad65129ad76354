"""The way into a worker process that has faults built in. Runs in templates and workers.

It replaces two things that the worker's code takes by name: its end of the data channel by one that
watches the frames, and its commands by wrapped ones. Everything else is the real worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any

from snakepit.errors import SnakepitError
from snakepit.testing.gates import apass_gate, pass_gate
from snakepit.wire.frames import HEADER_BYTES, Frame, FrameDecoder, FrameType
from snakepit.wire.messages import read_call
from snakepit.worker import main as worker_entry
from snakepit.worker.port import Port
from snakepit.worker.registry import Command, CommandKind, commands_of

_HALF_HEADER = HEADER_BYTES // 2
_FINAL = (FrameType.RESULT, FrameType.ERROR, FrameType.END)
_PEEK_BYTES = 1 << 16
_SIGNAL_AGAIN = 0.005
_HEADER = struct.Struct("<IBBHQ")


class FaultRaised(RuntimeError):
    """What ``Action.RAISE`` raises."""


def worker_main(plan: str, *inherited: str) -> None:
    """Run a worker that was not forked, with the faults of ``plan``."""
    _install(plan)
    worker_entry.main(*inherited)


def template_main(plan: str) -> None:
    """Run a template whose workers have the faults of ``plan``."""
    _install(plan)
    from snakepit.processes.template import main

    main()


def _install(plan: str) -> None:
    # A fault that crashes the process is no reason to write its memory to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faults = FaultPlan([_Fault(**order) for order in json.loads(plan)])
    vars(worker_entry).update(
        Port=functools.partial(FaultyPort, faults),
        commands_of=functools.partial(_faulty_commands_of, faults),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fault:
    """A fault as the worker knows it; the fields are those of `faults.FaultOrder`."""

    phase: str
    action: str
    command: str | None
    after_items: int
    tokens: str
    firings: str
    gate: str | None

    def claim(self) -> bool:
        """Whether it is this process's turn to be struck; each token is taken by one only."""
        try:
            fd = os.open(self.tokens, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return False  # closed by the test
        try:
            return os.read(fd, 1) == b"t"
        except BlockingIOError:
            return False
        finally:
            os.close(fd)

    def wait_claim(self) -> bool:
        """Block until it is armed, and this process gets the token."""
        try:
            fd = os.open(self.tokens, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return os.read(fd, 1) == b"t"
        finally:
            os.close(fd)

    def strike(self, command: str | None) -> None:
        """Wait at the gate, if there is one; note that it fires; act."""
        if self.gate is not None:
            pass_gate(self.gate, self.phase)
        self._act(command)

    async def astrike(self, command: str | None) -> None:
        """As ``strike``, on an event loop."""
        if self.gate is not None:
            await apass_gate(self.gate, self.phase)
        self._act(command)

    def _act(self, command: str | None) -> None:
        self.record(command)
        match self.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "exit_0":
                os._exit(0)
            case "exit_42":
                os._exit(42)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise FaultRaised(f"injected at {self.phase}")

    def record(self, command: str | None) -> None:
        """Tell the test that it fires."""
        line = json.dumps({"pid": os.getpid(), "command": command}).encode() + b"\n"
        with contextlib.suppress(OSError):  # the test has closed the fault
            fd = os.open(self.firings, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)


class FaultPlan:
    """The faults of this process, and what it knows of its calls to choose among them."""

    def __init__(self, faults: list[_Fault]) -> None:
        self._faults = faults
        self._commands: dict[int, str] = {}
        self._changed = threading.Condition()
        self._raised = threading.Event()

    def fire(self, phase: str, command: str | None = None) -> None:
        """Strike with the armed faults of ``phase``."""
        for fault in self.claimed(phase, command):
            fault.strike(command)

    async def afire(self, phase: str, command: str | None = None) -> None:
        """As ``fire``, on an event loop."""
        for fault in self.claimed(phase, command):
            await fault.astrike(command)

    def claimed(self, phase: str, command: str | None = None) -> Iterator[_Fault]:
        """The faults that are to strike here and now."""
        for fault in self.of_phase(phase):
            if fault.command in (None, command) and fault.claim():
                yield fault

    def of_phase(self, phase: str) -> list[_Fault]:
        """All faults of ``phase``, armed or not."""
        return [fault for fault in self._faults if fault.phase == phase]

    # --- calls that are open ------------------------------------------------------------------

    def call_came(self, frame: Frame) -> None:
        """Note a call of the host."""
        with self._changed:
            self._commands[frame.call_id] = _command_of(frame)

    def call_ended(self, call_id: int) -> None:
        """Note that a call was answered."""
        with self._changed:
            self._commands.pop(call_id, None)
            self._changed.notify_all()

    def command(self, call_id: int | None) -> str | None:
        """The command of an open call."""
        return None if call_id is None else self._commands.get(call_id)

    # --- idle ---------------------------------------------------------------------------------

    def watch_idle(self) -> None:
        """Start waiting for the faults that strike an idle worker. Main thread."""
        main_thread = threading.get_ident()
        for fault in self.of_phase("idle"):
            if fault.action == "raise":
                # Only a signal handler runs on the main thread while that waits for the host.
                signal.signal(signal.SIGUSR1, lambda *_, fault=fault: self._raise(fault))
            threading.Thread(
                target=self._strike_when_idle, args=(fault, main_thread), daemon=True
            ).start()

    def _strike_when_idle(self, fault: _Fault, main_thread: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while fault.wait_claim():
            with self._changed:
                self._changed.wait_for(lambda: not self._commands)
            if fault.action != "raise":
                fault.strike(None)
                continue
            self._raised.clear()
            while not self._raised.wait(_SIGNAL_AGAIN):
                # A signal that comes right before a system call does not break that off.
                signal.pthread_kill(main_thread, signal.SIGUSR1)

    def _raise(self, fault: _Fault) -> None:
        if not self._raised.is_set():
            self._raised.set()
            fault.strike(None)


def _command_of(frame: Frame) -> str:
    try:
        return read_call(frame).command
    except SnakepitError:
        return ""  # an argument that can't be decoded is the worker's to report


class FaultyPort(Port):
    """The worker's end of the data channel, with the faults that strike between frames."""

    def __init__(self, plan: FaultPlan, sock: socket.socket) -> None:
        self._plan = plan
        plan.fire("before_connect")
        super().__init__(sock)
        plan.fire("after_connect")

    def send(self, frame: bytes) -> None:
        plan = self._plan
        headers = list(_headers(frame))
        kinds = [kind for kind, _, _ in headers]
        if FrameType.READY in kinds:
            plan.fire("before_ready")
        final = next((call_id for kind, call_id, _ in headers if kind in _FINAL), None)
        command = plan.command(final)
        if final is not None:
            frame = self._send_half(frame, command)
        super().send(frame)
        if FrameType.HELLO in kinds:
            plan.fire("after_hello")
        elif FrameType.READY in kinds:
            plan.watch_idle()
        elif FrameType.CALL in kinds:
            plan.fire("in_host_call", plan.command(_parent_of(frame)))
        for kind, call_id, _ in headers:
            if kind in _FINAL or kind == FrameType.CANCELLED:
                plan.call_ended(call_id)
        if final is not None:
            plan.fire("result_sent", command)

    def _send_half(self, frame: bytes, command: str | None) -> bytes:
        """What is left to send of ``frame`` after the faults that strike in the middle of it."""
        for fault in self._plan.claimed("result_half_written", command):
            half = len(frame) // 2
            with self._send_lock:
                self._sock.sendall(frame[:half])
                fault.strike(command)
            frame = frame[half:]
        return frame

    def read_available(self) -> list[Frame]:
        frames = self._read_half()
        if not frames:
            frames = super().read_available()
        for frame in frames:
            if frame.type == FrameType.CALL:
                self._plan.call_came(frame)
            elif frame.type == FrameType.SHUTDOWN:
                self._plan.fire("shutdown")
        return frames

    def _read_half(self) -> list[Frame]:
        """Read up to the middle of a call's header, if a fault is to strike there."""
        if not self._plan.of_phase("header_half_read") or self._decoder.pending_bytes:
            return []
        try:
            waiting = self._sock.recv(_PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        for kind, _, offset in _headers(waiting):
            if kind != FrameType.CALL:
                continue
            command = next(iter(map(_command_of, FrameDecoder().feed(waiting[offset:]))), None)
            for fault in self._plan.claimed("header_half_read", command):
                count = self._sock.recv_into(self._decoder.space, offset + _HALF_HEADER)
                frames = self._decoder.received(count)
                fault.strike(command)
                return frames
        return []


def _headers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, call id and place of each frame that starts in ``data``."""
    offset = 0
    while offset + HEADER_BYTES <= len(data):
        size, kind, _, _, call_id = _HEADER.unpack_from(data, offset)
        yield kind, call_id, offset
        offset += HEADER_BYTES + size


def _parent_of(frame: bytes) -> int | None:
    try:
        return read_call(FrameDecoder().feed(frame)[0]).parent
    except SnakepitError:
        return None


class _FaultyCommands(dict[str, Command]):
    """A worker's commands; the engine looks one up when it has decoded a call."""

    def __init__(self, plan: FaultPlan, commands: Mapping[str, Command]) -> None:
        super().__init__(commands)
        self._plan = plan

    def get(self, name: str, default: Any = None) -> Any:
        self._plan.fire("arguments_decoded", name)
        return super().get(name, default)


def _faulty_commands_of(plan: FaultPlan, instance: object) -> dict[str, Command]:
    commands = commands_of(instance)
    return _FaultyCommands(plan, {name: _wrapped(plan, commands[name]) for name in commands})


def _wrapped(plan: FaultPlan, command: Command) -> Command:
    wrap: Callable[[FaultPlan, Command], Callable[..., Any]] = {
        CommandKind.SYNC: _sync,
        CommandKind.ASYNC: _async,
        CommandKind.SYNC_STREAM: _sync_stream,
        CommandKind.ASYNC_STREAM: _async_stream,
    }[command.kind]
    return dataclasses.replace(command, function=wrap(plan, command))


def _sync(plan: FaultPlan, command: Command) -> Callable[..., Any]:
    def call(**args: Any) -> Any:
        plan.fire("running", command.name)
        return command.function(**args)

    return call


def _async(plan: FaultPlan, command: Command) -> Callable[..., Awaitable[Any]]:
    async def call(**args: Any) -> Any:
        await plan.afire("running", command.name)
        return await command.function(**args)

    return call


def _sync_stream(plan: FaultPlan, command: Command) -> Callable[..., Generator[Any]]:
    def call(**args: Any) -> Generator[Any]:
        plan.fire("running", command.name)
        with contextlib.closing(command.function(**args)) as items:
            for count, item in enumerate(items, 1):
                yield item
                _fire_streaming(plan, command, count)

    return call


def _async_stream(plan: FaultPlan, command: Command) -> Callable[..., AsyncGenerator[Any]]:
    async def call(**args: Any) -> AsyncGenerator[Any]:
        await plan.afire("running", command.name)
        async with contextlib.aclosing(command.function(**args)) as items:
            count = 0
            async for item in items:
                yield item
                count += 1
                for fault in _streaming_faults(plan, command, count):
                    await fault.astrike(command.name)

    return call


def _fire_streaming(plan: FaultPlan, command: Command, count: int) -> None:
    for fault in _streaming_faults(plan, command, count):
        fault.strike(command.name)


def _streaming_faults(plan: FaultPlan, command: Command, count: int) -> list[_Fault]:
    return [
        fault
        for fault in plan.of_phase("streaming")
        if fault.after_items == count and fault.command in (None, command.name) and fault.claim()
    ]
