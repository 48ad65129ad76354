"""Segments: pieces of shared memory that carry large buffers beside the frames.

Each side owns the segments it writes. It announces one with its descriptor, refers to it in frames,
and writes it again only after the receiver has released it: as long as a view of a value is alive
there, the bytes below it must not change. See PROTOCOL.md.

:class:`OutgoingSegments` is the owner's side, :class:`IncomingSegments` the receiver's.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from snakepit.errors import DecodeError, ProtocolError
from snakepit.wire.memory import SharedMemory, create_memory, map_memory

#: Smaller buffers travel in frames, which is faster then (measured).
SEGMENT_THRESHOLD: Final = 1 << 18
#: Bytes of all segments that one side of a connection may own at a time.
MAX_SEGMENT_BYTES: Final = 1 << 30
#: Segments that one side of a connection may own at a time.
MAX_SEGMENTS: Final = 64
#: Where values begin: libraries read aligned elements faster.
ALIGNMENT: Final = 64
#: Seconds after which an unused segment is given back to the system.
IDLE_SECONDS: Final = 30.0

_LEAST_BYTES = 1 << 20
# A small value that is kept for long must not hold a huge segment.
_MOST_WASTE = 8


class Segment:
    """Memory that this side owns and the peer has mapped."""

    __slots__ = ("idle_since", "memory", "segment_id", "size")

    def __init__(self, segment_id: int, memory: mmap.mmap, size: int) -> None:
        self.segment_id = segment_id
        self.memory = memory
        self.size = size
        self.idle_since = 0.0


class Place(NamedTuple):
    """Where a value goes."""

    segment: Segment
    offset: int


class OutgoingSegments:
    """The segments this side owns. Thread-safe.

    ``announce`` sends a segment's id, size and descriptor, and returns False if it can't now;
    ``discard`` tells the peer which segments are gone.
    """

    def __init__(
        self,
        announce: Callable[[int, int, int], bool],
        discard: Callable[[list[int]], None],
        *,
        create: Callable[[int], SharedMemory] = create_memory,
    ) -> None:
        self._announce = announce
        self._discard = discard
        self._create_memory = create
        self._lock = threading.Lock()
        self._free: list[Segment] = []
        self._used: dict[int, Segment] = {}
        self._last_id = 0
        self._closed = False
        self.total_bytes = 0
        #: Whether large bytes have come up here: then it pays to look for more.
        self.carries_bytes = False
        #: What events say of the connection.
        self.labels: Mapping[str, str | None] = {}

    def take(self, size: int) -> Segment | None:
        """A segment of at least ``size`` bytes, or None: then the bytes go into the frame."""
        if size > MAX_SEGMENT_BYTES:
            return None
        with self._lock:
            segment = self._reused(size, size * _MOST_WASTE) or self._created(size)
            # Better a segment far too large than none.
            segment = segment or self._reused(size, MAX_SEGMENT_BYTES)
            if segment is not None:
                self._used[segment.segment_id] = segment
            return segment

    def give_back(self, segments: Iterable[Segment]) -> None:
        """Take back segments that no frame which was sent refers to."""
        with self._lock:
            for segment in segments:
                self._freed(segment)

    def released(self, ids: list[int], spent: list[int]) -> None:
        """The peer has no more views of ``ids``; those of ``spent`` it never wants again.

        Raises:
            ProtocolError: one of them is not in use.
        """
        with self._lock:
            for segment_id in ids:
                self._freed(self._taken_out(segment_id))
            for segment_id in spent:
                self.total_bytes -= self._taken_out(segment_id).size

    def trim(self, now: float) -> bool:
        """Drop what was unused for long; return whether unused segments are left."""
        with self._lock:
            self._drop([s for s in self._free if now - s.idle_since >= IDLE_SECONDS])
            return bool(self._free)

    def close(self) -> None:
        """Forget all; the connection has ended."""
        with self._lock:
            self._closed = True
            self._free.clear()
            self._used.clear()
            self.total_bytes = 0

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self._free) + len(self._used)

    def _taken_out(self, segment_id: int) -> Segment:
        segment = self._used.pop(segment_id, None)
        if segment is None:
            raise ProtocolError(f"the peer released segment {segment_id}, which is not in use")
        return segment

    def _freed(self, segment: Segment) -> None:
        self._used.pop(segment.segment_id, None)
        if not self._closed:
            segment.idle_since = time.monotonic()
            self._free.append(segment)

    def _reused(self, size: int, most: int) -> Segment | None:
        most = max(most, _LEAST_BYTES)
        fitting = [segment for segment in self._free if size <= segment.size <= most]
        if not fitting:
            return None
        best = min(fitting, key=lambda segment: segment.size)
        self._free.remove(best)
        return best

    def _created(self, size: int) -> Segment | None:
        size = rounded(size)
        if self._closed or not self._make_room(size):
            return None
        try:
            memory, fd = self._create_memory(size)
        except (OSError, MemoryError):
            return None  # the system is short of something; frames need less of it
        try:
            self._last_id += 1
            if not self._announce(self._last_id, size, fd):
                return None
        finally:
            os.close(fd)
        self.total_bytes += size
        return Segment(self._last_id, memory, size)

    def _make_room(self, size: int) -> bool:
        """Keep within the limits, if need be by dropping unused segments, the oldest first."""
        drop: list[Segment] = []
        total, count = self.total_bytes, self.count
        for segment in (*self._free, None):
            if total + size <= MAX_SEGMENT_BYTES and count < MAX_SEGMENTS:
                self._drop(drop)
                return True
            if segment is not None:
                drop.append(segment)
                total, count = total - segment.size, count - 1
        return False

    def _drop(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._free.remove(segment)
            self.total_bytes -= segment.size
        if segments:
            self._discard([segment.segment_id for segment in segments])


def rounded(size: int) -> int:
    """The size of a new segment: a little more than asked for, so that others can reuse it."""
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return min(max(_LEAST_BYTES, -(-size // step) * step), MAX_SEGMENT_BYTES)


class Placement:
    """Where the large buffers of one message go."""

    def __init__(self, segments: OutgoingSegments) -> None:
        self.outgoing = segments
        self._segments: list[Segment] = []
        self._filled = 0
        self.placed_bytes = 0
        #: Bytes for which there was no room.
        self.refused_bytes = 0

    def place(self, size: int) -> Place | None:
        """Room for ``size`` bytes; None if they have to go into the frame."""
        start = -(-self._filled // ALIGNMENT) * ALIGNMENT
        if not self._segments or start + size > self._segments[-1].size:
            # Ever larger ones, so that a message of many buffers needs few.
            more = max(size, min(self.placed_bytes, MAX_SEGMENT_BYTES // 4))
            segment = self.outgoing.take(more) or self.outgoing.take(size)
            if segment is None:
                self.refused_bytes += size
                return None
            self._segments.append(segment)
            start = 0
        self._filled = start + size
        self.placed_bytes += size
        return Place(self._segments[-1], start)

    def abandon(self) -> None:
        """The message is not sent."""
        self.outgoing.give_back(self._segments)
        self._segments.clear()


class Leases:
    """The segments that one message refers to. Kept while it is decoded, then closed."""

    def __init__(self, incoming: IncomingSegments) -> None:
        self._incoming = incoming
        self._memory: dict[int, mmap.mmap] = {}
        self._roots: dict[int, Any] = {}
        # Apart from the errors of single values: it ends the connection.
        self.violation: ProtocolError | None = None
        #: How many bytes the message has in segments.
        self.used_bytes = 0

    def memory(self, segment_id: object, offset: object, size: int) -> mmap.mmap:
        """The memory of a segment that holds ``size`` bytes from ``offset``.

        Raises:
            ProtocolError: there is no such segment or range; kept as ``violation``.
            DecodeError: the segment can't be mapped here.
        """
        try:
            if type(segment_id) is not int or type(offset) is not int or offset < 0:
                raise ProtocolError(f"segment {segment_id!r} at {offset!r} is no place")
            memory = self._memory.get(segment_id)
            if memory is None:
                memory = self._memory[segment_id] = self._incoming.lease(segment_id)
            if offset + size > len(memory):
                raise ProtocolError(
                    f"the peer refers to bytes {offset} to {offset + size} of segment {segment_id},"
                    f" which has {len(memory)}"
                )
        except ProtocolError as violation:
            self.violation = violation
            raise
        self.used_bytes += size
        return memory

    def root(self, segment_id: int, make: Callable[[mmap.mmap], Any]) -> Any:
        """The object that all views of a segment are based on; ``make`` creates the first."""
        root = self._roots.get(segment_id)
        if root is None:
            root = self._roots[segment_id] = make(self._memory[segment_id])
            self._incoming.watch(segment_id, root)
        return root

    def close(self) -> None:
        """Leave the segments to the views that were made; release those without any."""
        for segment_id in self._memory.keys() - self._roots.keys():
            self._incoming.end_lease(segment_id)
        self._memory.clear()
        self._roots.clear()


class _Mapped:
    """A segment of the peer's; without memory, if it could not be mapped here."""

    __slots__ = ("failure", "memory", "size")

    def __init__(self, memory: mmap.mmap | None, size: int, failure: str = "") -> None:
        self.memory = memory
        self.size = size
        self.failure = failure


