"""The bodies of frames: built from and read into Python values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from snakepit.errors import DecodeError, ProtocolError
from snakepit.wire.codec import decode, encode, encode_fields
from snakepit.wire.frames import FLAG_NESTED, FLAG_STREAM, Frame, FrameType, encode_frame


class CallRequest(NamedTuple):
    """The body of a ``CALL`` frame; see PROTOCOL.md."""

    command: str
    args: dict[str, Any]
    timeout: float | None
    session: str | None
    parent: int | None
    credit: int | None


def call_frame(call_id: int, request: CallRequest) -> bytes:
    """The bytes of a ``CALL``; it streams when it carries credit.

    Raises:
        EncodeError, PayloadTooLarge: the arguments can't travel; the path starts at ``args``.
    """
    body = encode_fields(request, CallRequest._fields)
    flags = (FLAG_STREAM if request.credit else 0) | (FLAG_NESTED if request.parent else 0)
    return encode_frame(FrameType.CALL, call_id, body, flags)


def read_call(frame: Frame) -> CallRequest:
    """The request in a ``CALL`` frame.

    Raises:
        ProtocolError: it is no array of the right shape.
        DecodeError: a value in it can't be decoded; only this call fails.
    """
    command, args, timeout, session, parent, credit = read_body(frame, 6)
    well_formed = isinstance(command, str) and isinstance(args, dict)
    streams, nested = bool(frame.flags & FLAG_STREAM), bool(frame.flags & FLAG_NESTED)
    if not well_formed or streams != bool(credit) or nested != bool(parent):
        raise ProtocolError(f"call {frame.call_id} is malformed")
    return CallRequest(command, args, timeout, session, parent, credit)


def value_frame(kind: FrameType, call_id: int, value: Any) -> bytes:
    """The bytes of a frame whose body has one element.

    Raises:
        EncodeError, PayloadTooLarge: the value can't travel.
    """
    return encode_frame(kind, call_id, encode_fields((value,), ("result",)))


def message_frame(kind: FrameType, call_id: int, *elements: Any) -> bytes:
    """The bytes of a frame whose body has these elements; raises as :func:`value_frame`."""
    return encode_frame(kind, call_id, encode(list(elements)))


_EMPTY_BODY = b"\x90"


def bare_frame(kind: FrameType, call_id: int = 0) -> bytes:
    """The bytes of a frame with an empty body."""
    return encode_frame(kind, call_id, _EMPTY_BODY)


def read_body(frame: Frame, count: int) -> list[Any]:
    """The first ``count`` elements of a frame's body; what a later version appended is left out.

    Raises:
        ProtocolError: the body is no array or too short.
        DecodeError: a value can't be decoded.
    """
    body = decode(frame.body)
    if not isinstance(body, list) or len(body) < count:
        raise ProtocolError(
            f"the body of a frame of type {frame.type} is no array of {count} or more elements"
        )
    return body[:count]


def read_value(frame: Frame) -> Any:
    """The one element of a frame's body; raises as :func:`read_body`."""
    return read_body(frame, 1)[0]


def read_mapping(frame: Frame) -> Mapping[str, Any]:
    """The one element of a frame's body, which has to be a map; raises as :func:`read_body`."""
    value = read_value(frame)
    if not isinstance(value, dict):
        raise DecodeError(f"the body of a frame of type {frame.type} holds no map")
    return value
