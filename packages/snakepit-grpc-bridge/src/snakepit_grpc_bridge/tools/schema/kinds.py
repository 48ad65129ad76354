"""The kinds of values that JSON has no type for, and what each takes. Pure; keeps no state.

A kind takes its own Python type, and the form that its value has in JSON, because calls come from
programs and from language models alike. It takes nothing else: no number for a time, no float for
a Decimal. Both sides of a call read with these functions, so they agree on what they take.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import UUID

from snakepit_grpc_bridge.tools.schema.arrays import Unfit, read_array

__all__ = ["KINDS", "Kind"]

_CLOCK = r"\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d{2}:\d{2})?"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(_CLOCK, re.ASCII)
_DATETIME = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}[Tt ]{_CLOCK}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
#: ISO 8601 without years and months, which are no fixed spans of time.
_DURATION = re.compile(
    r"(?P<sign>[+-])?P(?=.)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
    r"(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6}))?S)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: what messages call it, its form in JSON Schema, and how a value of it is read.

    ``read`` returns the value as its own Python type, or raises :class:`Unfit`.
    """

    expects: str
    form: Mapping[str, Any]
    read: Callable[[Any], Any]


def _binary(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        # Both alphabets of RFC 4648.
        return base64.b64decode(_text(value).translate({45: 43, 95: 47}), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unfit from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit
    return value


def _from_text(kind: type, pattern: re.Pattern[str], parse: Callable[[str], Any]) -> Any:
    """Return a reader of values of exactly that type, and of text of that pattern."""

    def read(value: Any) -> Any:
        # A datetime is a date for Python; taken for one, it would lose its time.
        if isinstance(value, kind) and not (kind is date and isinstance(value, datetime)):
            return value
        text = _text(value)
        if not pattern.fullmatch(text):
            raise Unfit
        try:
            return parse(text)
        except (ValueError, OverflowError) as error:  # such as the 31st of February
            raise Unfit from error

    return read


def _parse_duration(text: str) -> timedelta:
    parts = _DURATION.fullmatch(text)
    if parts is None:  # not reached: the reader has matched the text
        raise ValueError
    units = ("weeks", "days", "hours", "minutes", "seconds")
    span = timedelta(
        **{unit: int(parts[unit] or 0) for unit in units},
        microseconds=int((parts["fraction"] or "0").ljust(6, "0")),
    )
    return -span if parts["sign"] == "-" else span


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, int) and not isinstance(value, bool):
        number = Decimal(value)
    elif _DECIMAL.fullmatch(_text(value)):
        try:
            number = Decimal(value)
        except InvalidOperation as error:  # an exponent out of reach
            raise Unfit from error
    else:
        raise Unfit
    if not number.is_finite():
        raise Unfit
    return number


def _path(value: Any) -> PurePath:
    return value if isinstance(value, PurePath) else Path(_text(value))


def _complex(value: Any) -> complex:
    if isinstance(value, (complex, float, int)) and not isinstance(value, bool):
        try:
            return complex(value)
        except OverflowError as error:
            raise Unfit from error
    try:
        return complex(_text(value))
    except ValueError as error:
        raise Unfit from error


def _string(form: str) -> dict[str, Any]:
    return {"type": "string", "format": form}


_TIMES = "text as in ISO 8601"

#: All kinds by name; the name is the keyword ``x-kind`` of a tool's description.
KINDS: Final[Mapping[str, Kind]] = {
    "binary": Kind(
        "bytes (or base64 text)", {"type": "string", "contentEncoding": "base64"}, _binary
    ),
    "datetime": Kind(
        f"a date and time (or {_TIMES})",
        _string("date-time"),
        _from_text(datetime, _DATETIME, lambda text: datetime.fromisoformat(text.upper())),
    ),
    "date": Kind(
        f"a date (or {_TIMES})", _string("date"), _from_text(date, _DATE, date.fromisoformat)
    ),
    "time": Kind(
        f"a time of day (or {_TIMES})",
        _string("time"),
        _from_text(time, _TIME, lambda text: time.fromisoformat(text.upper())),
    ),
    "duration": Kind(
        f"a duration (or {_TIMES}, as in 'PT90S')",
        _string("duration"),
        _from_text(timedelta, _DURATION, _parse_duration),
    ),
    "decimal": Kind("a decimal number (or its text)", _string("decimal"), _decimal),
    "uuid": Kind("a UUID (or its text)", _string("uuid"), _from_text(UUID, _UUID, UUID)),
    "path": Kind("a path (or its text)", _string("path"), _path),
    "complex": Kind("a complex number (or its text)", _string("complex"), _complex),
    "ndarray": Kind(
        "a numpy array (or nested lists of numbers)", {"type": "array", "items": {}}, read_array
    ),
}
