"""Sending the items of the host's streams: those that come in one turn of the loop share frames."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from snakepit.link.connection import FrameConnection
from snakepit.wire.batching import ItemBatches
from snakepit.wire.credit import SendWindow
from snakepit.wire.frames import FLAG_SEGMENTS, FrameType, encode_frame
from snakepit.wire.messages import item_body
from snakepit.wire.placing import SharedBody


class ItemSender:
    """Sends the items of all streams to one worker. For one event loop."""

    def __init__(self, connection: FrameConnection) -> None:
        self._connection = connection
        self._batches = ItemBatches()

    def send(self, call_id: int, item: Any, window: SendWindow) -> None:
        """Send an item, whose stream's window is open, by the end of this turn of the loop.

        Raises:
            EncodeError, PayloadTooLarge: it can't travel.
        """
        body = item_body(item, self._connection.segments)
        if type(body) is SharedBody:
            self.flush()
            window.spend(1, len(body) + body.shared_bytes)
            self._connection.send(encode_frame(FrameType.ITEM, call_id, body, FLAG_SEGMENTS))
            return
        if self._batches.add(call_id, body, window, time.perf_counter()):
            self.flush()
        elif len(self._batches.gathered) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what was gathered, if anything."""
        if self._batches.gathered:
            self._connection.send(self._batches.take())
            self._batches.sent(time.perf_counter())
