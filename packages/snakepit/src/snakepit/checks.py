"""Checks of plain options. Each names the option and what it may be."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Final, TypeGuard, TypeVar

from snakepit.errors import ConfigurationError

_T = TypeVar("_T")
LONGEST: Final = sys.float_info.max


def seconds(name: str, value: float | timedelta, *, zero: bool = False) -> float:
    """A duration in seconds, given in seconds or as a timedelta; 0 only with ``zero``.

    Raises:
        ConfigurationError: it is no number, not finite, zero or negative.
    """
    if zero and value == 0 and not isinstance(value, bool):
        return 0.0
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_number(number) or not 0 < number <= LONGEST:
        raise ConfigurationError(
            f"{name} is {value!r}; it has to be a positive number of seconds or a timedelta",
            details={"option": name},
        )
    return float(number)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number, as Python's users mean it: True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole_number(name: str, value: int, *, least: int = 1) -> int:
    """A count.

    Raises:
        ConfigurationError: it is no whole number, or less than ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(
            f"{name} is {value!r}; it has to be a whole number of at least {least}",
            details={"option": name},
        )
    return value


def instance_or_none(name: str, value: _T | None, kind: type[_T]) -> _T | None:
    """A group of options, or None.

    Raises:
        ConfigurationError: it is of another type.
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(
            f"{name} is a {type(value).__name__}; it has to be a {kind.__name__} or None",
            details={"option": name},
        )
    return value
