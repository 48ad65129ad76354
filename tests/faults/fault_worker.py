"""The class that the fault suite runs in workers: it dies, hangs and cheats on request."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fresh_commands import FreshCommands
from hostile_values import act, hostile_error, hostile_value

import snakepit
from snakepit.wire.codec import encode
from snakepit.wire.frames import FrameType, encode_frame
from snakepit.worker import serial


def frames_of_a_worker(call_id: int) -> Iterator[bytes]:
    """One of each frame that a worker sends while it serves the call."""
    error = snakepit.SnakepitError("made up").to_wire()
    yield encode_frame(FrameType.RESULT, call_id, encode(["result"]))
    yield encode_frame(FrameType.ERROR, call_id, encode([error]))
    yield encode_frame(FrameType.CANCELLED, call_id, encode([False]))
    yield encode_frame(FrameType.END, call_id, encode([]))
    yield encode_frame(FrameType.CALL, 2, encode(["answer", {}, None, None, call_id, None]), 2)


@dataclass(frozen=True)
class RawBody:
    """A result that is sent as it is, whatever it means."""

    body: bytes


def answer_frame(honest: Callable[..., Any], call_id: int, value: Any, *more: Any) -> Any:
    """The engine's answer, unless a command wants another one."""
    if isinstance(value, RawBody):
        return encode_frame(FrameType.RESULT, call_id, value.body)
    return honest(call_id, value, *more)


class _HangsWhenCollected:
    def __del__(self) -> None:
        threading.Event().wait()


if "FAULT_AT_IMPORT" in os.environ:
    act(os.environ["FAULT_AT_IMPORT"])


def sockets() -> list[int]:
    """The process's sockets. A worker is born with two: data, then control."""
    folder = Path("/proc/self/fd")
    names = [name for name in os.listdir(folder) if _link(folder / name).startswith("socket:")]
    return sorted(map(int, names))


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""  # the descriptor of the listing itself


