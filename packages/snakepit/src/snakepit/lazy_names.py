"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package for names that live in its modules.

    Define it below ``if not TYPE_CHECKING:``, or else a type checker would accept any name.

    Args:
        package: its full name.
        homes: the name of a module below it for each name.

    Raises:
        AttributeError: what is returned, for a name that is not in ``homes``.

    Example::

        homes = {"ManualClock": "clock"}
        print(lazy_names("snakepit.testing", homes)("ManualClock").__name__)
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
