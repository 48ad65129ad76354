"""What a tool's parameters are, read from its function. Pure; keeps no state."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit_grpc_bridge.errors import ValidationFailed, did_you_mean

__all__ = ["Parameter", "Schema", "read_schema"]

_JSON_TYPES: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    bytes: "binary",
    list: "array",
    tuple: "array",
    set: "array",
    dict: "object",
    None: "null",
    type(None): "null",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a tool.

    Attributes:
        name: its name.
        type: "string", "integer", "number", "boolean", "binary", "array", "object", or "any".
        required: whether a call must give it.
        default: what it is when a call does not; None for a required one.
    """

    name: str
    type: str
    required: bool
    default: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """The parameters of a tool, and whether it takes names beyond them."""

    parameters: tuple[Parameter, ...]
    open_ended: bool

    def check(self, tool: str, given: object) -> dict[str, Any]:
        """Return the parameters of a call as keyword arguments.

        Raises:
            ValidationFailed: one is missing or unknown, or they are no mapping.
        """
        if not isinstance(given, Mapping):
            raise ValidationFailed(
                f"the parameters of tool {tool!r} must be a mapping of names to values, not a "
                f"{type(given).__name__}"
            )
        names = [parameter.name for parameter in self.parameters]
        problems = [
            f"missing: {parameter.name}"
            for parameter in self.parameters
            if parameter.required and parameter.name not in given
        ]
        if not self.open_ended:
            problems += [
                f"unknown: {name}{did_you_mean(str(name), names)}"
                for name in given
                if name not in names
            ]
        if problems:
            raise ValidationFailed(
                f"the parameters of tool {tool!r} are wrong ({', '.join(problems)}); it takes: "
                f"{', '.join(names) or 'none'}",
                details={"tool": tool, "parameters": names, "problems": problems},
            )
        return {str(name): value for name, value in given.items()}


def read_schema(function: Callable[..., Any]) -> Schema:
    """Return the schema of a function, from its signature and annotations.

    Raises:
        ValidationFailed: it can't be called with keyword arguments alone.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValidationFailed(
            f"the parameters of {function!r} are not known; wrap it in a function that names them"
        ) from error
    annotations = _annotations(function)
    parameters = []
    open_ended = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValidationFailed(
                f"parameter {parameter.name!r} is positional-only, but tools are called with names"
            )
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters.append(_parameter(parameter, annotations))
    return Schema(parameters=tuple(parameters), open_ended=open_ended)


def _parameter(parameter: inspect.Parameter, annotations: Mapping[str, Any]) -> Parameter:
    required = parameter.default is parameter.empty
    return Parameter(
        name=parameter.name,
        type=_type_name(annotations.get(parameter.name)),
        required=required,
        default=None if required else parameter.default,
    )


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # annotations are any code; a tool works without them
        return {}


def _type_name(annotation: Any) -> str:
    if annotation is None:
        return "any"
    origin = typing.get_origin(annotation) or annotation
    try:
        return _JSON_TYPES.get(origin, "any")
    except TypeError:  # an unhashable annotation
        return "any"
