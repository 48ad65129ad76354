"""Segments between two ends: histories, forgeries, and what becomes of views."""

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
from segment_ends import LARGE, MEGABYTE, Ends, no_fetch

from snakepit.errors import DecodeError, PayloadTooLarge, ProtocolError
from snakepit.wire.codec import encode_fields, resolve
from snakepit.wire.exchange import SegmentExchange, receive, resolved
from snakepit.wire.frames import FrameDecoder, FrameType, encode_frame
from snakepit.wire.memory import SharedMemory, create_memory
from snakepit.wire.messages import message_frame, value_frame
from snakepit.wire.segments import (
    IDLE_SECONDS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    SEGMENT_THRESHOLD,
    IncomingSegments,
    Leases,
)


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()
    gc.collect()


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
        size, descriptors = receive(self.sock, self.decoder.space)
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
