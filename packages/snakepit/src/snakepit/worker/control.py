"""The thread that answers the host while Python code runs on the main thread."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable

from snakepit.wire.frames import FrameType
from snakepit.wire.messages import read_value, value_frame
from snakepit.worker.port import Port


def start_control_thread(sock: socket.socket, cancel: Callable[[int], None]) -> None:
    """Answer pings on ``sock``, pass cancellations to ``cancel``; while the process lives."""
    port = Port(sock)
    threading.Thread(
        target=_serve, args=(port, cancel), name="snakepit-control", daemon=True
    ).start()


def _serve(port: Port, cancel: Callable[[int], None]) -> None:
    # Signals are for the main thread, whose code they may break off.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        for frame in port.read():
            if frame.type == FrameType.CANCEL:
                cancel(frame.call_id)
            elif frame.type == FrameType.PING:
                port.send(value_frame(FrameType.PONG, 0, read_value(frame)))
