"""The thread that answers the host while Python code runs on the main thread."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable

from snakepit.wire.frames import FrameType
from snakepit.wire.messages import read_value, value_frame
from snakepit.worker.segments import ControlPort


def start_control_thread(port: ControlPort, cancel: Callable[[int], None]) -> None:
    """Answer pings on ``port``, pass cancellations to ``cancel``; while the process lives."""
    threading.Thread(
        target=_serve, args=(port, cancel), name="snakepit-control", daemon=True
    ).start()


def _serve(port: ControlPort, cancel: Callable[[int], None]) -> None:
    # Signals are for the main thread, whose code they may break off.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        while True:
            for frame in port.read():
                if frame.type == FrameType.CANCEL:
                    cancel(frame.call_id)
                elif frame.type == FrameType.PING:
                    port.send(value_frame(FrameType.PONG, 0, read_value(frame)))
    except BaseException:
        # Without this thread nothing can be cancelled: better no worker than a deaf one.
        traceback.print_exc()
        os._exit(1)
