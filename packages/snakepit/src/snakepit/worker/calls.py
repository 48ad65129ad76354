"""What both engines share: which calls are cancelled, and the frames that answer them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar

from snakepit.errors import (
    HostCallCancelled,
    Outcome,
    ProtocolError,
    SnakepitError,
    StreamingNotSupported,
    UnknownCommand,
    error_from_wire,
    error_to_wire,
    raised_to_wire,
)
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import (
    CallRequest,
    bare_frame,
    read_items,
    read_mapping,
    read_value,
    value_frame,
)
from snakepit.wire.segments import OutgoingSegments
from snakepit.worker.batches import SUFFIX, BatchResults
from snakepit.worker.registry import Command

# Reading an enumeration's member takes ten times as long as reading a name.
_RESULT: Final = FrameType.RESULT.value


class Reply(NamedTuple):
    """What one frame brings to the maker of a call."""

    items: list[Any]
    value: Any


def read_reply(frame: Frame) -> Reply:
    """Interpret a frame that answers an outgoing call.

    Raises:
        SnakepitError: the call failed; this is its error.
    """
    match frame.type:
        case FrameType.RESULT:
            return Reply([], read_value(frame))
        case FrameType.END:
            return Reply([], None)
        case FrameType.ITEM:
            return Reply(read_items(frame), None)
        case FrameType.CANCELLED:
            raise HostCallCancelled("the host ended this call; stop the work it was made for")
        case _:
            raise error_from_wire(read_mapping(frame))


class Turn(Enum):
    """What becomes of a call whose turn to start has come."""

    START = "start"
    DROP = "drop"
    """It was withdrawn, and the host knows."""
    REFUSE = "refuse"
    """It was withdrawn, and the host is to be told now."""


_START: Final = Turn.START
_T = TypeVar("_T")


class IncomingCalls:
    """Which calls of the host have arrived, and which it has withdrawn. Thread-safe.

    ``CANCEL`` and ``RECALL`` come on another channel than ``CALL``, so they may be there first; ids
    ascend, so an id that is greater than the last one received is one that is still to come.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_received = 0
        self._waiting: set[int] = set()
        self._withdrawn: dict[int, Turn] = {}

    def received(self, call_id: int) -> None:
        """Note that a call has arrived and waits to be started. For one thread at a time."""
        if call_id <= self._last_received or not call_id & 1:
            raise ProtocolError(f"the host's call id {call_id} is not odd and ascending")
        # In this order, and read in the other one: so it is known at every moment without the lock.
        self._waiting.add(call_id)
        self._last_received = call_id

    def start(self, call_id: int, register: Callable[[_T], object], running: _T) -> Turn:
        """Note that a call is about to start, unless it was withdrawn before.

        ``register(running)`` makes the call known to whoever cancels; no cancellation falls
        between.
        """
        with self._lock:
            self._waiting.discard(call_id)
            if self._withdrawn:
                turn = self._withdrawn.pop(call_id, None)
                if turn is not None:
                    return turn
            register(running)
            return _START

    def refuse(self, call_id: int) -> Turn:
        """Note that a call can't be started; what becomes of it, as ``start`` says it."""
        return self.start(call_id, bool, None)

    def withdraw(self, call_id: int, turn: Turn = Turn.DROP) -> bool:
        """See to it that a call never starts; False if it has started, or was withdrawn before.

        With ``Turn.DROP``, whoever withdraws a call answers for it at once.
        """
        with self._lock:
            known = call_id > self._last_received or call_id in self._waiting
            if not known or call_id in self._withdrawn:
                return False
            self._withdrawn[call_id] = turn
            return True


def select_command(commands: Mapping[str, Command], request: CallRequest) -> Command:
    """The command a request names.

    Raises:
        UnknownCommand: there is none of that name.
        StreamingNotSupported: it streams and the request does not, or the reverse.
    """
    command = commands.get(request.command)
    if command is None:
        known = [name for name in commands if not name.endswith(SUFFIX)]
        raise UnknownCommand.of(request.command, known)
    if command.streams != (request.credit is not None):
        method = "execute_stream" if command.streams else "execute"
        raise StreamingNotSupported(
            f"the command {command.name!r} has to be called with {method}()",
            details={"command": command.name},
        )
    return command


def result_frame(call_id: int, value: Any, segments: OutgoingSegments | None) -> bytes:
    """``RESULT``, or ``ERROR`` when the value can't travel."""
    try:
        return value_frame(_RESULT, call_id, value, segments)
    except SnakepitError as error:
        if type(value) is BatchResults:
            return value_frame(_RESULT, call_id, value.without_unencodable(), segments)
        error.outcome = Outcome.DONE  # the command ran; only its answer can't travel
        return raised_frame(call_id, error)


def error_frame(call_id: int, error: BaseException) -> bytes:
    """``ERROR`` for a call that was refused before it started."""
    return value_frame(FrameType.ERROR, call_id, error_to_wire(error))


def raised_frame(call_id: int, error: BaseException) -> bytes:
    """``ERROR`` for what running code raised."""
    return value_frame(FrameType.ERROR, call_id, raised_to_wire(error))


def cancelled_frame(call_id: int, *, interrupted: bool) -> bytes:
    """``CANCELLED``."""
    return value_frame(FrameType.CANCELLED, call_id, interrupted)


def end_frame(call_id: int) -> bytes:
    """``END``."""
    return bare_frame(FrameType.END, call_id)
