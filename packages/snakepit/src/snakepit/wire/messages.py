"""The bodies of frames: built from and read into Python values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from snakepit.errors import DecodeError, ProtocolError
from snakepit.wire.codec import ResolvedBody, decode_fields, encode, encode_fields
from snakepit.wire.credit import Credit, checked_credit
from snakepit.wire.frames import (
    FLAG_NESTED,
    FLAG_SEGMENTS,
    FLAG_STREAM,
    Frame,
    FrameType,
    encode_frame,
    pack_header,
)
from snakepit.wire.placing import SharedBody
from snakepit.wire.segments import OutgoingSegments


class CallRequest(NamedTuple):
    """The body of a ``CALL`` frame; see PROTOCOL.md."""

    command: str
    args: dict[str, Any]
    timeout: float | None
    session: str | None
    parent: int | None
    credit: Credit | None
    trace: dict[str, Any] | None = None


Fields = tuple[str, dict[str, Any], float | None, str | None, int | None, Credit | None]
"""What a :class:`CallRequest` begins with; a plain tuple is made in a fifth of the time."""


def call_frame(
    call_id: int,
    request: Fields,
    segments: OutgoingSegments | None = None,
    trace: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a ``CALL``; it streams when it carries credit.

    Large buffers among the arguments go into ``segments``. ``trace`` is sent if there is one.

    Raises:
        EncodeError, PayloadTooLarge: the arguments can't travel; the path starts at ``args``.
    """
    fields: list[Any] = [*request]
    flags = 0
    if fields[4] is not None:
        flags = FLAG_NESTED
    if fields[5] is not None:
        flags |= FLAG_STREAM
        fields[5] = [*fields[5]]
    if trace:
        fields.append(trace)
    body = encode_fields(fields, _CALL_FIELDS, segments)
    if type(body) is SharedBody:
        flags |= FLAG_SEGMENTS
    # Its size is within the limit of a frame, which is that of a value.
    return pack_header(len(body), _CALL, flags, 0, call_id) + body


def read_call(frame: Frame) -> CallRequest:
    """The request in a ``CALL`` frame.

    Raises:
        ProtocolError: it is no array of the right shape, or an element has a wrong type.
        DecodeError: a value in it can't be decoded; only this call fails.
    """
    body = decode_fields(frame.body, _CALL_FIELDS)
    if type(body) is list and (frame.flags, *map(type, body)) in _USUAL_CALLS:
        body.append(None)
        return _new_request(CallRequest, body)
    return _read_unusual_call(frame, body)


def _read_unusual_call(frame: Frame, body: Any) -> CallRequest:
    """A call with a trace, one that streams, or what is none."""
    request = _new_request(CallRequest, _with_trace(frame, body))
    command, args, timeout, session, parent, credit, _ = request
    # The very types: a bool is an int too.
    if (
        type(command) is not str
        or type(args) is not dict
        or type(timeout) not in _OPTIONAL_NUMBER
        or type(session) not in _OPTIONAL_TEXT
        or type(parent) not in _OPTIONAL_COUNT
        or type(credit) not in _OPTIONAL_LIST
    ):
        raise _wrong_type(frame.call_id, request)
    flags = frame.flags
    if (flags & FLAG_STREAM != 0) != (credit is not None) or (flags & FLAG_NESTED != 0) != (
        parent is not None
    ):
        raise ProtocolError(f"the flags of call {frame.call_id} contradict its body")
    if credit is None:
        return request
    if len(credit) < len(Credit._fields):
        raise ProtocolError(f"the credit of call {frame.call_id} is no pair of numbers")
    return request._replace(credit=checked_credit(*credit[: len(Credit._fields)]))


def _with_trace(frame: Frame, body: Any) -> list[Any]:
    """The elements of a ``CALL``: what comes after the sixth is optional, and a seventh that is no
    trace is none.

    Raises:
        ProtocolError: it has fewer.
    """
    if type(body) is not list or len(body) < _CALL_LENGTH:
        raise _too_short(frame, _CALL_LENGTH)
    trace = body[_CALL_LENGTH] if len(body) > _CALL_LENGTH else None
    return [*body[:_CALL_LENGTH], trace if type(trace) is dict else None]


# Its own constructor takes twice as long, for every call.
_new_request = tuple.__new__
_CALL_FIELDS: Final = CallRequest._fields
_CALL: Final = FrameType.CALL.value
_NONE = type(None)
_OPTIONAL_NUMBER = (_NONE, float, int)
_OPTIONAL_TEXT = (_NONE, str)
_OPTIONAL_COUNT = (_NONE, int)
_OPTIONAL_LIST = (_NONE, list)
_CALL_TYPES = (
    (str,), (dict,), _OPTIONAL_NUMBER, _OPTIONAL_TEXT, _OPTIONAL_COUNT, _OPTIONAL_LIST
)  # fmt: skip
_CALL_LENGTH = len(_CALL_TYPES)
# The flags and what the fields are of a call that does not stream and brings no trace.
_USUAL_CALLS = frozenset(
    (flags, str, dict, timeout, session, parent, _NONE)
    for flags, parent in ((0, _NONE), (FLAG_NESTED, int))
    for timeout in _OPTIONAL_NUMBER
    for session in _OPTIONAL_TEXT
)


