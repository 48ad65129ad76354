"""The class whose commands handle large buffers."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
from fresh_commands import FreshCommands
from msgpack import ExtType

import snakepit
from snakepit.wire.frames import FLAG_SEGMENTS, FrameType, encode_frame
from snakepit.wire.messages import message_frame
from snakepit.wire.segments import MAX_SEGMENTS
from snakepit.wire.values import Ext


class Buffers(FreshCommands):
    """Takes, gives, keeps and loses arrays and bytes."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @snakepit.command
    def echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    async def async_echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    def described(self, array: Any) -> tuple[bool, float, bool]:
        return bool(array.flags.writeable), float(array.sum()), bool(array.flags.aligned)

    @snakepit.command
    def write(self, array: Any) -> str:
        try:
            array.flags.writeable = True
        except ValueError as error:
            return str(error)
        return "written"

    @snakepit.command
    def zeros(self, count: int) -> Any:
        return np.zeros(count)

    @snakepit.command
    def filled(self, count: int, value: float) -> Any:
        return np.full(count, value)

    @snakepit.command
    def keep(self, array: Any) -> None:
        self.kept.append(array[len(array) // 2 :][:10])

    @snakepit.command
    def kept_values(self) -> list[list[float]]:
        return [part.tolist() for part in self.kept]

    @snakepit.command
    def let_go(self) -> None:
        self.kept.clear()

    @snakepit.command
    def stream(self, count: int, size: int) -> Iterator[Any]:
        for number in range(count):
            yield np.full(size, float(number))

    @snakepit.command
    def pass_on(self, name: str, count: int) -> Any:
        return snakepit.current_call().call_host(name, {"array": np.full(count, 2.0)})

    @snakepit.command
    def bad_beside(self, count: int) -> Any:
        return {"array": np.zeros(count), "bad": object()}

    @snakepit.command
    def die(self, array: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @snakepit.command
    def fork_child_that_drops(self, array: Any) -> float:
        """The child ends its copy of the view; this process keeps its own."""
        self.kept.append(array)
        pid = os.fork()
        if pid == 0:
            self.kept.clear()
            del array
            os._exit(0)
        os.waitpid(pid, 0)
        return float(array.sum())

    @snakepit.command
    def fork_child_that_keeps(self, array: Any) -> tuple[int, int]:
        """The child looks at the array when it is told to, and says what it sees."""
        ask_read, ask_write = os.pipe()
        say_read, say_write = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(ask_write)
            os.read(ask_read, 1)
            os.write(say_write, repr(float(array[0])).encode())
            os._exit(0)
        os.close(ask_read)
        os.close(say_write)
        return ask_write, say_read

    @snakepit.command
    def what_the_child_sees(self, ends: tuple[int, int]) -> float:
        ask, say = ends
        os.write(ask, b"?")
        seen = float(os.read(say, 100))
        os.waitpid(self.child, 0)
        os.close(ask)
        os.close(say)
        return seen

    @snakepit.command
    def without_files(self, count: int) -> Any:
        """A result that is made when no descriptor is left."""
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        return np.full(count, 3.0)

    @snakepit.command
    def without_file_sizes(self, count: int) -> Any:
        """A result that is made when no file may be as large as it is."""
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        return np.full(count, 3.0)

    @snakepit.command
    def abuse(self, how: str) -> Any:
        """Break the rules of segments, then wait for the end."""
        port = snakepit.current_call()._engine._port  # type: ignore[attr-defined]
        _ABUSES[how](port, port.exchange)
        signal.pause()

    @snakepit.command
    def mappings(self) -> int:
        with open("/proc/self/maps") as maps:
            return sum("/memfd:snakepit-segment" in line for line in maps)


def _memory(seals: int, size: int = 1 << 20) -> int:
    fd = os.memfd_create("snakepit", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def _announce(exchange: Any, segment_id: int, fd: int, size: int = 1 << 20) -> None:
    exchange._send_descriptor(message_frame(FrameType.SEGMENT, 0, segment_id, size), fd)


def _refer(port: Any, segment_id: int, offset: int, size: int) -> None:
    where = ExtType(Ext.SHARED_BYTES.value, msgpack.packb([segment_id, offset, size]))
    call_id = snakepit.current_call().call_id
    port.send(encode_frame(FrameType.RESULT, call_id, msgpack.packb([where]), FLAG_SEGMENTS))


def _flood(port: Any, exchange: Any) -> None:
    for segment_id in range(1, MAX_SEGMENTS + 2):
        fd = _memory(_SEALED, 4096)
        _announce(exchange, segment_id, fd, 4096)
        os.close(fd)


def _overreach(port: Any, exchange: Any) -> None:
    _announce(exchange, 1, _memory(_SEALED))
    _refer(port, 1, 1, 1 << 20)


def _reuse(port: Any, exchange: Any) -> None:
    """Two items in the same segment, though the first was not released."""
    _announce(exchange, 1, _memory(_SEALED))
    call_id = snakepit.current_call().call_id
    where = ["|u1", [1 << 20], "C", 1, 0]
    array = ExtType(Ext.SHARED_ARRAY.value, msgpack.packb(where))
    frame = encode_frame(FrameType.RESULT, call_id, msgpack.packb([array]), FLAG_SEGMENTS)
    port.send(frame + frame)


_ABUSES: dict[str, Callable[[Any, Any], None]] = {
    "a segment without a descriptor": lambda _, exchange: exchange._send(
        message_frame(FrameType.SEGMENT, 0, 1, 1 << 20)
    ),
    "memory that may shrink": lambda _, exchange: _announce(
        exchange, 1, _memory(fcntl.F_SEAL_GROW)
    ),
    "memory smaller than announced": lambda _, exchange: _announce(
        exchange, 1, _memory(_SEALED, 4096)
    ),
    "a pipe": lambda _, exchange: _announce(exchange, 1, os.pipe()[0]),
    "its own channel": lambda port, exchange: _announce(exchange, 1, port.fileno()),
    "a flood": _flood,
    "a segment never announced": lambda port, _: _refer(port, 7, 0, 1),
    "a range past the end": _overreach,
    "a segment before its release": _reuse,
    "a release of nothing": lambda _, exchange: exchange._send(
        message_frame(FrameType.RELEASE, 0, [99], [])
    ),
    "a discard of nothing": lambda _, exchange: exchange._send(
        message_frame(FrameType.DISCARD, 0, [99])
    ),
}
