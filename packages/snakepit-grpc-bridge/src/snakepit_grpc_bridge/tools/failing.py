"""What the caller of a tool gets when its function raises. Pure; on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from snakepit.errors import CallDepthExceeded
from snakepit_grpc_bridge.errors import ToolExecutionFailed

__all__ = ["failing_as", "raise_tool_error"]


def raise_tool_error(name: str, error: BaseException) -> NoReturn:
    """Raise what the caller of a tool gets whose function raised ``error``.

    That calls are nested too deep is said as it is: wrapped once for each level, it would be out of
    sight.
    """
    if isinstance(error, CallDepthExceeded):
        raise error
    raise ToolExecutionFailed(
        f"tool {name!r} raised {type(error).__name__}: {_text_of(error)}",
        details={"tool": name, "error": type(error).__name__},
    ) from error


@contextmanager
def failing_as(name: str) -> Iterator[None]:
    """Run a tool's function."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise_tool_error(name, error)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text can't be had)"
