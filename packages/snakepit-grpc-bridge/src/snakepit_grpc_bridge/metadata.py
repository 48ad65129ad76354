"""What callers keep with their sessions, variables and tools, for themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snakepit.errors import PayloadTooLarge
from snakepit.wire.codec import encode
from snakepit_grpc_bridge.errors import ValidationFailed, shown
from snakepit_grpc_bridge.variables.types import plain
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["merged_metadata", "read_metadata"]

#: What one may have: metadata are read along with what the quotas of a session count.
MOST_ENTRIES: Final = 32
MOST_BYTES: Final = 4096


def read_metadata(metadata: object) -> dict[str, Any]:
    """Return metadata as they are stored; they share nothing with what was given.

    Raises:
        ValidationFailed: they are no mapping of text to plain data, or too large.

    Example:
        >>> read_metadata({"user": "ada", "tags": ("a", "b")})
        {'user': 'ada', 'tags': ('a', 'b')}
    """
    if metadata is None:
        return {}
    try:
        read = plain.read_map(metadata)
    except Unfit as unfit:
        why = f" ({unfit.text})" if unfit.text else ""
        given = "these" if unfit.private else shown(metadata)
        raise ValidationFailed(
            f"metadata are a mapping of text to plain data, not {given}{why}"
        ) from unfit.__cause__
    return _of_allowed_size(read)


def merged_metadata(before: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with what was read of others put in.

    Raises:
        ValidationFailed: together they are too large.
    """
    return _of_allowed_size({**before, **more}) if more else before


def _of_allowed_size(metadata: dict[str, Any]) -> dict[str, Any]:
    count = len(metadata)
    if count > MOST_ENTRIES:
        raise _too_large(f"{count} entries", {"entries": count, "limit": MOST_ENTRIES})
    try:
        encode(metadata, root="metadata", limit=MOST_BYTES)
    except PayloadTooLarge as error:
        details = {"size": error.size, "limit": MOST_BYTES}
        raise _too_large(f"{error.size} bytes", details) from None
    return metadata


def _too_large(what: str, details: dict[str, Any]) -> ValidationFailed:
    return ValidationFailed(
        f"metadata of {what} would be more than the {MOST_ENTRIES} entries and {MOST_BYTES} bytes "
        "as encoded that are allowed; keep large data in variables",
        details=details,
    )
