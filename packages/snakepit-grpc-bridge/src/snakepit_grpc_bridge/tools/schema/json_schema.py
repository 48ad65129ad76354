"""JSON Schema of pydantic's types, with keywords of our own. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python

from snakepit_grpc_bridge.tools.schema.kinds import KINDS
from snakepit_grpc_bridge.tools.schema.preparing import is_array

__all__ = ["JsonSchemaGenerator", "as_json"]

_LONGEST_DEFAULT = 1000
_SCALARS = (str, int, float, type(None))  # a bool is an int


class _NoData(Exception):
    """No data can become a value of that type."""


def as_json(default: Any) -> Any:
    """Return a default as JSON has it; raises ValueError if it is no data, or too long to show."""
    try:
        text = json.dumps(to_jsonable_python(default, bytes_mode="base64"), allow_nan=False)
    except Exception as error:  # a default is any object, and may say so in any way
        raise ValueError("it is no plain data") from error
    if len(text) > _LONGEST_DEFAULT:
        raise ValueError("it is long")
    return json.loads(text)


def _of_kind(kind: str) -> JsonSchemaValue:
    return {**KINDS[kind].form, "x-kind": kind}


class JsonSchemaGenerator(GenerateJsonSchema):
    """pydantic's JSON Schema with our keywords, see :mod:`~.compiling`."""

    ignored_warning_kinds = {"non-serializable-default"}

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        json_schema = super().generate_inner(schema)
        # A path has no method of its own, and text may be called one.
        if json_schema.get("format") == "path" and schema["type"] == "lax-or-strict":
            json_schema["x-kind"] = "path"
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
        is_text = keys.get("type") == "string" and "x-kind" not in keys
        return json_schema if is_text else json_schema | {"x-keys": keys}

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
            return as_json(dft)
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
