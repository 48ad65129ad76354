"""Sending the items of a command's stream."""

from __future__ import annotations

from typing import Any

from snakepit.wire.credit import SendWindow
from snakepit.wire.frames import FLAG_SEGMENTS, FrameType, encode_frame
from snakepit.wire.messages import item_body
from snakepit.wire.placing import SharedBody
from snakepit.worker.port import Port


def send_item(port: Port, call_id: int, item: Any, window: SendWindow) -> None:
    """Send an item, whose stream's window is open.

    Raises:
        EncodeError, PayloadTooLarge: it can't travel.
    """
    body = item_body(item, port.segments)
    if type(body) is not SharedBody:
        port.send_item(call_id, body, window)
        return
    window.spend(1, len(body) + body.shared_bytes)
    port.send(encode_frame(FrameType.ITEM, call_id, body, FLAG_SEGMENTS))
