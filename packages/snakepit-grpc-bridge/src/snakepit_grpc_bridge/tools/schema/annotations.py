"""From annotations to the plain description, and from plain values to what annotations say. Pure.

pydantic does both; imported only by who has a function to describe. What it would do silently
(take ``"5"`` for an int, drop an unknown field) never comes to it: values are read by
:mod:`~.checking` first, so that all it does is to make objects of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Final, NamedTuple

import pydantic
from pydantic.errors import PydanticErrorMixin
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python

from snakepit_grpc_bridge.tools.schema.checking import compile_check
from snakepit_grpc_bridge.tools.schema.kinds import KINDS
from snakepit_grpc_bridge.tools.schema.preparing import is_array, prepared, typed_dict
from snakepit_grpc_bridge.tools.schema.problems import Problems, Unconvertible, Where
from snakepit_grpc_bridge.tools.schema.signature import REQUIRED, Signature, not_a_tool

__all__ = ["Described", "describe"]

#: The name under which further named values go through pydantic; no parameter can have it.
_OTHERS: Final = "**"
_LONGEST_DEFAULT = 1000
_LONGEST_MESSAGE = 200
_SCALARS = (str, int, float, type(None))  # a bool is an int

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
    convert: Callable[[dict[str, Any]], dict[str, Any]]


class _NoData(Exception):
    """No data can become a value of that type."""


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
        fields[_OTHERS] = dict[str, prepared(signature.others)]  # type: ignore[misc]
    try:
        adapter = _adapter(fields)
        schema = _schema_of(adapter, "validation")
    except Exception as error:  # types of users run code while they are described
        raise _refusal(signature, fields, error) from error
    properties = schema.setdefault("properties", {})
    others = properties.pop(_OTHERS, {"additionalProperties": False})
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
        convert=_Converter(adapter, frozenset(properties), signature.hidden),
    )


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
        # What was given may be private, and errors go to logs.
        hide_input_in_errors=True,
    )
    # Any name can be that of a TypedDict's field; those of a model's can't.
    kind = typed_dict("parameters", fields)
    kind.__pydantic_config__ = config
    return pydantic.TypeAdapter(kind)


def _schema_of(adapter: pydantic.TypeAdapter[Any], mode: Any) -> dict[str, Any]:
    return adapter.json_schema(schema_generator=_Generator, mode=mode)


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
            default = _as_json(signature.defaults[name])
        except (KeyError, ValueError):
            continue
        problems = Problems()
        check = compile_check({**field, "$defs": schema.get("$defs", {})})
        check.read(default, None, problems)
        if not problems.found:
            field["default"] = default


def _as_json(default: Any) -> Any:
    """Return a default as JSON has it; raises ValueError if it is no data, or too long to show."""
    try:
        text = json.dumps(to_jsonable_python(default, bytes_mode="base64"), allow_nan=False)
    except Exception as error:  # a default is any object, and may say so in any way
        raise ValueError("it is no plain data") from error
    if len(text) > _LONGEST_DEFAULT:
        raise ValueError("it is long")
    return json.loads(text)


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
            shown = f"**{name}" if name == _OTHERS else repr(name)
            problem = f"the type of parameter {shown} can't be used ({reason.strip():.300})"
            return not_a_tool(signature.name, f"{problem}; {_ADVICE}")
    problem = f"its types can't be described together ({error!s:.300})"
    return not_a_tool(signature.name, f"{problem}; {_ADVICE}")


# --- from annotations to JSON Schema -------------------------------------------------------------


def _of_kind(kind: str) -> JsonSchemaValue:
    return {**KINDS[kind].form, "x-kind": kind}


class _Generator(GenerateJsonSchema):
    """pydantic's JSON Schema with our keywords, see :mod:`~.checking`."""

    ignored_warning_kinds = {"non-serializable-default"}

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        json_schema = super().generate_inner(schema)
        if json_schema.get("format") in {"path", "file-path", "directory-path"}:
            json_schema["x-kind"] = "path"  # a path has no schema of its own
        return json_schema

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        return _of_kind("binary")

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        return _of_kind("datetime")

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        return _of_kind("date")

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        return _of_kind("time")

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return _of_kind("duration")

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        return _of_kind("decimal")

    def uuid_schema(self, schema: core_schema.UuidSchema) -> JsonSchemaValue:
        return _of_kind("uuid")

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        return _of_kind("complex")

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        if is_array(schema["cls"]):
            return _of_kind("ndarray")
        return self.handle_invalid_for_json_schema(schema, f"{schema['cls']!r}")

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        finite = {"x-finite": True} if schema.get("allow_inf_nan") is False else {}
        return super().float_schema(schema) | finite

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        return super().tuple_schema(schema) | {"x-kind": "tuple"}

    def named_tuple_schema(self, schema: core_schema.NamedTupleSchema) -> JsonSchemaValue:
        return super().named_tuple_schema(schema) | {"x-kind": "tuple"}

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        return super().set_schema(schema) | {"x-kind": "set"}

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        return super().frozenset_schema(schema) | {"x-kind": "frozenset"}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        json_schema = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        return (
            json_schema
            if keys.get("type") == "string" and "x-kind" not in keys
            else (json_schema | {"x-keys": keys})
        )

    def callable_schema(self, schema: core_schema.CallableSchema) -> JsonSchemaValue:
        return self.handle_invalid_for_json_schema(schema, "a function")

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonSchemaValue:
        return self.handle_invalid_for_json_schema(schema, "a class")

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        if not all(isinstance(member.value, _SCALARS) for member in schema["members"]):
            raise _NoData(f"{schema['cls'].__name__} has members that are neither text nor numbers")
        return super().enum_schema(schema)

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        for each in schema["expected"]:
            if isinstance(each, Enum) or not isinstance(each, _SCALARS):
                raise _NoData(f"Literal[{each!r}] is neither text nor a number")
        return super().literal_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _closed(super().model_schema(schema), schema["cls"].model_config)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        config = getattr(schema["cls"], "__pydantic_config__", {})
        return _closed(super().dataclass_schema(schema), config)

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        config = getattr(schema.get("cls"), "__pydantic_config__", {})
        return _closed(super().typed_dict_schema(schema), config)

    def encode_default(self, dft: Any) -> Any:
        try:
            return _as_json(dft)
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error

    def field_is_present(self, field: Any) -> bool:
        # A dataclass sets fields without init itself.
        return field.get("init", True) and super().field_is_present(field)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it would be the name again

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        # Not pydantic's own error: in a union it would leave the choice out with a warning.
        raise _NoData(f"no data can become {error_info}")


