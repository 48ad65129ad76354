"""A proxy between the host and its workers that loses, repeats, damages and holds back frames.

It sits on real channels, between two processes that know nothing of it: what it does is what a
faulty peer would do. It runs in the pool's event loop. Descriptors that travel with the frames are
passed on.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from snakepit.link.channels import HostEnds
from snakepit.options import whole_number
from snakepit.wire.frames import HEADER_BYTES, FrameType

_HEADER = struct.Struct("<IBBHQ")
_READ_BYTES = 1 << 18
_MAX_UNSENT = 1 << 22
_MAX_FDS = 32
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_GARBAGE_BYTES = 64

Edit = Callable[[bytes, random.Random], bytes]


class Direction(Enum):
    """Which way a frame travels."""

    TO_WORKER = "to_worker"
    TO_HOST = "to_host"


class Tamper(Enum):
    """What happens to a frame."""

    DROP = "drop"
    """It is lost."""
    DUPLICATE = "duplicate"
    """It arrives twice."""
    HOLD = "hold"
    """It and all that follow it on its channel wait until the rule is released."""
    TRUNCATE = "truncate"
    """Half of it arrives, then the channel ends."""
    FLIP_HEADER = "flip_header"
    """One bit of its header is inverted."""
    FLIP_BODY = "flip_body"
    """One bit of its body is inverted."""
    GARBAGE = "garbage"
    """Random bytes arrive in its place."""


class FrameRule:
    """What happens to which frames.

    Args:
        tamper: what happens; or a function that gets the frame's bytes and the proxy's seeded
            random numbers, and returns the bytes to send on.
        frame_type: only frames of this type; any by default.
        direction: which way.
        times: how many frames it strikes; later ones pass.
        after: how many matching frames pass before the first one.
        chance: the probability that a matching frame is struck.
    """

    def __init__(
        self,
        tamper: Tamper | Edit,
        frame_type: FrameType | None = None,
        *,
        direction: Direction = Direction.TO_HOST,
        times: int = 1,
        after: int = 0,
        chance: float = 1.0,
    ) -> None:
        self.tamper = tamper
        self.frame_type = frame_type
        self.direction = direction
        self.count = 0
        self._times = whole_number("times", times)
        self._after = whole_number("after", after, least=0)
        self._chance = chance
        self._held: list[_Lane] = []

    def __repr__(self) -> str:
        what = self.tamper.value if isinstance(self.tamper, Tamper) else "edit"
        which = "any frame" if self.frame_type is None else self.frame_type.name
        return f"<FrameRule {what} {which} {self.direction.value}, fired {self.count}x>"

    @property
    def fired(self) -> bool:
        """Whether it has struck a frame. A test asserts this, or it proves nothing."""
        return self.count > 0

    def release(self) -> None:
        """Let what ``HOLD`` holds back go on."""
        held, self._held = self._held, []
        for lane in held:
            lane.go_on()

    def _strikes(self, kind: int, direction: Direction, source: random.Random) -> bool:
        if direction is not self.direction or self.frame_type not in (None, kind):
            return False
        if self.count >= self._times or source.random() >= self._chance:
            return False
        if self._after > 0:
            self._after -= 1
            return False
        self.count += 1
        return True


class FrameProxy:
    """Stands between a pool and all its workers; give it to a ``FaultyAdapter``.

    Args:
        rules: what happens to which frames; the first one that strikes a frame counts.
        seed: of the random numbers, for damage that can be repeated.

    Attributes:
        links: one for each worker that was started, in order.

    Example::

        rule = FrameRule(Tamper.TRUNCATE, FrameType.RESULT)
        adapter = FaultyAdapter("my_worker:Worker", proxy=FrameProxy([rule]))
        async with Pool(adapter, size=2) as pool:
            with pytest.raises(WorkerLost):
                await pool.execute("greet", {"name": "Ada"})
        assert rule.fired
    """

    def __init__(self, rules: Sequence[FrameRule] = (), *, seed: int = 0) -> None:
        self.rules = tuple(rules)
        self.random = random.Random(seed)
        self.links: list[ProxiedLink] = []

    def insert(self, ends: HostEnds) -> HostEnds:
        """The host's ends of channels that lead through this proxy."""
        link = ProxiedLink(self, ends)
        self.links.append(link)
        return link.host_ends

    def close(self) -> None:
        """End all links."""
        for link in self.links:
            link.cut()


class ProxiedLink:
    """The channels of one worker, through the proxy."""

    def __init__(self, proxy: FrameProxy, ends: HostEnds) -> None:
        data, self._data = _splice(proxy, ends.data)
        control, self._control = _splice(proxy, ends.control)
        self.host_ends = ends._replace(data=data, control=control)

    def inject(self, direction: Direction, data: bytes) -> None:
        """Send bytes on the data channel as if the peer had, after what it sent so far."""
        self._data.lane(direction).forward(data)

    def cut(self) -> None:
        """End the channels in both directions, as if both sides had closed them."""
        self._data.close()
        self._control.close()


def _splice(proxy: FrameProxy, worker_side: socket.socket) -> tuple[socket.socket, _Channel]:
    host, host_side = socket.socketpair()
    return host, _Channel(proxy, host_side, worker_side)


