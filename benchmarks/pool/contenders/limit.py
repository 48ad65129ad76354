"""What the machine allows: an echo over a socket pair, with nothing on top."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from typing import Any

from benchmarks.pool.contenders.base import AsyncPool, BlockingPool, Contender, OpenPool, Setup

_MOST = 1 << 16


class Peer:
    """A process that sends back what it gets, and blocks meanwhile."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
            )

    def close(self) -> None:
        """The end of file ends it."""
        self.sock.close()
        self._process.wait()


class BlockingEcho(Contender):
    """Blocking calls on both sides: the least that a call to another process can take."""

    async def open(self, setup: Setup) -> OpenPool:
        return BlockingEchoPool(Peer())


class BlockingEchoPool(BlockingPool):
    """One peer. It can only echo."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def submit(self, command: str, argument: Any) -> Any:
        return self._peer.sock.send(argument)

    def result(self, handle: Any) -> Any:
        return self._peer.sock.recv(_MOST)

    async def one_by_one(
        self, command: str, argument: Any, *, seconds: float, at_least: int = 1
    ) -> list[float]:
        """As for all, without the two methods in between: they would make the limit larger."""
        took: list[float] = []
        clock, send, receive = time.perf_counter, self._peer.sock.send, self._peer.sock.recv
        end = clock() + seconds
        while clock() < end or len(took) < at_least:
            start = clock()
            send(argument)
            receive(_MOST)
            took.append(clock() - start)
        return took

    async def close(self) -> None:
        self._peer.close()


class AsyncioEcho(Contender):
    """An event loop in the host: a future a call, and a reader that resolves it."""

    async def open(self, setup: Setup) -> OpenPool:
        return AsyncioEchoPool(Peer())


class AsyncioEchoPool(AsyncPool):
    """One peer, one call at a time."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._answer: asyncio.Future[bytes] | None = None
        self._loop = asyncio.get_running_loop()
        peer.sock.setblocking(False)
        self._loop.add_reader(peer.sock, self._on_readable)

    def _on_readable(self) -> None:
        data = self._peer.sock.recv(_MOST)
        if self._answer is not None:
            self._answer.set_result(data)

    async def call(self, command: str, argument: Any) -> Any:
        self._answer = self._loop.create_future()
        self._peer.sock.send(argument)
        return await self._answer

    async def close(self) -> None:
        self._loop.remove_reader(self._peer.sock)
        self._peer.close()


def serve(descriptor: int) -> None:
    """Be the peer."""
    with socket.socket(fileno=descriptor) as sock:
        while data := sock.recv(_MOST):
            sock.send(data)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
