"""The calls that a worker makes to its host."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Self, TypeVar

from snakepit.errors import ProtocolError, SnakepitError
from snakepit.wire.credit import WINDOW, ReceiveWindow
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import (
    call_frame,
    credit_frame,
    items_size,
    read_call,
    read_value,
    value_frame,
)
from snakepit.worker.calls import read_reply
from snakepit.worker.context import CallContext
from snakepit.worker.port import Port

_ANSWERS = (
    FrameType.RESULT,
    FrameType.ERROR,
    FrameType.CANCELLED,
    FrameType.ITEM,
    FrameType.END,
)
# Reading an enumeration's member takes ten times as long as reading a name.
_RESULT: Final = FrameType.RESULT.value


class Outgoing:
    """A call to the host, for a ``with`` block; the thread that made it waits for it.

    When the block is left before the call's end, the host is told to stop it.
    """

    # Here, since most calls are over with one answer.
    finished = False
    value: Any = None
    _taken_items = _taken_bytes = 0

    def __init__(self, calls: OutgoingCalls, call_id: int) -> None:
        self.call_id = call_id
        self.inbox: deque[Frame] = deque()
        self._calls = calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.close(self)

    @cached_property
    def _window(self) -> ReceiveWindow:
        return ReceiveWindow()

    def arrived(self, frame: Frame) -> None:
        """Put a frame where the maker of the call finds it. Called by whichever thread reads."""
        self.inbox.append(frame)

    def take(self, frame: Frame) -> list[Any]:
        """Handle a reply; return the stream items it brought.

        Raises:
            SnakepitError: the call failed.
        """
        if frame.type == _RESULT:  # what most replies are
            self.finished = True
            self.value = read_value(frame)
            return []
        self.finished = frame.type != FrameType.ITEM
        reply = read_reply(frame)
        self.value = reply.value
        if not self.finished:
            items, size = len(reply.items), items_size(frame)
            self._window.arrived(items, size)
            self._taken_items += items
            self._taken_bytes += size
        return reply.items

    def consumed(self) -> None:
        """The items taken last are used up; let the host send more."""
        credit = self._window.consumed(self._taken_items, self._taken_bytes)
        self._taken_items = self._taken_bytes = 0
        if credit is not None and not self.finished:
            self._calls.send(credit_frame(self.call_id, credit))


class AsyncOutgoing(Outgoing):
    """A call to the host that a task waits for."""

    def __init__(self, calls: OutgoingCalls, call_id: int) -> None:
        super().__init__(calls, call_id)
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()

    def arrived(self, frame: Frame) -> None:
        self.inbox.append(frame)
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def next_frame(self) -> Frame:
        """Wait for the next reply."""
        while not self.inbox:
            self._arrived.clear()
            await self._arrived.wait()
        return self.inbox.popleft()

    async def next_items(self) -> list[Any]:
        """Wait for items of the stream; all that have come, or none at its end.

        Raises:
            SnakepitError: the stream failed after the items before.
        """
        items = self.take(await self.next_frame())
        while self.inbox and self.inbox[0].type == FrameType.ITEM:
            items += self.take(self.inbox.popleft())
        return items


_Kind = TypeVar("_Kind", bound=Outgoing)


class OutgoingCalls:
    """All calls to the host that have not ended."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.send = port.send
        self._ids = itertools.count(2, 2)
        self._open: dict[int, Outgoing] = {}
        # The host refuses ids that do not ascend, so no thread may send between another's taking
        # of an id and its sending.
        self._order = threading.Lock()

    def open(
        self,
        kind: type[_Kind],
        context: CallContext,
        name: str,
        args: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> _Kind:
        """Send a call."""
        request = (
            name,
            dict(args),
            context.remaining(),
            context.session_id,
            context.call_id,
            WINDOW if stream else None,
        )
        trace = context.trace_for_host()
        with self._order:
            call = kind(self, next(self._ids))
            frame = call_frame(call.call_id, request, self._port.segments, trace)
            self._open[call.call_id] = call
            self.send(frame)
        return call

    def close(self, call: Outgoing) -> None:
        """Nobody waits for a call any more."""
        del self._open[call.call_id]
        if not call.finished:
            self.send(value_frame(FrameType.CANCEL, call.call_id, "no longer wanted"))

    def deliver(self, frame: Frame) -> None:
        """Hand over a reply; one for a call that was left is dropped.

        Raises:
            ProtocolError: it is no reply.
        """
        call = self._open.get(frame.call_id)
        if call is not None:
            call.arrived(frame)
        elif frame.type not in _ANSWERS:
            raise ProtocolError(f"a host may not send a frame of type {frame.type}")

    def parent_of(self, frame: Frame) -> Outgoing | None:
        """The open call on whose behalf the host makes this nested one, if there is one."""
        try:
            parent = read_call(frame).parent
        except SnakepitError:
            return None  # its values are reported when it is run
        return None if parent is None else self._open.get(parent)
