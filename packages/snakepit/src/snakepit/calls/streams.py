"""The items of a stream between a worker and the consumer. It knows no worker and no socket."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Any

from snakepit.errors import SnakepitError
from snakepit.wire.credit import Credit, ReceiveWindow


class StreamBuffer:
    """What has arrived of a stream and was not consumed yet.

    Args:
        idle_limit: seconds that the consumer will wait for an item, or None for ever. The time in
            which it does something else does not count.
    """

    def __init__(self, idle_limit: float | None = None) -> None:
        self.idle_limit = idle_limit
        #: How many items have arrived; the consumer gets them all, whatever comes after.
        self.delivered = 0
        self._frames: deque[tuple[list[Any], int]] = deque()
        self._window = ReceiveWindow()
        self._taken: tuple[int, int] | None = None
        self._finished = False
        self._error: SnakepitError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._waiting_since = math.inf

    def push(self, items: list[Any], size: int) -> None:
        """Append the items of a frame that takes ``size`` bytes of credit; after the end, which
        the consumer was told, they are dropped.

        Raises:
            ProtocolError: they are more than were granted.
        """
        if self._finished:
            return
        self._window.arrived(len(items), size)
        self.delivered += len(items)
        self._frames.append((items, size))
        self._wake()

    def finish(self, error: SnakepitError | None) -> None:
        """Note the end; the consumer sees it after the items before it."""
        if not self._finished:
            self._finished = True
            self._error = error
            self._wake()

    async def next_items(self) -> list[Any]:
        """The items of the next frame; none at the end of the stream.

        Raises:
            SnakepitError: the stream failed after the items before.
        """
        while not self._frames:
            if self._finished:
                if self._error is not None:
                    raise self._error
                return []
            self._waiting = asyncio.get_running_loop().create_future()
            if self.idle_limit is not None:
                self._waiting_since = time.monotonic()
            try:
                await self._waiting
            finally:
                self._waiting_since = math.inf
        items, size = self._frames.popleft()
        self._taken = len(items), size
        return items

    def consumed(self) -> Credit | None:
        """The consumer is done with the items it took last; what to grant its producer now."""
        taken, self._taken = self._taken, None
        if taken is None or self._finished:
            return None
        return self._window.consumed(*taken)

    def idle_until(self, now: float, running_since: float | None) -> float:
        """When the consumer will have waited too long, if no item comes until then.

        The time in which the stream's call waits for a worker does not count either.
        """
        if self.idle_limit is None:
            return math.inf
        if running_since is None or self._frames or self._waiting_since > now:
            return now + self.idle_limit
        return max(self._waiting_since, running_since) + self.idle_limit

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
