"""Reading values of the built-in types, for code that has no registry of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snakepit_grpc_bridge.variables.types.handles import Handle, copy_handle
from snakepit_grpc_bridge.variables.types.plain import copy_plain
from snakepit_grpc_bridge.variables.types.registry import TypeRegistry

__all__ = ["copy_value", "infer_type", "supported_types", "validate_constraints", "validate_value"]

#: Nothing is registered here, so it never changes.
_TYPES: Final = TypeRegistry()


def supported_types() -> dict[str, dict[str, str]]:
    """Return the constraints that each built-in type takes, by type name: of each what it must be.

    Example:
        >>> supported_types()["embedding"]
        {'dimensions': 'a whole number of at least 0', 'nullable': 'True or False'}
    """
    return _TYPES.supported()


def infer_type(value: object) -> str:
    """Return the built-in type that fits a value.

    Raises:
        UnsupportedType: none does.

    Example:
        >>> infer_type(0.2), infer_type(["a"])
        ('float', 'list')
    """
    return _TYPES.infer(value)


def validate_constraints(type_name: str, constraints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constraints as they are kept, if the type takes them.

    Raises:
        UnsupportedType: there is no such type.
        ValidationFailed: a constraint is unknown, missing or makes no sense.

    Example:
        >>> validate_constraints("choice", {"choices": ["a", "b"]})
        {'choices': ('a', 'b')}
    """
    return dict(_TYPES.declare(type_name, constraints).constraints)


def validate_value(
    value: object, type_name: str, constraints: Mapping[str, Any] | None = None
) -> Any:
    """Return ``value`` as it is stored, if it has the type and keeps the constraints.

    Raises:
        UnsupportedType: there is no such type.
        ValidationFailed: the value has another type or breaks a constraint.

    Example:
        >>> validate_value(1, "float", {"min": 0.0})
        1.0
    """
    return _TYPES.declare(type_name, constraints).read(value)


def copy_value(stored: Any) -> Any:
    """Return what a reader gets of a stored value: a copy, or itself if nothing can change it."""
    return copy_handle(stored) if isinstance(stored, Handle) else copy_plain(stored)
