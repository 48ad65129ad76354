"""The events of policies; see telemetry.catalogue."""

from __future__ import annotations

from typing import Final

from snakepit.policies.circuit import CircuitState
from snakepit.telemetry import bus
from snakepit.telemetry.labels import error_labels

_ENTERED: Final = {
    CircuitState.CLOSED: "snakepit.circuit_breaker.closed",
    CircuitState.OPEN: "snakepit.circuit_breaker.opened",
    CircuitState.HALF_OPEN: "snakepit.circuit_breaker.half_opened",
}


def retry_attempted(command: str, attempt: int, delay: float, error: Exception) -> None:
    """The ``attempt``-th attempt has failed with ``error``; the next one follows after a pause."""
    measurements = {"attempt": attempt, "delay_s": delay}
    bus.tell("snakepit.retry.attempt", measurements, {"command": command, **error_labels(error)})


def retry_succeeded(command: str, attempts: int) -> None:
    """The last of several attempts has succeeded."""
    bus.tell("snakepit.retry.success", {"attempts": attempts}, {"command": command})


def retry_exhausted(command: str, attempts: int, error: Exception) -> None:
    """There will be no more attempts, and the last one has failed with ``error``."""
    labels = {"command": command, **error_labels(error)}
    bus.tell("snakepit.retry.exhausted", {"attempts": attempts}, labels)


def circuit_entered(breaker: str, state: CircuitState, command: str | None) -> None:
    """A call of ``command``, or its reset, has brought a circuit into another state."""
    bus.tell(_ENTERED[state], {}, {"breaker": breaker, "command": command})


def circuit_refused(breaker: str, command: str, retry_after: float) -> None:
    """A call was refused; so many seconds later it may pass."""
    labels = {"breaker": breaker, "command": command}
    bus.tell("snakepit.circuit_breaker.rejected", {"retry_after_s": retry_after}, labels)
