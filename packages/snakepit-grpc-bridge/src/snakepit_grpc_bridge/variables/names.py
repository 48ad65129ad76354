"""What variables may be called. Pure."""

from __future__ import annotations

import re
from typing import Final

from snakepit_grpc_bridge.errors import ValidationFailed, shown

__all__ = ["check_variable_name"]

#: Of ASCII alone, so that no two names look the same, and none has two spellings.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


def check_variable_name(name: object) -> str:
    """Return ``name`` if a variable can have it.

    Raises:
        ValidationFailed: it can't.

    Example:
        >>> check_variable_name("optimizer.step_size")
        'optimizer.step_size'
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ValidationFailed(
            f"{shown(name)} is no variable name; use letters of the English alphabet, digits and "
            "_ . : - after a first letter or _, at most 128 characters"
        )
    return name
