"""The events of commands, told in their worker; see telemetry.catalogue.

They stay in this process: the host tells the calls. How a command has ended is read from the answer
that the host gets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from snakepit.errors import error_from_wire
from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels
from snakepit.telemetry.trace import CORRELATION_ID
from snakepit.wire.frames import FRAME_TYPE_AT, HEADER_BYTES, Frame, FrameType
from snakepit.wire.messages import read_mapping
from snakepit.worker.context import CallContext


def started(context: CallContext) -> float:
    """A command begins; returns the time."""
    bus.tell("snakepit.command.start", {}, _labels(context))
    return time.monotonic()


def ended(context: CallContext, reply: bytes, began_at: float) -> None:
    """A command has come to its end, of which the host is told by ``reply``."""
    duration = {"duration_s": time.monotonic() - began_at}
    failure = _failure(reply)
    labels = {**_labels(context), "success": failure is None}
    if failure is None:
        bus.tell("snakepit.command.stop", duration, labels)
    else:
        bus.tell("snakepit.command.exception", duration, {**labels, **failure})


def observed(context: CallContext, run: Callable[..., bytes], *args: Any) -> bytes:
    """``run(*args)``, which runs a command and returns the answer, with its events."""
    began_at = started(context)
    reply = run(*args)
    ended(context, reply, began_at)
    return reply


def _failure(reply: bytes) -> dict[str, str] | None:
    kind = reply[FRAME_TYPE_AT]
    if kind == FrameType.ERROR:
        frame = Frame(kind, 0, 0, reply[HEADER_BYTES:])
        return error_labels(error_from_wire(read_mapping(frame)))
    if kind == FrameType.CANCELLED:
        return {"error": "cancelled", "error_type": "CancelledError"}
    return None


def _labels(context: CallContext) -> dict[str, Any]:
    return {
        CORRELATION_ID: context.correlation_id,
        "command": context.command,
        "session_id": context.session_id,
        "worker_id": context.worker_id,
        "trace_context": context.trace_context,
    }
