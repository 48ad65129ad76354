"""What a compiled description consists of. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from snakepit_grpc_bridge.tools.schema.problems import Problems, Where

__all__ = ["Check", "Entries", "Read"]

Read = Callable[[Any, Where, Problems], Any]
#: What the entries of a mapping are that needs no closer look: for each name the types of which a
#: value is right as it is, None for any.
Entries = Mapping[str, frozenset[type] | None]


def _read_to_see(_value: Any) -> int | None:
    """Reading tells at once."""
    return 0


class Check(NamedTuple):
    """How values are read.

    Attributes:
        expects: what messages call a right value.
        read: returns the value as its own Python type. What is wrong goes into the problems; what
            is returned then means nothing.
        plain: values of exactly these types are right as they are; None: of any type.
        misfits: how much is wrong with a value without a look at what it holds, None if all is. It
            keeps a union of types that hold that union again from reading all with each of them.
        entries: those of a mapping that is right as it is; None if it takes a closer look.
    """

    expects: str
    read: Read
    plain: frozenset[type] | None = frozenset()
    misfits: Callable[[Any], int | None] = _read_to_see
    entries: Entries | None = None
