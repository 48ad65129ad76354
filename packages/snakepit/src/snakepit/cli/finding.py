"""What `snakepit doctor` finds out: one thing each."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """Whether something works."""

    OK = "ok"
    WARNING = "warning"
    """The pool works, with less."""
    ERROR = "error"
    """There can be no pool."""


class Finding(NamedTuple):
    """One thing that was looked at; ``remedy`` says what to do when it is not right."""

    name: str
    status: Status
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    """It works."""
    return Finding(name, Status.OK, text)


def warning(name: str, text: str, remedy: str) -> Finding:
    """It does not work, and something is lost by that."""
    return Finding(name, Status.WARNING, text, remedy)


def error(name: str, text: str, remedy: str) -> Finding:
    """It does not work, and nothing does without it."""
    return Finding(name, Status.ERROR, text, remedy)
