"""How a failed command ends: a message on standard error, and an exit status."""

from __future__ import annotations

from enum import IntEnum

from snakepit.cli.output import note
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    RemoteError,
    SnakepitError,
    UnknownCommand,
)


class ExitStatus(IntEnum):
    """The exit statuses of `snakepit`, as its help lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 124
    INTERRUPTED = 130


def report(error: BaseException) -> ExitStatus:
    """Tell the user about an error that ended a command, and return the exit status.

    An error that nobody expects is raised again: it is a bug, and its traceback is wanted.
    """
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if not isinstance(error, SnakepitError | OSError):
        raise error
    note(f"snakepit: {describe(error)}")
    if isinstance(error, CallTimeout):
        return ExitStatus.TIMEOUT
    is_usage = isinstance(error, ConfigurationError | UnknownCommand)
    return ExitStatus.USAGE if is_usage else ExitStatus.FAILED


def describe(error: BaseException) -> str:
    """The type of an error and what it says, its cause included if that adds something."""
    name = type(error).__name__
    if isinstance(error, RemoteError):
        name = f"RemoteError: {error.remote_type}"
    text = f"{name}: {error}"
    cause = error.__cause__
    if isinstance(cause, SnakepitError) and str(cause) not in text:
        text = f"{text}: {cause}"
    return text
