"""The thread that answers the host while Python code runs on the main thread."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from typing import Protocol

from snakepit.errors import ProtocolError
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import message_frame, read_ids, read_value, value_frame
from snakepit.worker.segments import ControlPort
from snakepit.worker.stacks import own_stacks, take_stacks_signals
from snakepit.worker.telemetry import EventForwarder


class Controlled(Protocol):
    """What the host can have done while a command runs."""

    @property
    def tasks_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of async commands, once there is one."""

    def cancel(self, call_id: int) -> None:
        """Stop a call."""

    def withdraw(self, call_id: int) -> bool:
        """See to it that a call never starts, without an answer; False if it has started."""


def start_control_thread(port: ControlPort, engine: Controlled, forwarder: EventForwarder) -> None:
    """Serve the host's control frames on ``port``, and send events, while the process lives."""
    threading.Thread(
        target=_serve, args=(port, engine, forwarder), name="snakepit-control", daemon=True
    ).start()


def _serve(port: ControlPort, engine: Controlled, forwarder: EventForwarder) -> None:
    # Other signals are for the main thread, whose code they may break off.
    take_stacks_signals()
    try:
        while True:
            port.wait_for_space(not forwarder.flush())
            for frame in port.read():
                _handle(frame, port, engine, forwarder)
    except BaseException:
        # Without this thread nothing can be cancelled: better no worker than a deaf one.
        traceback.print_exc()
        os._exit(1)


def _handle(frame: Frame, port: ControlPort, engine: Controlled, forwarder: EventForwarder) -> None:
    if frame.type == FrameType.CANCEL:
        engine.cancel(frame.call_id)
    elif frame.type == FrameType.RECALL:
        unstarted = [call_id for call_id in read_ids(frame) if engine.withdraw(call_id)]
        port.send(value_frame(FrameType.RECALLED, 0, unstarted))
    elif frame.type == FrameType.PING:
        port.send(value_frame(FrameType.PONG, 0, read_value(frame)))
    elif frame.type == FrameType.STACKS:
        _tell_stacks(read_value(frame), port, engine)
    elif frame.type == FrameType.LISTEN:
        forwarder.listened(frame)
    else:
        raise ProtocolError(f"no frame of type {frame.type} belongs on the control channel")


def _tell_stacks(token: object, port: ControlPort, engine: Controlled) -> None:
    try:
        answer = message_frame(FrameType.STACKS, 0, token, own_stacks(engine.tasks_loop))
    except (OSError, MemoryError):
        return  # the signal's handler needs neither: the host, which gets no answer, sends it
    port.send(answer)
