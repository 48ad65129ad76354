"""What is said over a control socket. Pure: it takes frames and makes them.

Frames as between host and worker: a request is a CALL with ``[name, argument]``, its answer a
RESULT with the value or an ERROR with the error.
"""

from __future__ import annotations

from typing import Any, Final

from snakepit.errors import ProtocolError, error_from_wire, error_to_wire
from snakepit.wire.codec import decode, encode
from snakepit.wire.frames import Frame, FrameType, encode_frame

#: The state of the pool; no argument.
SNAPSHOT: Final = "snapshot"
#: The stacks of a worker; its id.
STACKS: Final = "stacks"
MAX_REQUEST_BYTES: Final = 1 << 10
MAX_ANSWER_BYTES: Final = 1 << 24


def request_frame(number: int, name: str, argument: str | None) -> bytes:
    """A request; its answer has the same number."""
    return encode_frame(FrameType.CALL, number, encode([name, argument]))


def read_request(frame: Frame) -> tuple[str, str | None]:
    """The name of a request, and its argument.

    Raises:
        ProtocolError, DecodeError: it is none.
    """
    match decode(frame.body) if frame.type == FrameType.CALL else None:
        case [str(name), str() | None as argument]:
            return name, argument
    raise ProtocolError("a control socket takes requests of a name and an argument")


def result_frame(number: int, value: Any) -> bytes:
    """The answer to a request."""
    return encode_frame(FrameType.RESULT, number, encode(value, limit=MAX_ANSWER_BYTES))


def error_frame(number: int, error: Exception) -> bytes:
    """The answer to a request that failed."""
    return encode_frame(FrameType.ERROR, number, encode(error_to_wire(error)))


def read_answer(frame: Frame) -> Any:
    """The value that a request was answered with.

    Raises:
        SnakepitError: what it was answered with, or it is no answer.
    """
    if frame.type == FrameType.RESULT:
        return decode(frame.body)
    if frame.type == FrameType.ERROR:
        raise error_from_wire(decode(frame.body))
    raise ProtocolError(f"a control socket answered with a frame of type {frame.type}")
