"""From the annotations of a function to its plain description. Pure.

pydantic reads them; imported only by who has a function to describe. What it would do silently
(take ``"5"`` for an int, drop an unknown field) never comes to it: values are read by
:mod:`~.compiling` first, so that all it does is to make objects of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import pydantic
from pydantic.errors import PydanticErrorMixin
from pydantic.fields import FieldInfo

from snakepit_grpc_bridge.tools.schema.compiling import compile_check
from snakepit_grpc_bridge.tools.schema.converting import OTHERS, Converter
from snakepit_grpc_bridge.tools.schema.json_schema import JsonSchemaGenerator, as_json
from snakepit_grpc_bridge.tools.schema.preparing import prepared, typed_dict
from snakepit_grpc_bridge.tools.schema.problems import Problems
from snakepit_grpc_bridge.tools.schema.signature import REQUIRED, Signature, not_a_tool

__all__ = ["Described", "describe"]

#: What pydantic makes nothing else of.
_PLAIN = (bool, int, float, str, bytes)
_ADVICE = (
    "use plain types, an Enum, a dataclass, a TypedDict, a NamedTuple or a pydantic model, or bind "
    "the value with functools.partial"
)


class Described(NamedTuple):
    """The types of a function.

    Attributes:
        parameters: the JSON Schema of its parameters, without texts from the docstring.
        returns: that of its result.
        convert: makes of values that were read what the annotations say; raises Unconvertible.
    """

    parameters: dict[str, Any]
    returns: dict[str, Any]
    convert: Converter


def describe(signature: Signature) -> Described:
    """Return the types of a function as plain data, and what converts values to them.

    Raises:
        ValidationFailed: a parameter is of a type that no data can become.
    """
    fields = {
        name: _field(annotation, signature.defaults.get(name, REQUIRED))
        for name, annotation in signature.annotations.items()
    }
    if signature.others is not None:
        fields[OTHERS] = dict[str, prepared(signature.others)]  # type: ignore[misc]
    try:
        adapter = _adapter(fields)
        schema = _schema_of(adapter, "validation")
    except Exception as error:  # types of users run code while they are described
        raise _refusal(signature, fields, error) from error
    properties = schema.setdefault("properties", {})
    others = properties.pop(OTHERS, {"additionalProperties": False})
    if properties.keys() != signature.annotations.keys():
        raise not_a_tool(signature.name, "a parameter has an alias; give it that name itself")
    _show_defaults(signature, schema)
    return Described(
        parameters={
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if _is_required(name, fields, signature)],
            "additionalProperties": others["additionalProperties"],
            **_definitions(schema),
        },
        returns=_describe_result(signature.returns),
        convert=Converter(
            adapter, frozenset(properties), signature.hidden, _plain_types(signature)
        ),
    )


def _plain_types(signature: Signature) -> Mapping[str, frozenset[type]] | None:
    """The types of all parameters, if pydantic leaves values of them as they are, and adds none."""
    if any(isinstance(default, FieldInfo) for default in signature.defaults.values()):
        return None
    annotations = signature.annotations
    are_plain = all(any(each is kind for kind in _PLAIN) for each in annotations.values())
    if not are_plain:
        return None
    return {name: frozenset({annotation}) for name, annotation in annotations.items()}


def _field(annotation: Any, default: Any) -> Any:
    annotation = prepared(annotation)
    if isinstance(default, FieldInfo):  # count: int = Field(5, ge=1)
        return Annotated[annotation, default]
    if default is not None or annotation is Any:
        return annotation
    # What a call may leave out to get None it may give as None.
    metadata = getattr(annotation, "__metadata__", ())
    if not metadata:
        return annotation | None
    return Annotated[annotation.__origin__ | None, *metadata]


def _adapter(fields: Mapping[str, Any]) -> pydantic.TypeAdapter[Any]:
    config = pydantic.ConfigDict(
        # Classes that pydantic doesn't know are arrays, or refused when they are described.
        arbitrary_types_allowed=True,
        extra="forbid",
    )
    # Any name can be that of a TypedDict's field; those of a model's can't.
    kind = typed_dict("parameters", fields)
    kind.__pydantic_config__ = config
    return pydantic.TypeAdapter(kind)


def _schema_of(adapter: pydantic.TypeAdapter[Any], mode: Any) -> dict[str, Any]:
    return adapter.json_schema(schema_generator=JsonSchemaGenerator, mode=mode)


def _is_required(name: str, fields: Mapping[str, Any], signature: Signature) -> bool:
    if name in signature.defaults and not isinstance(signature.defaults[name], FieldInfo):
        return False
    metadata = getattr(fields[name], "__metadata__", ())
    return all(each.is_required() for each in metadata if isinstance(each, FieldInfo))


def _show_defaults(signature: Signature, schema: Mapping[str, Any]) -> None:
    """Add the defaults that a call may give, and may see."""
    for name, field in schema["properties"].items():
        if field.get("writeOnly"):  # a secret
            field.pop("default", None)
            continue
        try:
            default = as_json(signature.defaults[name])
        except (KeyError, ValueError):
            continue
        problems = Problems()
        check = compile_check({**field, "$defs": schema.get("$defs", {})})
        check.read(default, None, problems)
        if not problems.found:
            field["default"] = default


def _describe_result(annotation: Any) -> dict[str, Any]:
    try:
        schema = _schema_of(_adapter({"result": prepared(annotation)}), "serialization")
    except Exception:  # results are not checked: one that can't be described may be anything
        return {}
    result: dict[str, Any] = schema["properties"]["result"]
    return {**result, **_definitions(schema)}


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"$defs": schema["$defs"]} if "$defs" in schema else {}


def _refusal(signature: Signature, fields: Mapping[str, Any], error: Exception) -> Exception:
    """Return the error that names the parameter; pydantic's own names a type deep inside."""
    for name, field in fields.items():
        try:
            _schema_of(_adapter({name: field}), "validation")
        except Exception as own:
            reason = own.message if isinstance(own, PydanticErrorMixin) else str(own)
            shown = f"**{name}" if name == OTHERS else repr(name)
            problem = f"the type of parameter {shown} can't be used ({reason.strip():.300})"
            return not_a_tool(signature.name, f"{problem}; {_ADVICE}")
    problem = f"its types can't be described together ({error!s:.300})"
    return not_a_tool(signature.name, f"{problem}; {_ADVICE}")
