"""What events say of errors. Never a message: it may quote what the call was about."""

from __future__ import annotations

from typing import Final

from snakepit.errors import RemoteError, SnakepitError

# A peer may send anything for the name of a class.
_TYPE_NAME_LIMIT: Final = 200


def error_labels(error: BaseException) -> dict[str, str]:
    """``error``, the code of an error, and ``error_type``, the name of its class or, for what a
    command raised, of the class there.
    """
    name = type(error).__name__
    if not isinstance(error, SnakepitError):
        # Nothing else reaches a caller, or ends a call to a function of the host.
        code = "cancelled" if name == "CancelledError" else RemoteError.code
        return {"error": code, "error_type": name}
    if isinstance(error, RemoteError):
        name = str(error.remote_type or name)[:_TYPE_NAME_LIMIT]
    return {"error": error.code, "error_type": name}
