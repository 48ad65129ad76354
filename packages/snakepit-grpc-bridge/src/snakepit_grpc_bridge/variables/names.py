"""What variables may be called, and what else names one: its id. Pure."""

from __future__ import annotations

import re
import struct
from typing import Final

from snakepit_grpc_bridge.errors import ValidationFailed, shown

__all__ = ["check_identifier", "check_variable_name", "id_of", "is_id", "name_of"]

#: Of ASCII alone, so that no two names look the same, and none has two spellings.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
#: A name, or an id. "@" tells them apart: no name has one.
_IDENTIFIER: Final = re.compile(_NAME.pattern + r"(@[0-9a-f]{17,32})?")
_MOMENT: Final = struct.Struct(">d")


def check_variable_name(name: object) -> str:
    """Return ``name`` if a variable can have it.

    Raises:
        ValidationFailed: it can't.

    Example:
        >>> check_variable_name("optimizer.step_size")
        'optimizer.step_size'
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise _no_name(name)
    return name


def check_identifier(identifier: object) -> str:
    """Return ``identifier`` if it can be the name or the id of a variable.

    Raises:
        ValidationFailed: it can't.
    """
    if type(identifier) is not str or not _IDENTIFIER.fullmatch(identifier):
        raise _no_name(identifier)
    return identifier


def id_of(name: str, created_at: float, born: int) -> str:
    """The id of the variable that was created under a name at that moment, in that version.

    It is not stored. The version is another one each time that a name is used anew, and the moment
    is another one if that is so much later that the name was forgotten meanwhile.

    Example:
        >>> id_of("rate", 1_700_000_000.25, 3)
        'rate@41d954fc401000003'
    """
    return f"{name}@{_MOMENT.pack(created_at).hex()}{born:x}"


def is_id(identifier: str) -> bool:
    """Whether it is an id rather than a name."""
    return "@" in identifier


def name_of(identifier: str) -> str:
    """The name in an id; a name is its own.

    Example:
        >>> name_of("rate@41d954fc401000003"), name_of("rate")
        ('rate', 'rate')
    """
    return identifier.partition("@")[0]


def _no_name(name: object) -> ValidationFailed:
    return ValidationFailed(
        f"{shown(name)} is no variable name; use letters of the English alphabet, digits and "
        "_ . : - after a first letter or _, at most 128 characters"
    )
