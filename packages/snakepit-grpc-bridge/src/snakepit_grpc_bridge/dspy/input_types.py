"""Whether a value has the type that a signature's field declares. Pure; knows no DSPy.

Stricter than DSPy, which only warns: a value of another type is a mistake of the caller. It
allows what Python and the transport between processes take for the same: an int is a float (but a
bool is no int), lists and tuples are alike, and so are sets and frozensets.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Complex, Integral, Real
from typing import Any, Final

__all__ = ["elements_of", "fits"]


def _number(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _is_mapping(value: Any) -> bool:
    # Dataclasses and pydantic's models travel as mappings.
    is_record = dataclasses.is_dataclass(value) or hasattr(type(value), "model_fields")
    return isinstance(value, Mapping) or (is_record and not isinstance(value, type))


#: numpy's numbers count as what they are, by Python's own classes of numbers.
_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "str": _is(str),
    "int": _number(Integral),
    "float": _number(Real),
    "complex": _number(Complex),
    "bool": _is(bool),
    "bytes": _is(bytes, bytearray, memoryview),
    "None": _is(type(None)),
    "Any": lambda _: True,
    "list": _is(list, tuple),
    "tuple": _is(list, tuple),
    "dict": _is_mapping,
    "set": _is(set, frozenset),
    "frozenset": _is(set, frozenset),
}


def elements_of(node: ast.expr) -> list[ast.expr]:
    """Return what stands between the brackets of a generic type."""
    return node.elts if isinstance(node, ast.Tuple) else [node]


def fits(node: ast.expr, value: Any) -> bool:
    """Say whether ``value`` has the type that ``node`` spells, one that a signature may have.

    Example:
        >>> fits(ast.parse("list[int]", mode="eval").body, [1, True])
        False
    """
    if isinstance(value, Enum):
        value = value.value  # as it travels
    match node:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name):
            return _CHECKS[name](value)
        case ast.BinOp(left=left, right=right):
            return fits(left, value) or fits(right, value)
        case ast.Subscript(value=ast.Name(id=name), slice=inside):
            return _fits_generic(name, elements_of(inside), value)
        case _:
            return True  # a type of DSPy's own, which reads its values itself


def _fits_generic(name: str, arguments: list[ast.expr], value: Any) -> bool:
    match name:
        case "Optional":
            return value is None or fits(arguments[0], value)
        case "Union":
            return any(fits(argument, value) for argument in arguments)
        case "Literal":
            return any(_is_choice(ast.literal_eval(choice), value) for choice in arguments)
        case "dict":
            return _fits_dict(arguments, value)
        case "tuple":
            return _CHECKS[name](value) and _fits_tuple(arguments, value)
        case _:
            return _CHECKS[name](value) and all(fits(arguments[0], item) for item in value)


def _is_choice(choice: Any, value: Any) -> bool:
    # In type, too: 1 == True.
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def _fits_dict(arguments: list[ast.expr], value: Any) -> bool:
    if not isinstance(value, Mapping):
        return _is_mapping(value)
    keys, items = arguments
    return all(fits(keys, key) and fits(items, item) for key, item in value.items())


def _fits_tuple(arguments: list[ast.expr], value: Any) -> bool:
    last = arguments[-1]
    if isinstance(last, ast.Constant) and last.value is Ellipsis:
        return all(fits(arguments[0], item) for item in value)
    return len(arguments) == len(value) and all(map(fits, arguments, value))