def _closed(json_schema: JsonSchemaValue, config: Mapping[str, Any]) -> JsonSchemaValue:
    """Refuse unknown fields where the class doesn't say what becomes of them.

    pydantic would drop them, and with them what a caller has mistyped.
    """
    if "properties" in json_schema or json_schema.get("type") == "object":
        json_schema.setdefault("additionalProperties", config.get("extra") == "ignore")
    return json_schema


# --- from plain values to objects ----------------------------------------------------------------


class _Converter:
    """Makes objects of values that were read."""

    def __init__(
        self, adapter: pydantic.TypeAdapter[Any], names: frozenset[str], hidden: frozenset[str]
    ) -> None:
        self._adapter = adapter
        self._names = names
        self._hidden = hidden

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in values.items() if name in self._names}
        if len(fields) < len(values):
            others = {name: value for name, value in values.items() if name not in self._names}
            # A function that takes any name must not get one that is bound already.
            if not self._hidden.isdisjoint(others):
                raise Unconvertible([f"unknown: {name}" for name in others if name in self._hidden])
            fields[_OTHERS] = others
        try:
            converted: dict[str, Any] = self._adapter.validate_python(fields)
        except pydantic.ValidationError as error:
            raise Unconvertible(_texts(error, values)) from error
        except Exception as error:  # a validator of a user's type is any code
            problem = f"a validator of its types failed with {type(error).__name__}"
            raise Unconvertible([problem]) from error
        converted |= converted.pop(_OTHERS, {})
        return converted


def _texts(error: pydantic.ValidationError, values: dict[str, Any]) -> list[str]:
    problems = Problems()
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        message = each["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        problems.add(_place(each["loc"], values), message[:_LONGEST_MESSAGE])
        if problems.enough:
            break
    return problems.texts()


def _place(steps: tuple[Any, ...], values: Any) -> Where:
    """Return the way to a value; pydantic's has names of types and validators in between."""
    where: Where = None
    for step in steps:
        if isinstance(values, (Mapping, list, tuple)):
            with contextlib.suppress(LookupError, TypeError):
                where, values = (where, step), values[step]
    return where
