"""Asking a worker whether it still answers."""

from __future__ import annotations

import asyncio
import itertools

from snakepit.link.control import ControlConnection
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import read_value, value_frame


class Pings:
    """The pings of one worker that have no answer yet."""

    def __init__(self, control: ControlConnection) -> None:
        self._control = control
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def send(self) -> asyncio.Future[None]:
        """Ask for an answer; the future is done when it comes."""
        token = next(self._tokens)
        answered = self._waiting[token] = asyncio.get_running_loop().create_future()
        self._control.send(value_frame(FrameType.PING, 0, token))
        return answered

    def answered(self, pong: Frame) -> None:
        """An answer has come. Raises as :func:`read_value`."""
        token = read_value(pong)
        waiting = self._waiting.pop(token, None) if isinstance(token, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def cancel_all(self) -> None:
        """No answer will come any more."""
        for waiting in self._waiting.values():
            waiting.cancel()
