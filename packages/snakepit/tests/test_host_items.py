"""The items of the host's streams on their way to a worker."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

import pytest

from snakepit.link.connection import FrameConnection
from snakepit.link.items import ItemSender
from snakepit.wire.batching import MOST_BYTES, RUN
from snakepit.wire.credit import Credit, SendWindow
from snakepit.wire.frames import Frame, FrameDecoder, FrameType
from snakepit.wire.messages import bare_frame, items_size, read_items


class Peer:
    """The other end: what comes there, frame by frame."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._decoder = FrameDecoder()
        self.connection = FrameConnection(ours, lambda _: None, lambda _: None)
        self.window = SendWindow(Credit(1000, 1 << 20))

    def frames(self) -> list[Frame]:
        return self._decoder.feed(self._theirs.recv(1 << 20))

    def close(self) -> None:
        self.connection.close()
        self._theirs.close()


def items_of(frames: list[Frame]) -> list[Any]:
    return list(itertools.chain.from_iterable(map(read_items, frames)))


async def test_quick_items_share_frames_and_none_waits_longer_than_a_turn() -> None:
    peer = Peer()
    sender = ItemSender(peer.connection)
    for number in range(100):
        sender.send(2, number, peer.window)
    await asyncio.sleep(0)
    frames = peer.frames()
    assert items_of(frames) == list(range(100))
    assert len(frames) < 100 - 2 * RUN
    # Both sides count the same bytes, or the stream would stop some day.
    assert peer.window.items == 900
    assert peer.window._sent_bytes == sum(map(items_size, frames))
    peer.close()


@pytest.mark.parametrize("size", [1, MOST_BYTES + 1])
async def test_items_of_two_streams_keep_their_order(size: int) -> None:
    peer = Peer()
    sender = ItemSender(peer.connection)
    for number in range(20):
        for call_id in (2, 4):
            sender.send(call_id, (number, b"x" * size), peer.window)
    sender.flush()
    peer.connection.send(bare_frame(FrameType.END, 2))
    frames = peer.frames()
    assert frames[-1].type == FrameType.END
    for call_id in (2, 4):
        got = items_of([frame for frame in frames[:-1] if frame.call_id == call_id])
        assert [number for number, _ in got] == list(range(20))
    peer.close()
