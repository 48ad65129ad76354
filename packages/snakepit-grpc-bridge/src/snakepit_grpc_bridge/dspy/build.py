"""Making DSPy signatures from checked descriptions. Worker side only."""

from __future__ import annotations

import ast
import typing
import warnings
from collections.abc import Mapping
from typing import Any, Final

from snakepit_grpc_bridge.dspy.input_types import elements_of
from snakepit_grpc_bridge.dspy.runtime import load_dspy
from snakepit_grpc_bridge.dspy.signature import Field, SignatureSpec
from snakepit_grpc_bridge.errors import SignatureInvalid

__all__ = ["build_signature"]

_TYPES: Final[Mapping[str, Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "complex": complex,
    "None": None,
    "Any": typing.Any,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "Optional": typing.Optional,
    "Union": typing.Union,
    "Literal": typing.Literal,
}


def build_signature(spec: SignatureSpec) -> Any:
    """Return the ``dspy.Signature`` class that ``spec`` describes.

    Raises:
        SignatureInvalid: DSPy itself refuses it, or has no type of a name that is used.
    """
    dspy = load_dspy()
    fields: dict[str, Any] = {}
    for field in spec.inputs:
        # As DSPy marks fields without a type: their values are not checked against text.
        undefined = {"IS_TYPE_UNDEFINED": True} if field.type is None else {}
        fields[field.name] = (_type_of(field), dspy.InputField(desc=field.desc, **undefined))
    for field in spec.outputs:
        fields[field.name] = (_type_of(field), dspy.OutputField(desc=field.desc))
    try:
        with warnings.catch_warnings():
            # A field may be called "copy" or "schema", like a method of pydantic nobody calls here.
            warnings.filterwarnings("ignore", message=".*shadows an attribute")
            return dspy.make_signature(fields, spec.instructions)
    except (TypeError, ValueError) as error:
        raise SignatureInvalid(
            f"DSPy refuses the signature {spec.text!r}: {error}",
            details={"signature": spec.text, "problem": str(error)},
        ) from error


def _type_of(field: Field) -> Any:
    if field.type is None:
        return str
    return _build(ast.parse(field.type, mode="eval").body, field)


def _build(node: ast.expr, field: Field) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _TYPES[name]
        case ast.Attribute(attr=name):
            return _dspy_type(name, field)
        case ast.BinOp(left=left, right=right):
            return typing.Union[_build(left, field), _build(right, field)]  # noqa: UP007 - either may be text
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inside):
            return typing.Literal[tuple(ast.literal_eval(node) for node in elements_of(inside))]
        case ast.Subscript(value=ast.Name(id=name), slice=inside):
            arguments = tuple(_build(element, field) for element in elements_of(inside))
            return _TYPES[name][arguments if len(arguments) > 1 else arguments[0]]
    raise SignatureInvalid(f"the type of {field.name!r}, {field.type!r}, can't be built")


def _dspy_type(name: str, field: Field) -> Any:
    found = getattr(load_dspy(), name, None)
    if not isinstance(found, type):
        raise SignatureInvalid(
            f"the type of {field.name!r} is dspy.{name}, and DSPy has no type of that name"
        )
    return found
