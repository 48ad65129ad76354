"""A TCP proxy that breaks a connection at the next request, with or without passing that on."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from types import TracebackType
from typing import Self


class Cut(Enum):
    """What happens to the next request."""

    REQUEST_LOST = "request lost"
    """The server never sees it."""
    ANSWER_LOST = "answer lost"
    """The server has answered, and the client never sees that."""


class CuttingProxy:
    """Passes everything on, until `arm` is called. Use it in `async with`.

    Attributes:
        port: where it listens, on 127.0.0.1.
        cuts: how many connections it has broken.
        refuses: whether new connections are broken at once.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._armed: Cut | None = None
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._refuse_afterwards = False
        self.port = 0
        self.cuts = 0
        self.refuses = False

    def arm(self, cut: Cut, *, and_refuse: bool = False) -> None:
        """Break the connection of the next request. May be called from any thread."""
        self._refuse_afterwards = and_refuse
        self._armed = cut

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            if not self.refuses:
                await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        with contextlib.closing(there_writer):
            answers = asyncio.create_task(_copy(there_reader, writer))
            try:
                while data := await reader.read(1 << 16):
                    cut, self._armed = self._armed, None
                    if cut is None:
                        there_writer.write(data)
                        continue
                    answers.cancel()
                    await asyncio.wait([answers])
                    if cut is Cut.ANSWER_LOST:
                        there_writer.write(data)
                        await there_reader.read(1 << 16)
                    self.refuses = self._refuse_afterwards
                    self.cuts += 1
                    return
            finally:
                answers.cancel()
                await asyncio.wait([answers])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
