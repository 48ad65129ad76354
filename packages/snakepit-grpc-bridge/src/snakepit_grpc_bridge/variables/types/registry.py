"""The types that variables can have: the built-in ones, and those that users register."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from snakepit_grpc_bridge.errors import UnsupportedType, ValidationFailed, did_you_mean, shown
from snakepit_grpc_bridge.variables.types import arrays
from snakepit_grpc_bridge.variables.types.catalog import BUILT_IN
from snakepit_grpc_bridge.variables.types.declaration import (
    NULLABLE,
    Declaration,
    declare,
    unlimited,
)
from snakepit_grpc_bridge.variables.types.variable_type import VariableType

__all__ = ["TypeRegistry"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class TypeRegistry:
    """The types of one platform. Starts with the built-in ones; only adding a type changes it.

    Example:
        >>> types = TypeRegistry()
        >>> types.infer(0.2), types.infer(["a"])
        ('float', 'list')
        >>> types.declare("integer", {"min": 1}).read(8)
        8
    """

    def __init__(self) -> None:
        self._types: dict[str, VariableType[Any]] = {kind.name: kind for kind in BUILT_IN}
        self._registered: list[VariableType[Any]] = []
        # What most variables are declared as, made once.
        self._unlimited: dict[str, Declaration[Any]] = {
            kind.name: unlimited(kind) for kind in BUILT_IN
        }

    def register_type(self, kind: VariableType[Any]) -> None:
        """Add a type. Values of its ``inferred_from`` get it rather than a built-in one.

        Raises:
            ValidationFailed: its name is taken or no name, or its parts don't go together.
        """
        if not isinstance(kind, VariableType):
            raise ValidationFailed(f"a type is declared by a VariableType, not {shown(kind)}")
        _check_parts(kind)
        if kind.name in self._types:
            raise ValidationFailed(
                f"there is a variable type {kind.name!r} already; choose another name"
            )
        self._types[kind.name] = kind
        self._registered.append(kind)
        self._unlimited[kind.name] = unlimited(kind)

    def declare(
        self, type_name: str, constraints: Mapping[str, Any] | None = None
    ) -> Declaration[Any]:
        """Return a type with constraints, which reads values.

        Raises:
            UnsupportedType: there is no such type.
            ValidationFailed: a constraint is unknown, missing or makes no sense.
        """
        kind = self._types.get(type_name) if isinstance(type_name, str) else None
        if kind is None:
            raise self._unknown(type_name)
        if not constraints and not kind.required:
            return self._unlimited[kind.name]
        return declare(kind, {} if constraints is None else constraints)

    def stored(self, type_name: str) -> Declaration[Any]:
        """Return a type without constraints, for values that were checked when they were stored.

        Raises:
            UnsupportedType: there is no such type.
        """
        found = self._unlimited.get(type_name)
        if found is None:
            raise self._unknown(type_name)
        return found

    def find(self, type_name: str) -> VariableType[Any] | None:
        """Return the type of that name, or None."""
        return self._types.get(type_name)

    def infer(self, value: object) -> str:
        """Return the name of the type that fits a value: the first registered, else a built-in one.

        Raises:
            UnsupportedType: none does.
        """
        cls = type(arrays.python_number(value))
        for kind in (*self._registered, *BUILT_IN):
            if issubclass(cls, kind.inferred_from):
                return kind.name
        if arrays.is_array(value):  # whose classes are known only where they are imported
            return "tensor"
        raise UnsupportedType(
            f"no variable type fits a {cls.__name__}; convert it to plain data, or name one of "
            f"the types: {', '.join(self._types)}",
            details={"supported": list(self._types)},
        )

    def supported(self) -> dict[str, dict[str, str]]:
        """Return the constraints that each type takes, by type name: of each what it must be, in
        the words of the error for one that is not.
        """
        return {
            name: {each.name: each.expects for each in (*kind.constraints, NULLABLE)}
            for name, kind in self._types.items()
        }

    def _unknown(self, type_name: object) -> UnsupportedType:
        hint = did_you_mean(type_name, self._types) if isinstance(type_name, str) else ""
        return UnsupportedType(
            f"there is no variable type {shown(type_name)}{hint} (types: {', '.join(self._types)})",
            details={"supported": list(self._types)},
        )


def _check_parts(kind: VariableType[Any]) -> None:
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name):
        raise ValidationFailed(
            f"{shown(kind.name)} is no name of a type; use lower-case letters, digits and _ after "
            "a first letter, at most 64 characters"
        )
    names = [constraint.name for constraint in (*kind.constraints, NULLABLE)]
    if len(set(names)) != len(names):
        raise ValidationFailed(f"type {kind.name!r} has two constraints of one name: {names}")
    unknown = [name for name in kind.required if name not in names]
    if unknown:
        raise ValidationFailed(f"type {kind.name!r} requires constraints it has not: {unknown}")
    if (kind.to_plain is None) != (kind.from_plain is None):
        raise ValidationFailed(
            f"type {kind.name!r} needs both of to_plain and from_plain, or neither"
        )
