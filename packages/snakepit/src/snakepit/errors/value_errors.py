"""Errors of values on their way between processes."""

from __future__ import annotations

from snakepit.errors.base import Outcome, ValueTransportError


class _PathError(ValueTransportError, registered=False):
    @property
    def path(self) -> str | None:
        """Where the value is, such as ``args.items[3].client``; None if unknown."""
        return self.details.get("path")


class EncodeError(_PathError):
    """A value is of a kind that does not travel between processes; ``path`` says where it is."""

    code = "encode_error"


class DecodeError(_PathError):
    """Bytes are no valid encoded value: the peer has a bug or speaks another version."""

    code = "decode_error"
    outcome = Outcome.UNKNOWN


class PayloadTooLarge(_PathError):
    """An encoded value is larger than the limit (both in bytes). Send it in parts or by a file.

    ``path`` is that of its largest part.
    """

    code = "payload_too_large"

    @classmethod
    def of(cls, size: int, limit: int, path: str | None = None) -> PayloadTooLarge:
        """Return the error for a value of ``size`` bytes, with its largest part at ``path``."""
        largest = "" if path is None else f" (most of it at {path})"
        return cls(
            f"the encoded value has {size} bytes{largest}, the limit is {limit}; send it in parts",
            details={"size": size, "limit": limit, "path": path},
        )

    @property
    def size(self) -> int | None:
        """Bytes of the encoded value."""
        return self.details.get("size")

    @property
    def limit(self) -> int | None:
        """Bytes allowed."""
        return self.details.get("limit")


class VersionMismatch(ValueTransportError):
    """Host and worker have versions that can't talk. Install the same version in both."""

    code = "version_mismatch"
