"""Limits on numbers and on sizes. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from snakepit_grpc_bridge.tools.schema.problems import Problems, Where

__all__ = ["Bound", "Sizes", "bounds_of", "check_bounds", "sizes_of"]


class Bound(NamedTuple):
    """A limit on a number."""

    keeps: Callable[[Any, Any], bool]
    limit: int | float
    text: str


class Sizes(NamedTuple):
    """The limits on how much a value holds, and of what."""

    least: int
    most: int | float
    unit: str

    def check(self, value: Any, where: Where, problems: Problems) -> None:
        """Note it when a value holds too little or too much."""
        if len(value) < self.least:
            problems.add(where, f"must have at least {self.least} {self.unit}")
        if len(value) > self.most:
            problems.add(where, f"must have at most {self.most} {self.unit}")


# Written so that NaN, which is neither above nor below, is refused.
_BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda value, limit: value >= limit, "at least"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "more than"),
    "maximum": (lambda value, limit: value <= limit, "at most"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "less than"),
}
_UNLIMITED: Final = Sizes(0, math.inf, "")
_SIZES: Final[Mapping[str, tuple[str, str, str]]] = {
    "string": ("minLength", "maxLength", "characters"),
    "array": ("minItems", "maxItems", "items"),
    "object": ("minProperties", "maxProperties", "entries"),
}


def bounds_of(schema: Mapping[str, Any]) -> list[Bound]:
    """Return the limits that a schema sets on numbers."""
    return [
        Bound(keeps, _limit(schema[keyword], int, float), text)
        for keyword, (keeps, text) in _BOUNDS.items()
        if keyword in schema
    ]


def check_bounds(bounds: list[Bound], value: Any, where: Where, problems: Problems) -> None:
    """Note the limits that a number breaks."""
    for keeps, limit, text in bounds:
        if not keeps(value, limit):
            problems.add(where, f"must be {text} {limit}")


def sizes_of(schema: Mapping[str, Any], kind: str) -> Sizes:
    """Return the limits that a schema sets on a "string", an "array" or an "object"."""
    least, most, unit = _SIZES[kind]
    if least not in schema and most not in schema:
        return _UNLIMITED
    return Sizes(
        _limit(schema.get(least, 0), int), _limit(schema.get(most, math.inf), int, float), unit
    )


def _limit(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"a limit is a {type(value).__name__}")
    return value
