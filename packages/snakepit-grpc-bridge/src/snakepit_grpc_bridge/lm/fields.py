"""What kind of value an output field takes, read from its annotation. Pure; knows no DSPy."""

from __future__ import annotations

import enum
import types
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["FieldKind", "OutputField", "describe", "label_of", "spoken"]


class FieldKind(StrEnum):
    """How a value is got from a small model."""

    TEXT = "text"
    """Written until the line ends."""
    CHOICE = "choice"
    """The most probable of a closed set."""
    INTEGER = "integer"
    NUMBER = "number"
    TEXTS = "texts"
    """A line with commas."""
    JSON = "json"
    """Written under a grammar made from the type's JSON schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputField:
    """An output field as the adapter sees it.

    Attributes:
        name: its name in the signature.
        kind: how its value is got.
        annotation: its type, without the None of an optional one.
        optional: whether None is a value.
        choices: for a choice, what is said for each value, and the value.
    """

    name: str
    kind: FieldKind
    annotation: Any
    optional: bool = False
    choices: tuple[tuple[str, Any], ...] = ()


def describe(name: str, annotation: Any) -> OutputField:
    """Describe an output field.

    Example:
        >>> describe("mood", Literal["good", "bad"]).choices
        (('good', 'good'), ('bad', 'bad'))
    """
    bare, optional = _without_none(annotation)
    choices = _choices(bare)
    kind = FieldKind.CHOICE if choices else _kind(bare)
    return OutputField(name=name, kind=kind, annotation=bare, optional=optional, choices=choices)


def label_of(name: str) -> str:
    """Return a field's name as the head of a line.

    Example:
        >>> label_of("generated_text")
        'Generated text'
    """
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def spoken(value: Any) -> str:
    """Return a value of a closed set as a model would say it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [item for item in get_args(annotation) if item is not type(None)]
        if len(rest) < len(get_args(annotation)):
            return (rest[0] if len(rest) == 1 else Union[tuple(rest)]), True  # noqa: UP007
    return annotation, False


def _choices(annotation: Any) -> tuple[tuple[str, Any], ...]:
    if annotation is bool:
        values: list[Any] = [True, False]
    elif get_origin(annotation) is Literal:
        values = list(get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple((str(member.value), member) for member in annotation)
    else:
        return ()
    return tuple((spoken(value), value) for value in values)


def _kind(annotation: Any) -> FieldKind:
    if annotation is int:
        return FieldKind.INTEGER
    if annotation is float:
        return FieldKind.NUMBER
    if annotation is list or (get_origin(annotation) is list and get_args(annotation) == (str,)):
        return FieldKind.TEXTS
    # DSPy's own text types, such as Reasoning, take a string.
    if annotation in (str, Any) or getattr(annotation, "__name__", "") == "Reasoning":
        return FieldKind.TEXT
    return FieldKind.JSON