class IncomingSegments:
    """The peer's segments, as far as they are mapped here.

    ``fetch`` is called with a condition when a frame refers to a segment that is not here yet: the
    announcement is on another channel. ``wake`` is called, in whichever thread a view ends and
    also while garbage is collected, when there is something for ``take_released``.
    """

    def __init__(
        self, fetch: Callable[[Callable[[], bool]], None], wake: Callable[[], None]
    ) -> None:
        self._fetch = fetch
        self._wake = wake
        self._mapped: dict[int, _Mapped] = {}
        self._viewed: dict[int, weakref.ref[Any] | None] = {}
        # Written by finalizers, which may run anywhere: they take no lock.
        self._over: deque[int] = deque()
        self._spent: set[int] = set()
        self._closed = False
        self._last_id = 0
        self.total_bytes = 0
        _living.add(self)
        _follow_forks()

    def opened(self, segment_id: int, size: int, fd: int | None) -> None:
        """Map a segment that the peer announced; without ``fd`` its descriptor was lost here.

        Raises:
            ProtocolError: it must not be used, or the peer has too many.
        """
        if segment_id <= self._last_id or not 0 < size <= MAX_SEGMENT_BYTES:
            raise ProtocolError(f"segment {segment_id} of {size} bytes is out of order or bounds")
        if len(self._mapped) >= MAX_SEGMENTS or self.total_bytes + size > MAX_SEGMENT_BYTES:
            raise ProtocolError(
                f"the peer has more than {MAX_SEGMENTS} segments or {MAX_SEGMENT_BYTES} bytes"
            )
        try:
            if fd is None:
                raise OSError("its descriptor could not be received (too many open files?)")
            mapped = _Mapped(map_memory(fd, size), size)
        except OSError as error:
            mapped = _Mapped(None, size, str(error))
        self.total_bytes += size
        self._mapped[segment_id] = mapped
        # Last: another thread may be waiting for just this.
        self._last_id = segment_id

    def discarded(self, ids: list[int]) -> None:
        """The peer dropped segments.

        Raises:
            ProtocolError: one is not known, or is still in use here.
        """
        for segment_id in ids:
            if segment_id in self._viewed or segment_id not in self._mapped:
                raise ProtocolError(f"the peer dropped segment {segment_id}, which is in use")
            self._forget(segment_id)

    def lease(self, segment_id: int) -> mmap.mmap:
        """The memory of a segment that a message uses; ``watch`` or ``end_lease`` follows.

        Raises:
            ProtocolError: it is not announced, or an earlier message still uses it.
            DecodeError: it could not be mapped here.
        """
        if segment_id > self._last_id:
            self._fetch(lambda: segment_id <= self._last_id)
        mapped = self._mapped.get(segment_id)
        if mapped is None:
            raise ProtocolError(f"the peer uses segment {segment_id}, which it never announced")
        if segment_id in self._viewed:
            raise ProtocolError(f"the peer used segment {segment_id} again before its release")
        self._viewed[segment_id] = None
        if mapped.memory is None:
            self._spent.add(segment_id)
            self.end_lease(segment_id)
            raise DecodeError(f"shared memory of the peer can't be mapped: {mapped.failure}")
        return mapped.memory

    def watch(self, segment_id: int, root: Any) -> None:
        """Release the segment when ``root``, on which all views are based, has ended."""
        self._viewed[segment_id] = weakref.ref(root, lambda _: self.end_lease(segment_id))

    def end_lease(self, segment_id: int) -> None:
        """No view of the segment is left. Any thread, any moment."""
        if not self._closed:
            self._over.append(segment_id)
            self._wake()

    def take_released(self) -> tuple[list[int], list[int]]:
        """Segments to release, and those that must not be used again."""
        reusable: list[int] = []
        spent: list[int] = []
        while self._over:
            try:
                segment_id = self._over.popleft()
            except IndexError:
                break  # another thread was faster
            self._viewed.pop(segment_id, None)
            if segment_id in self._spent:
                self._forget(segment_id)
                spent.append(segment_id)
            else:
                reusable.append(segment_id)
        return reusable, spent

    def _forget(self, segment_id: int) -> None:
        mapped = self._mapped.pop(segment_id)
        self._spent.discard(segment_id)
        self.total_bytes -= mapped.size

    def close(self) -> None:
        """The connection has ended: unmap what has no views; report nothing any more."""
        self._closed = True
        self._mapped.clear()
        self._viewed.clear()
        self._over.clear()
        self.total_bytes = 0

    def forked(self) -> None:
        """A child of this process may view what is viewed here, and will not report it."""
        self._spent.update(tuple(self._viewed))


_living: weakref.WeakSet[IncomingSegments] = weakref.WeakSet()


@cache
def _follow_forks() -> None:
    os.register_at_fork(after_in_parent=_after_fork_here, after_in_child=_after_fork_in_child)


def _after_fork_here() -> None:
    for segments in tuple(_living):
        segments.forked()


def _after_fork_in_child() -> None:
    # The child's copies of the views end without meaning: the connection is not its own.
    for segments in tuple(_living):
        segments.close()
