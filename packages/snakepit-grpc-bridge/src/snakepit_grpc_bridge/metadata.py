"""What callers keep with their sessions, variables and tools, for themselves. Pure."""

from __future__ import annotations

from typing import Any

from snakepit_grpc_bridge.errors import ValidationFailed, shown
from snakepit_grpc_bridge.variables.types import plain
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["read_metadata"]


def read_metadata(metadata: object) -> dict[str, Any]:
    """Return metadata as they are stored; they share nothing with what was given.

    Raises:
        ValidationFailed: they are no mapping of text to plain data.

    Example:
        >>> read_metadata({"user": "ada", "tags": ("a", "b")})
        {'user': 'ada', 'tags': ('a', 'b')}
    """
    if metadata is None:
        return {}
    try:
        return plain.read_map(metadata)
    except Unfit as unfit:
        why = f" ({unfit.text})" if unfit.text else ""
        given = "these" if unfit.private else shown(metadata)
        raise ValidationFailed(
            f"metadata are a mapping of text to plain data, not {given}{why}"
        ) from unfit.__cause__
