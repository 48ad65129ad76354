"""What stands for a thing that is too large, or too much alive, to be a value. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables.types import plain, scalars
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = [
    "DatasetHandle",
    "Handle",
    "ModelHandle",
    "copy_handle",
    "handle_reader",
    "handle_to_plain",
    "read_module",
]

#: A scheme of one letter would be a drive of Windows.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[^\s\x00-\x1f\x7f]+")
#: The address of an instance that a worker keeps for the session.
_INSTANCE = re.compile(r"stored\.[A-Za-z_][A-Za-z0-9_]*_[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Handle:
    """Says where something is, and what is known of it. Never holds the thing itself.

    Attributes:
        location: a URI, such as ``"s3://bucket/weights"``, or the address of a stored instance of
            the session, such as ``"stored.Predict_0123456789abcdef"``.
        metadata: plain data of the caller's.

    Raises:
        ValidationFailed: when made: the location is neither, or has a password in it; or the
            metadata is no plain data.
    """

    location: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            location = _read_location(self.location)
            metadata = _read_metadata(self.metadata)
        except Unfit as unfit:
            raise ValidationFailed(
                f"this makes no {type(self).__name__}: it {unfit.says}"
            ) from unfit.__cause__
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "metadata", metadata)


@dataclass(frozen=True, slots=True)
class ModelHandle(Handle):
    """Says where a model is, and what is known of it; the value of a variable of type ``model``.

    Example:
        >>> ModelHandle("hf://example/small", {"parameters": 135_000_000}).location
        'hf://example/small'
    """


@dataclass(frozen=True, slots=True)
class DatasetHandle(Handle):
    """Says where a data set is; the value of a variable of type ``dataset``.

    Example:
        >>> DatasetHandle("file:///data/train.parquet", {"rows": 1000}).metadata["rows"]
        1000
    """


H = TypeVar("H", bound=Handle)


def handle_reader(cls: type[H]) -> Callable[[Any], H]:
    """Return what reads a handle of that class: itself, its location alone, or its plain form."""

    def read(value: Any) -> H:
        kind = type(value)
        if kind is cls:
            return cls(value.location, value.metadata)
        if issubclass(kind, str):
            return cls(_read_location(value))
        if issubclass(kind, Mapping):
            fields = plain.read_map(value)
            if "location" in fields and fields.keys() <= {"location", "metadata"}:
                return cls(
                    _read_location(fields["location"]), _read_metadata(fields.get("metadata", {}))
                )
        raise Unfit

    return read


def copy_handle(handle: H) -> H:
    """Return a handle whose metadata is the caller's own."""
    copy = object.__new__(type(handle))
    object.__setattr__(copy, "location", handle.location)
    object.__setattr__(copy, "metadata", plain.copy_plain(handle.metadata))
    return copy


def handle_to_plain(handle: Handle) -> dict[str, Any]:
    """Return the fields of a handle."""
    return {"location": handle.location, "metadata": handle.metadata}


def read_module(value: Any) -> str:
    """Return a dotted path of public names, as in ``"package.module.Class"``; imports nothing."""
    path = scalars.read_string(value)
    if not all(part.isidentifier() and part[0] != "_" for part in path.split(".")):
        raise Unfit("is no dotted path of public names")
    return path


def _read_location(value: Any) -> str:
    text = scalars.read_string(value) if issubclass(type(value), str) else ""
    if _INSTANCE.fullmatch(text):
        return text
    parts = _split(text)
    if parts is None:
        raise Unfit(
            "has a location that is no URI and no address of a stored instance",
            private="@" in text,
        )
    if parts.password is not None:
        raise Unfit(
            "has a location with a password in it; keep that in a variable of type 'secret'",
            private=True,
        )
    return text


def _split(text: str) -> SplitResult | None:
    try:
        return urlsplit(text) if _URI.fullmatch(text) else None
    except ValueError:  # what should be a host is none
        return None


def _read_metadata(value: Any) -> dict[str, Any]:
    try:
        return plain.read_map(value)
    except Unfit as unfit:
        why = f" ({unfit.text})" if unfit.text else ""
        raise Unfit(
            f"has metadata that is no mapping of text to plain data{why}"
        ) from unfit.__cause__
