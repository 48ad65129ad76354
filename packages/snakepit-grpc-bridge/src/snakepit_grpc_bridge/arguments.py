"""The arguments of a function that is called in a worker, as its caller gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snakepit_grpc_bridge.errors import ValidationFailed

__all__ = ["call_arguments", "named_arguments"]


def call_arguments(args: object, kwargs: object) -> dict[str, Any]:
    """Return ``args``, the positional ones, and ``kwargs``, the named ones, by these names.

    Raises:
        ValidationFailed: one is none of that kind. A text or a mapping would be taken apart.
    """
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        raise ValidationFailed(
            f"args is a {type(args).__name__}; pass the positional arguments as a list, "
            "args=[...], and named ones as kwargs={...}"
        )
    return {"args": list(args), "kwargs": named_arguments("kwargs", kwargs or {})}


def named_arguments(what: str, given: object) -> dict[str, Any]:
    """Return arguments that are given by name.

    Raises:
        ValidationFailed: they are not.
    """
    if not isinstance(given, Mapping):
        more = "; positional ones go into args=[...]" if what == "kwargs" else ""
        raise ValidationFailed(
            f"{what} is a {type(given).__name__}; pass a mapping of argument names to values{more}"
        )
    return dict(given)
