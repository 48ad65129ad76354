"""Segments: sealed, counted, capped, and never written while a view is alive."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from snakepit.errors import DecodeError, PayloadTooLarge, ProtocolError
from snakepit.wire.codec import encode_fields, resolve
from snakepit.wire.exchange import SegmentExchange, receive, resolved
from snakepit.wire.frames import FrameDecoder, FrameType, encode_frame
from snakepit.wire.memory import SharedMemory, create_memory, map_memory
from snakepit.wire.messages import message_frame, value_frame
from snakepit.wire.placing import SharedBody
from snakepit.wire.segments import (
    IDLE_SECONDS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    SEGMENT_THRESHOLD,
    IncomingSegments,
    Leases,
    OutgoingSegments,
    rounded,
)

LARGE = SEGMENT_THRESHOLD // 8
MEGABYTE = 1 << 20


def no_fetch(_: Callable[[], bool]) -> None:
    """The announcement does not come."""


class Ends:
    """Both ends of one direction, joined without a socket."""

    def __init__(self, create: Callable[[int], SharedMemory] = create_memory) -> None:
        self.incoming = IncomingSegments(no_fetch, lambda: None)
        self.outgoing = OutgoingSegments(self._announce, self._discard, create=create)

    def _announce(self, segment_id: int, size: int, fd: int) -> bool:
        self.incoming.opened(segment_id, size, fd)
        return True

    def _discard(self, ids: list[int]) -> None:
        self.incoming.discarded(ids)

    def send(self, value: Any) -> Any:
        body = encode_fields([value], ["value"], segments=self.outgoing)
        assert type(body) is SharedBody
        return resolve(body, Leases(self.incoming)).content()[0]

    def release(self) -> None:
        self.outgoing.released(*self.incoming.take_released())

    def close(self) -> None:
        self.outgoing.close()
        self.incoming.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()
    gc.collect()


# --- memory --------------------------------------------------------------------------------------


def test_memory_can_neither_be_cut_short_nor_written_by_who_gets_it() -> None:
    memory, fd = create_memory(MEGABYTE)
    memory[:4] = b"mine"
    for change in (
        lambda: os.ftruncate(fd, 0),
        lambda: os.ftruncate(fd, 2 * MEGABYTE),
        lambda: os.pwrite(fd, b"his", 0),
        lambda: mmap.mmap(fd, MEGABYTE),
        lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(OSError, match="not permitted"):
            change()
    view = map_memory(fd, MEGABYTE)
    os.close(fd)
    assert view[:4] == b"mine"
    with pytest.raises(TypeError, match=r"read-only|readonly"):
        view[:4] = b"ours"
    memory[:4] = b"more"
    assert view[:4] == b"more"
    memory.close()
    view.close()


def unsealed(size: int) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def half_sealed(size: int) -> int:
    fd = unsealed(size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return fd


def sealed(size: int) -> int:
    fd = half_sealed(size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


FORGED: dict[str, Callable[[], tuple[int, ...]]] = {
    "no seals": lambda: (unsealed(MEGABYTE),),
    "may shrink": lambda: (half_sealed(MEGABYTE),),
    "smaller than announced": lambda: (sealed(MEGABYTE - 1),),
    "larger than announced": lambda: (sealed(MEGABYTE + 1),),
    "a file": lambda: (os.open(__file__, os.O_RDONLY),),
    "a device": lambda: (os.open("/dev/zero", os.O_RDONLY),),
    "a pipe": os.pipe,
    "a folder": lambda: (os.open("/", os.O_RDONLY),),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=list(FORGED))
def test_what_is_no_sealed_memory_is_not_mapped(forge: Callable[[], tuple[int, ...]]) -> None:
    fds = forge()
    with pytest.raises(ProtocolError):
        map_memory(fds[0], MEGABYTE)
    for fd in fds:
        os.close(fd)


# --- the owner's side ----------------------------------------------------------------------------


def test_a_segment_is_free_again_only_when_it_is_released(ends: Ends) -> None:
    first = ends.outgoing.take(LARGE)
    second = ends.outgoing.take(LARGE)
    assert first is not None
    assert second is not None
    assert first.segment_id != second.segment_id
    ends.outgoing.released([first.segment_id], [])
    assert ends.outgoing.take(LARGE) is first
    assert ends.outgoing.total_bytes == 2 * MEGABYTE


def test_spent_segments_are_gone_and_not_used_again(ends: Ends) -> None:
    first = ends.outgoing.take(LARGE)
    assert first is not None
    ends.outgoing.released([], [first.segment_id])
    assert ends.outgoing.total_bytes == 0
    second = ends.outgoing.take(LARGE)
    assert second is not None
    assert second.segment_id > first.segment_id


@pytest.mark.parametrize(("ids", "spent"), [([7], []), ([], [7]), ([1, 1], []), ([1], [1])])
def test_releasing_what_is_not_in_use_is_refused(
    ends: Ends, ids: list[int], spent: list[int]
) -> None:
    ends.outgoing.take(LARGE)
    with pytest.raises(ProtocolError, match="not in use"):
        ends.outgoing.released(ids, spent)


def test_a_small_value_does_not_hold_a_huge_segment(ends: Ends) -> None:
    huge = ends.outgoing.take(64 * MEGABYTE)
    assert huge is not None
    ends.outgoing.give_back([huge])
    small = ends.outgoing.take(MEGABYTE)
    assert small is not None
    assert small.size < 2 * MEGABYTE
    assert ends.outgoing.take(60 * MEGABYTE) is huge


def failing(_: int) -> SharedMemory:
    raise OSError("no memory")


def test_24_without_memory_there_is_no_segment_and_no_error() -> None:
    both = Ends(failing)
    assert both.outgoing.take(LARGE) is None
    body = encode_fields([np.arange(LARGE)], ["value"], segments=both.outgoing)
    assert type(body) is bytes
    both.close()


def test_24_memory_that_runs_out_in_a_message_sends_the_rest_in_the_frame() -> None:
    made: list[int] = []

    def once(size: int) -> SharedMemory:
        if made:
            raise OSError("no more memory")
        made.append(size)
        return create_memory(size)

    both = Ends(once)
    again = both.send([np.full(LARGE * 3, float(number)) for number in range(4)])
    assert [received[0] for received in again] == [0.0, 1.0, 2.0, 3.0]
    assert both.outgoing.count == 1
    del again
    both.close()


def tiny(size: int) -> SharedMemory:
    """Memory that looks large only to whoever counts: limits are tested without using them."""
    return create_memory(mmap.PAGESIZE)


class Counting:
    """An owner whose peer only counts."""

    def __init__(self) -> None:
        self.discarded: list[int] = []
        self.outgoing = OutgoingSegments(lambda *_: True, self.discarded.extend, create=tiny)


def test_the_number_of_segments_is_limited() -> None:
    counting = Counting()
    taken = [counting.outgoing.take(LARGE) for _ in range(MAX_SEGMENTS)]
    assert None not in taken
    assert counting.outgoing.take(LARGE) is None
    assert counting.discarded == []
    counting.outgoing.close()


def test_the_bytes_of_segments_are_limited_and_unused_ones_make_room() -> None:
    counting = Counting()
    outgoing = counting.outgoing
    half = MAX_SEGMENT_BYTES // 2
    first, second = outgoing.take(half), outgoing.take(half)
    assert first is not None
    assert second is not None
    assert outgoing.take(LARGE) is None
    outgoing.give_back([first])
    assert outgoing.take(half + MEGABYTE) is None
    assert counting.discarded == []
    assert outgoing.take(half // 16) is not None
    assert counting.discarded == [first.segment_id]
    assert outgoing.total_bytes == half + rounded(half // 16)
    assert outgoing.take(MAX_SEGMENT_BYTES + 1) is None
    outgoing.close()
    assert (outgoing.total_bytes, outgoing.count) == (0, 0)


def test_what_is_unused_for_long_is_given_back() -> None:
    counting = Counting()
    outgoing = counting.outgoing
    first, second = outgoing.take(LARGE), outgoing.take(LARGE)
    assert first is not None
    assert second is not None
    outgoing.give_back([first])
    assert outgoing.trim(first.idle_since + IDLE_SECONDS - 1)
    assert counting.discarded == []
    assert not outgoing.trim(first.idle_since + IDLE_SECONDS)
    assert counting.discarded == [first.segment_id]
    assert outgoing.total_bytes == second.size
    outgoing.close()


def test_a_segment_that_can_not_be_announced_now_is_not_used() -> None:
    outgoing = OutgoingSegments(lambda *_: False, lambda _: None)
    assert outgoing.take(LARGE) is None
    assert outgoing.total_bytes == 0


@pytest.mark.parametrize("size", [1, MEGABYTE, MEGABYTE + 1, 100_000_000, MAX_SEGMENT_BYTES])
def test_a_new_segment_is_a_little_larger_than_asked_for(size: int) -> None:
    assert max(size, MEGABYTE) <= rounded(size) <= max(size * 9 / 8, MEGABYTE)


# --- the receiver's side -------------------------------------------------------------------------


def opened(incoming: IncomingSegments, segment_id: int, size: int = MEGABYTE) -> None:
    memory, fd = create_memory(size)
    memory.close()
    try:
        incoming.opened(segment_id, size, fd)
    finally:
        os.close(fd)


def test_a_flood_of_segments_is_refused(ends: Ends) -> None:
    for segment_id in range(1, MAX_SEGMENTS + 1):
        opened(ends.incoming, segment_id, mmap.PAGESIZE)
    with pytest.raises(ProtocolError, match="more than 64 segments"):
        opened(ends.incoming, MAX_SEGMENTS + 1, mmap.PAGESIZE)


def test_more_bytes_than_allowed_are_refused_from_the_announcement_alone(ends: Ends) -> None:
    ends.incoming.opened(1, MAX_SEGMENT_BYTES - 1, None)
    with pytest.raises(ProtocolError):
        ends.incoming.opened(2, 2, None)
    for size in (0, -1, MAX_SEGMENT_BYTES + 1):
        with pytest.raises(ProtocolError, match="bounds"):
            ends.incoming.opened(3, size, None)


@pytest.mark.parametrize("segment_id", [2, 1, 0, -1])
def test_ids_of_segments_ascend(ends: Ends, segment_id: int) -> None:
    opened(ends.incoming, 2)
    with pytest.raises(ProtocolError, match="out of order"):
        opened(ends.incoming, segment_id)


def test_a_lost_descriptor_costs_only_the_values_in_its_segment(ends: Ends) -> None:
    segment = ends.outgoing.take(LARGE)
    assert segment is not None
    ends.outgoing.give_back([segment])
    lost = Ends()
    lost.incoming.opened(segment.segment_id, segment.size, None)
    body = encode_fields([np.zeros(LARGE)], ["value"], segments=ends.outgoing)
    with pytest.raises(DecodeError, match="could not be received"):
        resolve(body, Leases(lost.incoming)).content()
    assert lost.incoming.take_released() == ([], [segment.segment_id])
    assert lost.incoming.total_bytes == 0
    lost.close()


def test_a_segment_in_use_may_neither_be_used_again_nor_dropped(ends: Ends) -> None:
    body = encode_fields([np.zeros(LARGE)], ["value"], segments=ends.outgoing)
    first = resolve(body, Leases(ends.incoming))
    with pytest.raises(ProtocolError, match="before its release"):
        resolve(body, Leases(ends.incoming))
    with pytest.raises(ProtocolError, match="in use"):
        ends.incoming.discarded([1])
    del first
    # The view has ended, but the owner does not know yet.
    with pytest.raises(ProtocolError, match="before its release"):
        resolve(body, Leases(ends.incoming))


def test_a_frame_that_is_dropped_unread_releases_its_segments(ends: Ends) -> None:
    frame = value_frame(FrameType.RESULT, 1, [np.zeros(LARGE), b"x" * MEGABYTE], ends.outgoing)
    (received,) = FrameDecoder().feed(frame)
    exchange = SegmentExchange(lambda _: None, lambda *_: True, no_fetch, lambda: None)
    exchange.incoming = ends.incoming
    frames = resolved([received], exchange)
    assert ends.incoming.take_released() == ([1], [])  # that of the bytes, which are copied
    frames.clear()
    assert ends.incoming.take_released() == ([2], [])
    exchange.close()


def test_a_frame_that_refers_to_segments_is_refused_where_nobody_agreed_on_them(
    ends: Ends,
) -> None:
    frame = value_frame(FrameType.RESULT, 1, np.zeros(LARGE), ends.outgoing)
    with pytest.raises(ProtocolError, match="nobody has agreed"):
        resolved(FrameDecoder().feed(frame), None)


def test_views_of_views_keep_the_segment(ends: Ends) -> None:
    whole = ends.send(np.arange(LARGE, dtype="f8"))
    part = memoryview(whole.reshape(2, -1)[1].view("u1")[8:16])
    derived = np.frombuffer(whole.base[:8], "f8")
    del whole
    assert ends.incoming.take_released() == ([], [])
    del part
    assert ends.incoming.take_released() == ([], [])
    del derived
    assert ends.incoming.take_released() == ([1], [])


def test_views_may_end_in_any_thread(ends: Ends) -> None:
    arrays = [ends.send(np.zeros(LARGE)) for _ in range(20)]
    threads = [threading.Thread(target=arrays.pop) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends.incoming.take_released()[0]) == list(range(1, 21))


def test_all_bytes_of_a_message_count_wherever_they_are(ends: Ends) -> None:
    arrays = {"small": np.zeros(LARGE), "big": np.zeros(2 * LARGE)}
    size = 3 * SEGMENT_THRESHOLD
    with pytest.raises(PayloadTooLarge) as caught:
        encode_fields([arrays], ["args"], segments=ends.outgoing, limit=size)
    assert caught.value.size is not None
    assert size < caught.value.size < size + 200
    assert caught.value.path == "args.big"
    encode_fields([arrays], ["args"], segments=ends.outgoing, limit=caught.value.size)


# --- the control channel -------------------------------------------------------------------------


class Channel:
    """An exchange that reads one end of a socket; the test writes the other."""

    def __init__(self) -> None:
        self.peer, self.sock = socket.socketpair()
        self.decoder = FrameDecoder()
        self.exchange = SegmentExchange(lambda _: None, lambda *_: True, no_fetch, lambda: None)

    def read(self) -> None:
        size, descriptors = receive(self.sock, self.decoder.writable())
        self.exchange.arrived(descriptors)
        for frame in self.decoder.received(size):
            assert self.exchange.handle(frame)
        self.exchange.check_descriptors(self.decoder.pending_bytes)

    def close(self) -> None:
        self.exchange.close()
        self.peer.close()
        self.sock.close()


@pytest.fixture
def channel() -> Iterator[Channel]:
    both = Channel()
    yield both
    both.close()


def announcement(segment_id: Any = 1, size: Any = MEGABYTE) -> bytes:
    return message_frame(FrameType.SEGMENT, 0, segment_id, size)


def send(channel: Channel, data: bytes, *fds: int) -> None:
    carried = array("i", fds)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, carried)] if fds else []
    channel.peer.sendmsg([data], ancillary)
    for fd in fds:
        os.close(fd)


def test_a_segment_arrives_also_byte_by_byte(channel: Channel) -> None:
    data = announcement()
    send(channel, data[:1], sealed(MEGABYTE))
    channel.read()
    for byte in data[1:]:
        send(channel, bytes([byte]))
        channel.read()
    assert channel.exchange.total_bytes == MEGABYTE


def test_frames_before_and_after_do_not_disturb_who_owns_a_descriptor(channel: Channel) -> None:
    discard = message_frame(FrameType.DISCARD, 0, [])
    send(channel, discard + discard)
    for number in range(1, 4):
        send(channel, announcement(number, number * MEGABYTE), sealed(number * MEGABYTE))
        send(channel, discard)
    while channel.exchange.total_bytes < 6 * MEGABYTE:
        channel.read()


WRONG: dict[str, tuple[bytes, list[Callable[[int], int]]]] = {
    "no descriptor": (announcement(), []),
    "a descriptor too many": (announcement(), [sealed, sealed]),
    "a descriptor without a frame": (message_frame(FrameType.DISCARD, 0, []), [sealed]),
    "a forged one": (announcement(), [unsealed]),
    "text for an id": (announcement("1"), [sealed]),
    "true for a size": (announcement(1, True), [sealed]),
    "release of nothing": (message_frame(FrameType.RELEASE, 0, [1], []), []),
    "release of text": (message_frame(FrameType.RELEASE, 0, "1", []), []),
    "discard of nothing": (message_frame(FrameType.DISCARD, 0, [1]), []),
    "discard of a map": (message_frame(FrameType.DISCARD, 0, {}), []),
    "no array": (encode_frame(FrameType.SEGMENT, 0, b"\xc0"), [sealed]),
}


@pytest.mark.parametrize(("data", "make"), WRONG.values(), ids=list(WRONG))
def test_who_breaks_the_rules_is_told_and_leaves_no_descriptor(
    channel: Channel, data: bytes, make: list[Callable[[int], int]]
) -> None:
    send(channel, data, *(forge(MEGABYTE) for forge in make))
    with pytest.raises(ProtocolError):
        channel.read()


# --- any history ---------------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Whatever is sent, kept, dropped and refused: what a view shows never changes."""

    views = Bundle("views")

    @initialize()
    def begin(self) -> None:
        self.short_of_memory = False
        self.ends = Ends(self.create)
        self.alive: list[tuple[Any, float]] = []
        self.number = 0.0

    def create(self, size: int) -> SharedMemory:
        if self.short_of_memory:
            raise OSError("no memory")
        return create_memory(size)

    @rule(target=views, count=st.integers(1, 4), scale=st.integers(1, 6))
    def send(self, count: int, scale: int) -> list[tuple[Any, float]]:
        self.number += 1
        arrays = [np.full(LARGE * scale, self.number + part / 8) for part in range(count)]
        body = encode_fields([arrays], ["value"], segments=self.ends.outgoing)
        received = resolve(body, Leases(self.ends.incoming)).content()[0]
        views = [(whole[::97], whole[0].item()) for whole in received]
        self.alive += views
        return views

    @rule(views=consumes(views))
    def drop(self, views: list[tuple[Any, float]]) -> None:
        kept = {id(view) for view, _ in views}
        self.alive = [pair for pair in self.alive if id(pair[0]) not in kept]
        views.clear()

    @rule()
    def release(self) -> None:
        self.ends.release()

    @rule()
    def fork(self) -> None:
        self.ends.incoming.forked()

    @rule(short=st.booleans())
    def memory(self, short: bool) -> None:
        self.short_of_memory = short

    @rule(later=st.sampled_from([0.0, IDLE_SECONDS + 1]))
    def trim(self, later: float) -> None:
        self.ends.outgoing.trim(time.monotonic() + later)

    @invariant()
    def views_show_what_was_sent(self) -> None:
        for view, number in getattr(self, "alive", ()):
            assert (view == number).all()

    @invariant()
    def both_sides_count_the_same(self) -> None:
        if hasattr(self, "ends"):
            over = self.ends.incoming.total_bytes
            assert over <= self.ends.outgoing.total_bytes <= MAX_SEGMENT_BYTES

    def teardown(self) -> None:
        self.alive.clear()
        self.ends.close()
        gc.collect()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
