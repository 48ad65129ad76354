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
    from snakepit_grpc_bridge.errors import ModelNotFound
    from snakepit_grpc_bridge.lm.errors import ModelUnreadable

    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, TimeoutError):
        return ExitCode.TIMEOUT
    if isinstance(error, ConfigurationError | ModelNotFound | ModelUnreadable):
        return ExitCode.USAGE
    return ExitCode.USAGE if _is_about_input(error) else ExitCode.FAILED


def report(error: BaseException, *, debug: bool, command: str | None = None) -> ExitCode:
    """Tell the user about an error that ended a command, and return the exit code.

    What is wrong with the input is told under the name of the command, which has the help for it.
    """
    if debug:
        traceback.print_exception(error)
    name = f"dspex {command}" if command and _is_about_input(error) else "dspex"
    typer.echo(f"{name}: {describe(error)}", err=True)
    return exit_code_of(error)


def _is_about_input(error: BaseException) -> bool:
    from snakepit_grpc_bridge.errors import InputMismatch, SignatureInvalid, ValidationFailed

    return isinstance(error, InputMismatch | SignatureInvalid | ValidationFailed)


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong, the cause included if it adds something."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if not isinstance(error, SnakepitError):
        return f"unexpected {type(error).__name__}: {_one_line(error)} (see --debug)"
    from snakepit_grpc_bridge.lm.errors import LmCallFailed

    text = _one_line(error)
    cause = error.__cause__
    if isinstance(error, LmCallFailed):
        return text  # made of what its cause says
    if isinstance(cause, SnakepitError) and _one_line(cause) not in text:
        text = f"{text}: {_one_line(cause)}"
    return text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
