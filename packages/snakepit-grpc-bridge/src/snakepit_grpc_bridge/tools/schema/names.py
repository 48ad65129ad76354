"""What tools and their parameters may be called. Pure."""

from __future__ import annotations

import re
from typing import Final

from snakepit_grpc_bridge.errors import ValidationFailed

__all__ = ["PARAMETER_NAME", "check_tool_name"]

#: What the providers of language models take as the name of a field.
PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_tool_name(name: object) -> str:
    """Return ``name`` if a tool can have it.

    Raises:
        ValidationFailed: it can't.

    Example:
        >>> check_tool_name("weather.now")
        'weather.now'
    """
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise ValidationFailed(
            f"{name!r:.100} is no tool name; use letters, digits and _ . - after a first letter or "
            "digit, at most 64 characters"
        )
    return name
