"""Sending the items of a command's stream."""

from __future__ import annotations

from typing import Any

from snakepit.wire.credit import SendWindow
from snakepit.wire.messages import items_frame
from snakepit.worker.port import Port


def send_item(port: Port, call_id: int, item: Any, window: SendWindow) -> None:
    """Send an item, whose stream's window is open.

    Raises:
        EncodeError, PayloadTooLarge: it can't travel.
    """
    frame, size = items_frame(call_id, [item], port.segments)
    window.spend(1, size)
    port.send(frame)