class _Channel:
    """One socket pair made into two with a lane in each direction. Owns both inner ends."""

    def __init__(self, proxy: FrameProxy, host: socket.socket, worker: socket.socket) -> None:
        self._sockets = (host, worker)
        for sock in self._sockets:
            sock.setblocking(False)
        self._lanes = {
            Direction.TO_WORKER: _Lane(proxy, Direction.TO_WORKER, host, worker, self),
            Direction.TO_HOST: _Lane(proxy, Direction.TO_HOST, worker, host, self),
        }

    def lane(self, direction: Direction) -> _Lane:
        return self._lanes[direction]

    def lane_ended(self) -> None:
        if all(lane.ended for lane in self._lanes.values()):
            self.close()

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.stop()
        for sock in self._sockets:
            sock.close()


class _Lane:
    """Frames from one socket to another."""

    def __init__(
        self,
        proxy: FrameProxy,
        direction: Direction,
        source: socket.socket,
        target: socket.socket,
        channel: _Channel,
    ) -> None:
        self._proxy = proxy
        self._direction = direction
        self._source = source
        self._target = target
        self._channel = channel
        self._received = bytearray()
        self._fds: list[int] = []
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._unsent_bytes = 0
        self._source_ended = False
        self._held = False
        self._throttled = False
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(source, self._on_readable)

    # --- in ------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data, ancillary, _, _ = self._source.recvmsg(
                _READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for _, _, rights in ancillary:
            self._fds += array.array("i", rights[: len(rights) // 4 * 4])
        if not data:
            self._loop.remove_reader(self._source)
            self._source_ended = True
        self._received += data
        self._handle_frames()
        self._send()

    def _handle_frames(self) -> None:
        while not self._held and not self.ended and (frame := self._next_frame()):
            fds, self._fds = self._fds, []
            rule = self._rule_for(frame[4])
            if rule is None:
                self._queue(frame, fds)
            else:
                self._strike(rule, frame, fds)

    def _next_frame(self) -> bytes | None:
        if len(self._received) < HEADER_BYTES:
            return None
        end = HEADER_BYTES + _HEADER.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        frame = bytes(self._received[:end])
        del self._received[:end]
        return frame

    def _rule_for(self, kind: int) -> FrameRule | None:
        for rule in self._proxy.rules:
            if rule._strikes(kind, self._direction, self._proxy.random):
                return rule
        return None

    def _strike(self, rule: FrameRule, frame: bytes, fds: list[int]) -> None:
        if rule.tamper is Tamper.HOLD:
            self._held = True
            rule._held.append(self)
            self._queue(frame, fds, behind_gate=True)
            return
        for part in _tampered(rule.tamper, frame, self._proxy.random):
            self._queue(part, fds)
            fds = []
        for fd in fds:
            os.close(fd)  # lost with its frame
        if rule.tamper is Tamper.TRUNCATE:
            self._source_ended = True
            self._loop.remove_reader(self._source)
            self._received.clear()

    # --- out -----------------------------------------------------------------------------------

    def _queue(self, data: bytes, fds: list[int], *, behind_gate: bool = False) -> None:
        if behind_gate:
            # What was received goes on in its order, this frame first.
            self._received[:0] = data
            self._fds[:0] = fds
            return
        self._unsent.append((data, fds))
        self._unsent_bytes += len(data)

    def forward(self, data: bytes) -> None:
        """Send bytes on, whatever they are."""
        self._queue(data, [])
        self._send()

    def go_on(self) -> None:
        """Go on after a frame was held back, that frame first."""
        self._held = False
        if self.ended:
            return
        frame = self._next_frame()
        if frame is not None:
            fds, self._fds = self._fds, []
            self._queue(frame, fds)
        self._handle_frames()
        self._send()

    def _send(self) -> None:
        if self.ended:
            return
        try:
            while self._unsent:
                data, fds = self._unsent[0]
                sent = self._target.sendmsg([data], _rights(fds))
                for fd in fds:
                    os.close(fd)
                self._unsent_bytes -= sent
                if sent == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = (data[sent:], [])
        except BlockingIOError:
            self._loop.add_writer(self._target, self._on_writable)
        except OSError:
            self._finish()  # nobody reads any more
        else:
            if self._source_ended and not self._held:
                self._finish()
        self._throttle()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._target)
        self._send()

    def _throttle(self) -> None:
        """Read no further ahead than the receiver can follow."""
        too_far = self._unsent_bytes > _MAX_UNSENT
        if self._source_ended or self.ended or too_far is self._throttled:
            return
        self._throttled = too_far
        if too_far:
            self._loop.remove_reader(self._source)
        else:
            self._loop.add_reader(self._source, self._on_readable)

    # --- end -----------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Pass on the end of file."""
        self.stop()
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)
        self._channel.lane_ended()

    def stop(self) -> None:
        """Read and send no more."""
        if not self.ended:
            self.ended = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self._source)
                self._loop.remove_writer(self._target)
            for fd in [*self._fds, *(fd for _, fds in self._unsent for fd in fds)]:
                os.close(fd)


def _rights(fds: list[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def _tampered(tamper: Tamper | Edit, frame: bytes, source: random.Random) -> Iterator[bytes]:
    """What is sent in place of ``frame``."""
    match tamper:
        case Tamper.DROP:
            return
        case Tamper.DUPLICATE:
            yield from (frame, frame)
        case Tamper.TRUNCATE:
            yield frame[: len(frame) // 2]
        case Tamper.FLIP_HEADER:
            yield _flipped(frame, source.randrange(HEADER_BYTES * 8))
        case Tamper.FLIP_BODY:
            yield _flipped(frame, source.randrange(HEADER_BYTES * 8, len(frame) * 8))
        case Tamper.GARBAGE:
            yield source.randbytes(_GARBAGE_BYTES)
        case _ if callable(tamper):
            yield tamper(frame, source)


def _flipped(frame: bytes, bit: int) -> bytes:
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
