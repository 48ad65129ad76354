"""The host's end of a channel: sending never blocks its event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from snakepit import forks
from snakepit.processes.channel import Channel, ChannelClosed, Message, packed


class HostChannel:
    """Messages to and from one process below the host. Owns ``sock``; belongs to one event loop.

    A peer that is frozen reads nothing, so what it has no room for waits here, with duplicates of
    its descriptors.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        forks.close_in_child(sock)
        self._channel = Channel(sock)
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._closed = False
        self._loop.add_reader(sock, self._read)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message, or keep it until there is room for it.

        Raises:
            ChannelClosed: the peer is gone.
        """
        if self._closed:
            raise ChannelClosed("the channel is closed")
        data = memoryview(packed(message, len(fds)))
        if not self._waiting:
            data, fds = self._send_now(data, fds)
        if data:
            if not self._waiting:
                self._loop.add_writer(self._channel, self._flush)
            self._waiting.append((data, tuple(os.dup(fd) for fd in fds)))

    def close(self) -> None:
        """Close it, and drop what could not be sent."""
        if self._closed:
            return
        self._closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
        for _, fds in self._waiting:
            _close_all(fds)
        self._waiting.clear()
        self._channel.close()

    def _send_now(
        self, data: memoryview, fds: tuple[int, ...]
    ) -> tuple[memoryview, tuple[int, ...]]:
        """Send what there is room for; return what is left."""
        while data:
            try:
                sent = self._channel.send_some(data, fds)
            except BlockingIOError:
                break
            data, fds = data[sent:], ()
        return data, fds

    def _flush(self) -> None:
        while self._waiting:
            data, fds = self._waiting[0]
            try:
                left, fds_left = self._send_now(data, fds)
            except ChannelClosed:
                return  # end-of-file tells the owner
            if not fds_left:
                _close_all(fds)
            if left:
                self._waiting[0] = left, fds_left
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._channel)

    def _read(self) -> None:
        try:
            for message, _ in self._channel.receive():
                self._on_message(message)
        except ChannelClosed:
            self._on_closed()


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
