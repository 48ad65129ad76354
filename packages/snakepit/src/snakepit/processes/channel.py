"""Messages with descriptors between the host, its keeper and its templates.

JSON behind a 4-byte length on a private ``AF_UNIX`` stream; descriptors ride along with
``SCM_RIGHTS``. Standard library only: the keeper, which must start fast and stay small, uses
nothing else.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from struct import Struct
from typing import Any

Message = dict[str, Any]

_LENGTH = Struct("<I")
_READ_BYTES = 1 << 16
_MAX_FDS = 32
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
# Or else the next process that is started inherits what was meant for another.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class ChannelClosed(Exception):
    """The peer is gone."""


class Channel:
    """One end of a message channel. It owns ``sock``.

    Works in blocking and in event-driven use: ``receive`` makes one system call and returns the
    messages it completed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())
        self._sock.close()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message, for which a blocking socket waits; the receiver gets duplicates of
        ``fds``.

        Raises:
            ChannelClosed: the peer is gone.
        """
        data = memoryview(packed(message, len(fds)))
        while data:
            sent = self.send_some(data, fds)
            data, fds = data[sent:], ()

    def send_some(self, data: memoryview, fds: tuple[int, ...]) -> int:
        """Send the beginning of ``data``, and all of ``fds``; return how many bytes that were.

        Raises:
            BlockingIOError: there is no room, nothing was sent.
            ChannelClosed: the peer is gone.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._sock.sendmsg([data], rights)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Read once; return each completed message with the descriptors sent with it, which the
        caller now owns.

        Raises:
            ChannelClosed: the peer closed its end.
        """
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC
            )
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds.extend(_as_fds(payload))
        if flags & socket.MSG_CTRUNC:
            raise ChannelClosed("descriptors were lost: the process is at its limit of open files")
        if not data:
            raise ChannelClosed("end of file")
        self._bytes += data
        return self._completed()

    def _completed(self) -> list[tuple[Message, list[int]]]:
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                break
            message = json.loads(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            messages.append((message, [self._fds.popleft() for _ in range(message["nfds"])]))
        return messages


def packed(message: Message, fd_count: int) -> bytes:
    """The bytes of a message with which ``fd_count`` descriptors travel."""
    # Errors may carry details that JSON does not know; their text will do.
    body = json.dumps({**message, "nfds": fd_count}, default=str).encode()
    return _LENGTH.pack(len(body)) + body


def _as_fds(payload: bytes) -> array.array[int]:
    fds = array.array("i")
    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return fds
