"""What is wrong with the values of a call, and where. Pure; never holds a value itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from snakepit_grpc_bridge.tools.schema.travel import type_name

__all__ = ["MOST_PROBLEMS", "Problems", "Unconvertible", "Where", "clip"]

#: A call with more is not looked at further: the first ones tell what is wrong.
MOST_PROBLEMS = 20
_LONGEST_NAME = 60

#: The way to a value: the way to what holds it, and its key or index there. None is the call.
Where = tuple["Where", Any] | None


def clip(text: str, limit: int = _LONGEST_NAME) -> str:
    """Return text as messages show it."""
    return text if len(text) <= limit else text[:limit] + "..."


class _Problem(NamedTuple):
    where: Where
    text: str
    #: The value has another type than it should.
    unfit: bool = False


class Unconvertible(Exception):
    """Values were read, but their classes refuse them. Never leaves this package."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Problems:
    """The problems of one call, in the order in which they were found."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[_Problem] = []

    @property
    def enough(self) -> bool:
        """Whether there are so many that looking on tells nothing more."""
        return len(self.found) >= MOST_PROBLEMS

    def texts(self) -> list[str]:
        """Return them for people, as in ``"guest.age: must be an integer, not text"``."""
        return [each.text for each in self.found[:MOST_PROBLEMS]]

    def add(self, where: Where, says: str) -> None:
        """Note what is wrong with the value there."""
        self.found.append(_Problem(where, _at(where, says)))

    def unfit(self, where: Where, expects: str, value: object) -> None:
        """Note that the value there is of another type."""
        text = _at(where, f"must be {expects}, not {type_name(value)}")
        self.found.append(_Problem(where, text, unfit=True))

    def missing(self, where: Where) -> None:
        """Note that something required is not there."""
        self.found.append(_Problem(where, f"missing: {_path(where)}"))

    def unknown(self, where: Where, hint: str) -> None:
        """Note something that is not asked for."""
        self.found.append(_Problem(where, f"unknown: {_path(where)}{hint}"))

    def extend(self, others: Problems) -> None:
        """Take over the problems of a part."""
        self.found.extend(others.found)

    def unfit_at(self, where: Where) -> bool:
        """Say whether the value there is of another type."""
        return any(each.unfit and each.where is where for each in self.found)

    def inside(self, where: Where) -> bool:
        """Say whether any is with what the value there holds, not with itself."""
        return any(each.where is not where for each in self.found)


def _at(where: Where, says: str) -> str:
    path = _path(where)
    return f"{path}: {says}" if path else says


def _path(where: Where) -> str:
    """Return the way in Python's words, as in ``guests[2].name``."""
    parts: list[str] = []
    while where is not None:
        where, key = where
        parts.append(_label(key))
    return "".join(reversed(parts)).removeprefix(".")


def _label(key: Any) -> str:
    if isinstance(key, str) and key.isidentifier() and len(key) <= _LONGEST_NAME:
        return f".{key}"
    if not isinstance(key, (str, int)) or (isinstance(key, int) and key.bit_length() > 64):
        return f"[{type(key).__name__}]"
    return f"[{clip(repr(key))}]"