def _wrong_type(call_id: int, request: CallRequest) -> ProtocolError:
    fields = zip(CallRequest._fields, request, _CALL_TYPES, strict=False)
    wrong = (
        f"the {name} is a {type(v).__name__}" for name, v, types in fields if type(v) not in types
    )
    return ProtocolError(f"in call {call_id}, {'; '.join(wrong)}")


_RESULT: Final = ("result",)


def value_frame(
    kind: int, call_id: int, value: Any, segments: OutgoingSegments | None = None
) -> bytes:
    """The bytes of a frame whose body has one element; its large buffers go into ``segments``.

    Raises:
        EncodeError, PayloadTooLarge: the value can't travel.
    """
    body = encode_fields([value], _RESULT, segments)
    flags = FLAG_SEGMENTS if type(body) is SharedBody else 0
    return pack_header(len(body), kind, flags, 0, call_id) + body  # as in call_frame


def item_body(item: Any, segments: OutgoingSegments | None) -> bytes:
    """The body of an ``ITEM`` with one item; raises as :func:`value_frame`."""
    return encode_fields([[item]], ("items",), segments=segments)


def joined_items(bodies: Sequence[bytes]) -> bytes:
    """The body of one ``ITEM`` from those of several, made by :func:`item_body`, that have nothing
    in segments.
    """
    count = len(bodies)
    head = bytes((0x91, 0x90 | count)) if count < 16 else b"\x91\xdc" + count.to_bytes(2, "big")
    return head + b"".join([body[2:] for body in bodies])


def items_size(frame: Frame) -> int:
    """How many bytes of a stream's credit an ``ITEM`` frame has taken."""
    body = frame.body
    return len(body) + (body.shared_bytes if type(body) is ResolvedBody else 0)


def message_frame(kind: int, call_id: int, *elements: Any) -> bytes:
    """The bytes of a frame whose body has these elements; raises as :func:`value_frame`."""
    return encode_frame(kind, call_id, encode(list(elements)))


_EMPTY_BODY = b"\x90"


def bare_frame(kind: int, call_id: int = 0) -> bytes:
    """The bytes of a frame with an empty body."""
    return encode_frame(kind, call_id, _EMPTY_BODY)


def read_body(frame: Frame, count: int, names: Sequence[str] = _RESULT) -> list[Any]:
    """The first ``count`` elements of a frame's body; what a later version appended is left out.

    ``names`` are those of the elements, for errors.

    Raises:
        ProtocolError: the body is no array or too short.
        DecodeError: a value can't be decoded.
    """
    body = decode_fields(frame.body, names)
    if type(body) is not list or len(body) < count:
        raise _too_short(frame, count)
    return body if len(body) == count else body[:count]


def _too_short(frame: Frame, count: int) -> ProtocolError:
    return ProtocolError(
        f"the body of a frame of type {frame.type} is no array of {count} or more elements"
    )


def read_value(frame: Frame) -> Any:
    """The one element of a frame's body; raises as :func:`read_body`."""
    body = decode_fields(frame.body, _RESULT)
    if type(body) is not list or not body:
        raise _too_short(frame, 1)
    return body[0]


def read_items(frame: Frame) -> list[Any]:
    """The items of an ``ITEM`` frame; raises as :func:`read_body`."""
    items = read_body(frame, 1, ("items",))[0]
    if not isinstance(items, list):
        raise ProtocolError("the body of an ITEM frame holds no array of items")
    return items


def credit_frame(call_id: int, credit: Credit) -> bytes:
    """The bytes of a ``CREDIT``."""
    return message_frame(FrameType.CREDIT, call_id, *credit)


def read_credit(frame: Frame) -> Credit:
    """What a ``CREDIT`` frame grants; raises as :func:`read_body`."""
    return checked_credit(*read_body(frame, len(Credit._fields)))


def read_ids(frame: Frame) -> list[int]:
    """The call ids in a ``RECALL`` or ``RECALLED`` frame; raises as :func:`read_body`."""
    ids = read_value(frame)
    if not isinstance(ids, list) or not all(type(call_id) is int for call_id in ids):
        raise ProtocolError(f"the body of a frame of type {frame.type} holds no array of call ids")
    return ids


def read_mapping(frame: Frame) -> Mapping[str, Any]:
    """The one element of a frame's body, which has to be a map; raises as :func:`read_body`."""
    value = read_value(frame)
    if not isinstance(value, dict):
        raise DecodeError(f"the body of a frame of type {frame.type} holds no map")
    return value
