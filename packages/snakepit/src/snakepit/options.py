"""Checks of the options that users pass. Each names the option and what it may be.

Those that workers need too are in :mod:`snakepit.checks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, get_args

from snakepit.calls.call import PRIORITIES, Priority
from snakepit.checks import LONGEST, instance_or_none, seconds, whole_number
from snakepit.errors import ConfigurationError
from snakepit.telemetry.trace import is_idempotency_key

__all__ = [
    "USE_DEFAULT",
    "Affinity",
    "CallDefaults",
    "Timeout",
    "UseDefault",
    "affinity_option",
    "idempotency_key_option",
    "instance_or_none",
    "priority_option",
    "seconds",
    "whole_number",
]


class UseDefault(Enum):
    """The type of :data:`USE_DEFAULT`; None already means "no limit"."""

    USE_DEFAULT = "use_default"

    def __repr__(self) -> str:
        return self.name


USE_DEFAULT: Final = UseDefault.USE_DEFAULT
Affinity = Literal["hint", "strict_queue", "strict_fail_fast"]
_AFFINITIES: Final[tuple[Affinity, ...]] = get_args(Affinity)
Timeout = float | timedelta | None | Literal[UseDefault.USE_DEFAULT]


def affinity_option(value: Affinity) -> Affinity:
    """How a call is bound to its session's worker.

    Raises:
        ConfigurationError: there is no such affinity.
    """
    if value not in _AFFINITIES:
        raise _none_of("affinity", value, _AFFINITIES)
    return value


def priority_option(value: Priority) -> int:
    """The class of a call, as its index.

    Raises:
        ConfigurationError: there is no such class.
    """
    if value not in PRIORITIES:
        raise _none_of("priority", value, PRIORITIES)
    return PRIORITIES.index(value)


def idempotency_key_option(value: str) -> str:
    """Its caller's name for a call.

    Raises:
        ConfigurationError: it is no text that can stand in a header.
    """
    if not is_idempotency_key(value):
        shown = repr(value) if len(repr(value)) <= 80 else f"a {type(value).__name__}"
        raise ConfigurationError(
            f"idempotency_key is {shown}; it has to be a text of 1 to 255 visible ASCII characters",
            details={"option": "idempotency_key"},
        )
    return value


def _none_of(name: str, value: object, allowed: tuple[str, ...]) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is {value!r}; it has to be one of {allowed}", details={"option": name}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDefaults:
    """What applies to a pool's calls that don't say otherwise. Times in seconds, None for no limit.

    Raises:
        ConfigurationError: a value is impossible.
    """

    timeout: float | None
    queue_timeout: float | None
    stream_idle_timeout: float | None
    affinity: Affinity

    def leaves_unlimited(self, timeout: Timeout, queue_timeout: Timeout) -> bool:
        """Whether a call with these limits has none: the usual case, to be known at a look."""
        return (
            timeout is USE_DEFAULT
            and queue_timeout is USE_DEFAULT
            and self.timeout is None
            and self.queue_timeout is None
        )

    @classmethod
    def of(
        cls,
        *,
        timeout: float | timedelta | None,
        queue_timeout: float | timedelta | None,
        stream_idle_timeout: float | timedelta | None,
        affinity: Affinity,
    ) -> CallDefaults:
        """The defaults that a pool was given."""
        return cls(
            timeout=_seconds_or_none("timeout", timeout),
            queue_timeout=_seconds_or_none("queue_timeout", queue_timeout),
            stream_idle_timeout=_seconds_or_none("stream_idle_timeout", stream_idle_timeout),
            affinity=affinity_option(affinity),
        )

    def deadline(self, now: float, timeout: Timeout) -> float | None:
        """When a call's time is up that is made ``now``."""
        if timeout is USE_DEFAULT:
            timeout = self.timeout
        if timeout is None:
            return None
        if type(timeout) is float and 0.0 < timeout <= LONGEST:
            return now + timeout  # nearly every call
        return now + seconds("timeout", timeout)

    def queue_deadline(self, now: float, timeout: Timeout) -> float | None:
        """When a call has waited long enough that is made ``now``."""
        if timeout is USE_DEFAULT:
            timeout = self.queue_timeout
        return None if timeout is None else now + seconds("queue_timeout", timeout)

    def idle_limit(self, timeout: Timeout) -> float | None:
        """Seconds that a stream's consumer waits for an item."""
        if timeout is USE_DEFAULT:
            return self.stream_idle_timeout
        return _seconds_or_none("idle_timeout", timeout)


def _seconds_or_none(name: str, value: float | timedelta | None) -> float | None:
    return None if value is None else seconds(name, value)
