"""Checks of the options that users pass. Each names the option and what it may be."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeVar

from snakepit.errors import ConfigurationError

_T = TypeVar("_T")


class UseDefault(Enum):
    """The type of :data:`USE_DEFAULT`; None already means "no limit"."""

    USE_DEFAULT = "use_default"

    def __repr__(self) -> str:
        return self.name


USE_DEFAULT: Final = UseDefault.USE_DEFAULT
Timeout = float | timedelta | None | Literal[UseDefault.USE_DEFAULT]


def seconds(name: str, value: float | timedelta, *, zero: bool = False) -> float:
    """A duration in seconds, given in seconds or as a timedelta; 0 only with ``zero``.

    Raises:
        ConfigurationError: it is no number, not finite, zero or negative.
    """
    if type(value) is float and 0.0 < value <= sys.float_info.max:
        return value  # what nearly every call brings
    if zero and value == 0 and not isinstance(value, bool):
        return 0.0
    number = value.total_seconds() if isinstance(value, timedelta) else value
    valid = isinstance(number, int | float) and not isinstance(number, bool)
    if not valid or not 0 < number <= sys.float_info.max:
        raise ConfigurationError(
            f"{name} is {value!r}; it has to be a positive number of seconds or a timedelta",
            details={"option": name},
        )
    return float(number)


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
