"""Messages to a process that does not read must not block the host."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from processes import until

from snakepit.processes.channel import Channel, ChannelClosed, Message
from snakepit.processes.host_channel import HostChannel

MANY = 2000
PADDING = "x" * 500


def new_channel(received: list[Message], closed: list[bool]) -> tuple[HostChannel, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return HostChannel(ours, received.append, lambda: closed.append(True)), theirs


async def test_what_a_frozen_peer_has_no_room_for_arrives_later_in_order_with_its_descriptors() -> (
    None
):
    channel, theirs = new_channel([], [])
    read, write = os.pipe()
    for number in range(MANY):  # far more than a socket's buffer holds
        channel.send({"n": number, "padding": PADDING}, (write,) if number % 100 == 0 else ())
    os.close(write)
    peer = Channel(theirs)
    arrived: list[int] = []
    fds: list[int] = []

    def all_arrived() -> bool:
        for message, more in peer.receive():
            arrived.append(message["n"])
            assert len(more) == (message["n"] % 100 == 0)
            fds.extend(more)
        return len(arrived) == MANY

    await until(all_arrived, "all messages arrive")
    assert arrived == list(range(MANY))
    os.write(fds[-1], b"hello")
    assert os.read(read, 5) == b"hello"
    for fd in [*fds, read]:
        os.close(fd)
    peer.close()
    channel.close()


async def test_a_channel_that_is_closed_drops_what_waits_and_its_descriptors() -> None:
    channel, theirs = new_channel([], [])
    for _ in range(MANY):
        channel.send({"padding": PADDING}, (theirs.fileno(),))
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.send({})
    theirs.close()


async def test_messages_that_arrive_and_the_end_are_told() -> None:
    received: list[Message] = []
    closed: list[bool] = []
    channel, theirs = new_channel(received, closed)
    theirs.setblocking(True)
    peer = Channel(theirs)
    for number in range(3):
        peer.send({"n": number})
    await until(lambda: len(received) == 3, "all arrive")
    assert [message["n"] for message in received] == [0, 1, 2]
    peer.close()
    await until(lambda: bool(closed), "the end is told")
    channel.close()


async def test_a_peer_that_dies_while_messages_wait_is_told_once_it_is_gone() -> None:
    closed: list[bool] = []
    channel, theirs = new_channel([], closed)
    for _ in range(MANY):
        channel.send({"padding": PADDING})
    theirs.close()
    await until(lambda: bool(closed), "the end is told")
    channel.close()
    await asyncio.sleep(0)
