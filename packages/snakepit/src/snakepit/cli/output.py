"""Writing results and notes."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any


def write(text: str) -> None:
    """Print a line of the result, at once: who reads a stream waits for it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell something that is not the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def write_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    write(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """The nearest that JSON has to a value: bytes as base64, arrays, tuples and sets as lists, and
    what it knows nothing like as text.

    Example::

        assert plain({1: (b"a", {2})}) == {"1": ["YQ==", [2]]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):  # an array of numpy, which is not imported for this
        return plain(value.tolist())
    return str(value)