class Victim(FreshCommands):
    """Commands for one fault each, and a few that just work."""

    def __init__(self, fault: str | None = None, close: str | None = None) -> None:
        # In the main thread also of a worker that runs its commands in others.
        signal.signal(signal.SIGUSR1, lambda *_: act(self.armed))
        self.armed = "kill"
        self.data, self.control = sockets()[:2]
        self.ran: list[int] = []
        self.hoard: list[bytearray] = []
        self._close = close
        vars(serial)["result_frame"] = partial(answer_frame, vars(serial)["result_frame"])
        if fault is not None:
            act(fault)

    def close(self) -> None:
        if self._close is not None:
            act(self._close)

    # --- what just works ---------------------------------------------------------------------

    @snakepit.command
    def add(self, x: int, y: int = 1) -> int:
        return x + y

    @snakepit.command
    async def aadd(self, x: int, y: int = 1) -> int:
        return x + y

    @snakepit.command
    def echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    async def aecho(self, value: Any) -> Any:
        return value

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @snakepit.command
    async def acount(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @snakepit.command
    def call_host(self, name: str, args: dict[str, Any] | None = None) -> Any:
        return snakepit.current_call().call_host(name, args or {})

    @snakepit.command
    async def acall_host(self, name: str, args: dict[str, Any] | None = None) -> Any:
        return await snakepit.current_call().acall_host(name, args or {})

    @snakepit.command
    def note(self, number: int) -> int:
        """Remember that this call ran."""
        self.ran.append(number)
        return number

    @snakepit.command
    def noted(self) -> list[int]:
        return self.ran

    @snakepit.command
    def append_line(self, path: str, die: bool) -> None:
        """A side effect that the caller can count."""
        with open(path, "a") as file:
            file.write("ran\n")
        if die:
            act("kill")

    # --- death -------------------------------------------------------------------------------

    @snakepit.command
    def arm(self, how: str) -> int:
        """Act this way when SIGUSR1 arrives."""
        self.armed = how
        return os.getpid()

    @snakepit.command
    def die(self, how: str) -> None:
        print(f"about to {how}")
        act(how)

    @snakepit.command
    async def adie(self, how: str) -> None:
        print(f"about to {how}")
        act(how)

    @snakepit.command
    def die_in_half_a_result(self, how: str, share: float) -> None:
        """Send that share of a result, then die."""
        frame = self._result(["a result"] * 1000)
        os.write(self.data, frame[: int(len(frame) * share)])
        act(how)

    @snakepit.command
    def die_in_a_stream(self, how: str, after: int) -> Iterator[int]:
        yield from range(after)
        act(how)

    @snakepit.command
    async def adie_in_a_stream(self, how: str, after: int) -> AsyncIterator[int]:
        for i in range(after):
            yield i
        act(how)

    @snakepit.command
    def die_with_a_lock(self, path: str) -> None:
        """Die while another thread waits to send, with a file locked and a line half printed."""
        import fcntl

        file = open(path, "w")  # noqa: SIM115 - it has to stay open
        fcntl.flock(file, fcntl.LOCK_EX)
        sys.stdout.write("half a line")
        sys.stdout.flush()
        act("kill")

    def _result(self, value: Any) -> bytes:
        call_id = snakepit.current_call().call_id
        return encode_frame(FrameType.RESULT, call_id, encode([value]))

    # --- cheating ----------------------------------------------------------------------------

    @snakepit.command
    def send_raw(self, data: bytes, then: str = "wait") -> None:
        """Put bytes on the data channel behind the engine's back."""
        self._write(data)
        if then == "wait":
            threading.Event().wait()
        act("exit0")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.data, view) :]

    @snakepit.command
    def call_id(self) -> int:
        return snakepit.current_call().call_id

    @snakepit.command
    def answer_raw(self, body: bytes) -> RawBody:
        """Have the engine answer this call with that body."""
        return RawBody(body)

    @snakepit.command
    def die_in_a_frame(self, kind: int, cut: int) -> None:
        """Send the first bytes of one of the frames a worker sends."""
        frames = list(frames_of_a_worker(snakepit.current_call().call_id))
        os.write(self.data, frames[kind][:cut])
        act("kill")

    @snakepit.command
    def items_in_one_write(self, count: int) -> Iterator[int]:
        """One frame for each item, all sent together; the engine sends the end."""
        call_id = snakepit.current_call().call_id
        frames = [encode_frame(FrameType.ITEM, call_id, encode([[i]])) for i in range(count)]
        self._write(b"".join(frames))
        yield from ()

    @snakepit.command
    def send_raw_control(self, data: bytes) -> None:
        os.write(self.control, data)
        threading.Event().wait()

    @snakepit.command
    def send_frame(self, kind: int, body: Any, call_id: int | None = None) -> None:
        """Send a frame, by default one of this call, and then return."""
        own = snakepit.current_call().call_id
        os.write(self.data, encode_frame(kind, own if call_id is None else call_id, encode(body)))

    @snakepit.command
    def dribble(self, value: Any) -> None:
        """Answer one byte at a time, then the engine answers once more."""
        for byte in self._result(value):
            os.write(self.data, bytes([byte]))
        act("kill")

    # --- hanging -----------------------------------------------------------------------------

    @snakepit.command
    def spin(self) -> None:
        while True:
            pass

    @snakepit.command
    def sleep(self, seconds: float = 60.0) -> None:
        time.sleep(seconds)

    @snakepit.command
    def hold_gil(self) -> int:
        return sum(range(10**12))

    @snakepit.command
    def backtrack(self) -> bool:
        """A regular expression that takes for ever; it holds the GIL."""
        return re.match(r"(a|a)*b", "a" * 64) is not None

    @snakepit.command
    def ignore_sigterm(self, how: str) -> None:
        def loop(*_: object) -> None:
            while True:
                pass

        def set_handler() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "ignore" else loop)

        set_handler()

    @snakepit.command
    def leave_thread_running(self) -> None:
        threading.Thread(target=threading.Event().wait, name="never ends").start()

    @snakepit.command
    def register_hanging_exit(self) -> None:
        import atexit

        atexit.register(threading.Event().wait)

    @snakepit.command
    def leave_hanging_destructor(self) -> None:
        self.last_wish = _HangsWhenCollected()

    @snakepit.command
    async def refuse_to_stop(self, started: str) -> None:
        while True:
            try:
                # Inside: the test cancels as soon as the file is there.
                await asyncio.to_thread(Path(started).touch)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    @snakepit.command
    async def async_for_ever(self) -> None:
        await asyncio.Event().wait()

    @snakepit.command
    def burn(self, seconds: float) -> str:
        """Use a processor for that long on the clock."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "burnt"

    # --- processes of its own ----------------------------------------------------------------

    @snakepit.command
    def start_family(self, kind: str) -> list[int]:
        """Start processes of its own; return their pids."""
        pause = "import signal; signal.pause()"
        match kind:
            case "child":
                return [subprocess.Popen([sys.executable, "-c", pause]).pid]
            case "daemon":
                # Another session, another group, and its parent is gone.
                code = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\n{pause}"
                done = subprocess.Popen([sys.executable, "-c", code])
                done.wait()
                return []
            case "multiprocessing":
                child = multiprocessing.get_context("fork").Process(target=signal.pause)
                child.start()
                return [int(child.pid or 0)]
            case _:
                return self._nest(4)

    def _nest(self, depth: int) -> list[int]:
        """A chain of processes, each the child of the one before."""
        read, write = os.pipe()
        if os.fork() == 0:
            for level in range(depth):
                os.write(write, f"{os.getpid()}\n".encode())
                if level + 1 < depth and os.fork():
                    break
            signal.pause()
        os.close(write)
        with open(read) as pids:
            return [int(pids.readline()) for _ in range(depth)]

    # --- resources ---------------------------------------------------------------------------

    @snakepit.command
    def allocate(self, megabytes: int, keep: bool = False) -> int:
        block = bytearray(megabytes << 20)
        if keep:
            self.hoard.append(block)
        return len(block)

    @snakepit.command
    def limit_memory(self, megabytes: int) -> None:
        """Let this process have that much more address space."""
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    @snakepit.command
    def limit_descriptors(self, count: int) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    @snakepit.command
    def large(self, megabytes: int) -> list[str]:
        return ["x" * 1024] * (megabytes << 10)

    @snakepit.command
    def thread_limits(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}

    # --- output ------------------------------------------------------------------------------

    @snakepit.command
    def print_much(self, megabytes: int) -> None:
        line = "x" * 1023
        for _ in range(megabytes << 10):
            print(line)

    @snakepit.command
    def print_junk(self) -> None:
        os.write(1, bytes(range(256)) * 100)
        os.write(2, b"\xff\xfe no end of line")

    @snakepit.command
    def close_output(self) -> None:
        sys.stdout.flush()
        for fd in (1, 2):
            os.close(fd)

    @snakepit.command
    def read_stdin(self) -> str:
        return sys.stdin.read()

    # --- values ------------------------------------------------------------------------------

    @snakepit.command
    def give(self, kind: str) -> Any:
        """A result that can't travel."""
        return hostile_value(kind)

    @snakepit.command
    def stream_and_give(self, kind: str) -> Iterator[Any]:
        yield from range(3)
        yield hostile_value(kind)

    @snakepit.command
    def fail_with(self, kind: str) -> None:
        raise hostile_error(kind)

    @snakepit.command
    def random_numbers_and_wait(self) -> list[float]:
        """Numbers of this process; it is busy long enough for its siblings to be asked, too."""
        import random
        import uuid

        numbers = [random.random(), float(uuid.uuid4().int), float(int.from_bytes(os.urandom(8)))]
        self.burn(0.1)
        return numbers

    @snakepit.command
    def dot(self) -> float:
        import numpy as np

        return float((np.ones((100, 100)) @ np.ones((100, 100)))[0, 0])

    @snakepit.command
    def raise_bytes(self, value: bytes) -> None:
        raise ValueError(value)

    @snakepit.command
    def raise_base(self, how: str) -> None:
        kinds = {"system_exit": SystemExit, "interrupt": KeyboardInterrupt, "base": BaseException}
        raise kinds.get(how, GeneratorExit)

    @snakepit.command
    def stream_of(self, value: Any) -> Iterator[Any]:
        yield value

    @snakepit.command
    def environment(self) -> dict[str, str]:
        return dict(os.environ)
