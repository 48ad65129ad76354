"""The pool's end of its control socket, on the pool's own event loop.

What a client does can't hurt the pool: few of them are served, one request at a time and some a
second, requests are small, and who is slow is dropped.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from snakepit._logs import steady_logger
from snakepit.calls.call_infos import describe_calls
from snakepit.control.folder import bind_socket, remove_socket, sweep_sockets
from snakepit.control.messages import (
    MAX_REQUEST_BYTES,
    SNAPSHOT,
    STACKS,
    error_frame,
    read_request,
    result_frame,
)
from snakepit.control.snapshot import describe_pool
from snakepit.errors import ProtocolError, SnakepitError, UnknownCommand, as_typed
from snakepit.wire.frames import Frame, FrameDecoder

if TYPE_CHECKING:
    from snakepit.calls.stats import PoolStats
    from snakepit.pool.dispatcher import Dispatcher
    from snakepit.supervision.health import Health
    from snakepit.supervision.workforce import Workforce

logger = steady_logger("snakepit.control")
#: In the environment of a host: whether its pools have control sockets.
CONTROL_VARIABLE: Final = "SNAKEPIT_CONTROL"
_MOST_CLIENTS: Final = 4
# Seconds a client may take for a request, and for reading its answer.
_PATIENCE: Final = 10.0
# Seconds from an answer to the next request that is looked at.
_PAUSE: Final = 0.05
_READ_BYTES: Final = 1 << 12
_CREDENTIALS: Final = struct.Struct("3i")
Answer = Callable[[str | None], Awaitable[Any]]


class Inspected(Protocol):
    """The pool that a control socket shows."""

    name: str

    def stats(self) -> PoolStats:
        """Its gauges and counters."""

    def health(self) -> Health:
        """Whether it takes calls."""

    async def dump_stacks(self, worker_id: str) -> str:
        """What a worker is doing."""


class ControlServer:
    """Answers requests over a socket of its own. Belongs to the event loop it is started in."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._clients: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: there is no folder for the socket.
        """
        sweep_sockets()
        self._listening = bind_socket()
        self._task = asyncio.get_running_loop().create_task(self._run(self._listening))

    async def close(self) -> None:
        """Remove the socket and drop all clients."""
        if self._task is None or self._listening is None:
            return
        self._is_closing = True
        remove_socket(self._listening)
        tasks = [self._task, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listening.close()

    async def _run(self, listening: socket.socket) -> None:
        server = await asyncio.start_unix_server(self._accept, sock=listening)
        try:
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closing or len(self._clients) >= _MOST_CLIENTS or not _is_own_user(writer):
            writer.transport.abort()
            return
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)
        # Not at its own end: a task that is cancelled before its first step runs no code.
        client.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder(MAX_REQUEST_BYTES)
        try:
            while (frame := await _next_request(reader, decoder)) is not None:
                writer.write(await self._answer(frame))
                async with asyncio.timeout(_PATIENCE):
                    await writer.drain()
                await asyncio.sleep(_PAUSE)
        except (OSError, SnakepitError) as error:
            logger.debug("a client of the control socket is dropped: %s", error)

    async def _answer(self, frame: Frame) -> bytes:
        name, argument = read_request(frame)
        try:
            answer = self._answers.get(name)
            if answer is None:
                raise UnknownCommand.of(name, self._answers)
            return result_frame(frame.call_id, await answer(argument))
        except Exception as error:  # whatever it is, it is the client's answer, and not our end
            return error_frame(frame.call_id, as_typed(error))


def start_control(
    pool: Inspected, workforce: Workforce, dispatcher: Dispatcher
) -> ControlServer | None:
    """Open the control socket of a pool that has just started; None if nobody asked for one.

    A pool that can't have it goes on without, and a warning says why.
    """
    if os.environ.get(CONTROL_VARIABLE, "") in ("", "0"):
        return None
    started_at = time.monotonic()

    async def snapshot(_: str | None) -> dict[str, Any]:
        now = time.monotonic()
        return describe_pool(
            name=pool.name,
            stats=pool.stats(),
            health=pool.health(),
            members=workforce.members,
            running=describe_calls(dispatcher.running, now),
            started_at=started_at,
            now=now,
        )

    async def stacks(worker_id: str | None) -> str:
        return await pool.dump_stacks(worker_id or "")

    server = ControlServer({SNAPSHOT: snapshot, STACKS: stacks})
    try:
        server.start()
    except OSError as error:
        logger.warning("pool %s has no control socket: %s", pool.name, error)
        return None
    return server


async def _next_request(reader: asyncio.StreamReader, decoder: FrameDecoder) -> Frame | None:
    """The next request of a client, or None at its end.

    Raises:
        TimeoutError: it does not come.
        ProtocolError, PayloadTooLarge: this is no client of ours.
    """
    async with asyncio.timeout(_PATIENCE):
        while data := await reader.read(_READ_BYTES):
            frames = decoder.feed(data)
            if len(frames) > 1:
                raise ProtocolError("it sent a request before the last one was answered")
            if frames:
                return frames[0]
    return None


def _is_own_user(writer: asyncio.StreamWriter) -> bool:
    """Whether a client is of this process's user. The folder lets in nobody else, so where the
    kernel does not tell, that has to do.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    client = writer.get_extra_info("socket")
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return bool(user == os.geteuid())
