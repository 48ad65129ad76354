"""Values and errors as they would arrive in another process."""

from __future__ import annotations

from typing import Any

from snakepit.errors import Outcome, SnakepitError, error_from_wire, raised_to_wire
from snakepit.wire.codec import decode, encode
from snakepit.worker.batches import BatchResults


def travelled(root: str, value: Any) -> Any:
    """A value after its way through the codec; ``root`` is its name in errors.

    Raises:
        EncodeError, PayloadTooLarge: it can't travel.
    """
    return decode(encode(value, root=root))


def travelled_result(value: Any) -> Any:
    """What a command returned; raises as :func:`travelled`."""
    try:
        return travelled("result", value)
    except SnakepitError as error:
        if type(value) is BatchResults:
            return travelled("result", value.without_unencodable())
        error.outcome = Outcome.DONE  # the command ran; only its answer can't travel
        raise


def travelled_error(exc: BaseException) -> SnakepitError:
    """The error of a call whose code raised ``exc``. It keeps the traceback, so that a debugger
    finds the frames of the command."""
    error = error_from_wire(raised_to_wire(exc))
    # Its note has the same traceback as text.
    error.__dict__.pop("__notes__", None)
    error.__suppress_context__ = True
    return error.with_traceback(exc.__traceback__)
