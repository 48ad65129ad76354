"""Segments: sealed, counted, capped, and never written while a view is alive."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from segment_ends import LARGE, MEGABYTE, Ends

from snakepit.errors import ProtocolError
from snakepit.wire.codec import encode_fields
from snakepit.wire.memory import SharedMemory, create_memory, map_memory
from snakepit.wire.segments import (
    IDLE_SECONDS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    IncomingSegments,
    OutgoingSegments,
    rounded,
)


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
