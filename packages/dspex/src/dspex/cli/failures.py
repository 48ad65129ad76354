"""How a failed command ends: one line on standard error, and an exit code."""

from __future__ import annotations

import traceback
from enum import IntEnum

import typer

from snakepit.errors import ConfigurationError, SnakepitError


class ExitCode(IntEnum):
    """The exit codes of `dspex`, as its help lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 124
    INTERRUPTED = 130


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error."""
    from snakepit_grpc_bridge.errors import InputMismatch, SignatureInvalid, ValidationFailed

    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, TimeoutError):
        return ExitCode.TIMEOUT
    if isinstance(error, ConfigurationError | InputMismatch | SignatureInvalid | ValidationFailed):
        return ExitCode.USAGE
    return ExitCode.FAILED


def report(error: BaseException, *, debug: bool) -> ExitCode:
    """Tell the user about an error that ended a command, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    typer.echo(f"dspex: {describe(error)}", err=True)
    return exit_code_of(error)


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong, the cause included if it adds something."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if not isinstance(error, SnakepitError):
        return f"unexpected {type(error).__name__}: {_one_line(error)} (see --debug)"
    text = _one_line(error)
    cause = error.__cause__
    if isinstance(cause, SnakepitError) and _one_line(cause) not in text:
        text = f"{text}: {_one_line(cause)}"
    return text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
