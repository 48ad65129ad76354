"""The schema of a tool: read from a function, sent as plain data, checked against on both sides.

Pure; keeps no state. ``read_schema`` runs where the function is, in the host or in a worker.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema.check import Check, Entries
from snakepit_grpc_bridge.tools.schema.compiling import compile_check
from snakepit_grpc_bridge.tools.schema.docstrings import read_docstring
from snakepit_grpc_bridge.tools.schema.names import PARAMETER_NAME
from snakepit_grpc_bridge.tools.schema.problems import Problems, Unconvertible
from snakepit_grpc_bridge.tools.schema.signature import not_a_tool, read_signature

__all__ = [
    "LONGEST_DESCRIPTION",
    "LONGEST_PARAMETER_DESCRIPTION",
    "MOST_PARAMETERS",
    "MOST_SCHEMA_BYTES",
    "Parameter",
    "Schema",
    "read_schema",
]

#: Characters. Descriptions go into every prompt that offers the tool.
LONGEST_DESCRIPTION = 4096
LONGEST_PARAMETER_DESCRIPTION = 1024
MOST_PARAMETERS = 128
#: Of the plain description, as JSON.
MOST_SCHEMA_BYTES = 64 * 1024

_FORM: Final = {
    "description": str,
    "parameters": dict,
    "returns": dict,
    "streams": bool,
    "is_async": bool,
}
_NO_TYPES: Final[frozenset[type]] = frozenset()
_OURS: Final = frozenset({"x-kind", "x-dtype", "x-keys", "x-finite"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a tool.

    Attributes:
        name: its name.
        type: "string", "integer", "number", "boolean", "null", "array" or "object"; one of our
            kinds, such as "binary" or "datetime"; or "any", also if there are several.
        required: whether a call must give it.
        default: what it is when a call does not, as JSON has it; None for a required one, and for
            one that JSON can't show.
        description: what it is for; "" if nobody says.
        schema: its JSON Schema, with our keywords.
    """

    name: str
    type: str
    required: bool
    default: Any = None
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """What a tool takes and gives.

    Attributes:
        description: what it does.
        parameters: what it takes, in order.
        open_ended: whether it takes names beyond them.
        returns: the JSON Schema of its result, or of each item of a stream; empty if not known.
        streams: whether it gives a stream of items.
        is_async: whether it is a coroutine function or an async generator.
    """

    description: str
    parameters: tuple[Parameter, ...]
    open_ended: bool
    returns: Mapping[str, Any]
    streams: bool
    is_async: bool
    _plain: Mapping[str, Any] = field(repr=False)
    _check: Check = field(repr=False, compare=False)
    # What most calls give: the types of which a value is right, and stays as it is.
    _obvious: Mapping[str, frozenset[type]] | None = field(repr=False, compare=False)
    _required: frozenset[str] = field(repr=False, compare=False)
    _convert: Callable[[dict[str, Any]], dict[str, Any]] | None = field(
        default=None, repr=False, compare=False
    )

    @classmethod
    def from_description(cls, plain: Mapping[str, Any]) -> Schema:
        """Return the schema that ``describe`` gave, in any process. It checks, but converts less:
        it knows neither the function nor its classes.

        Raises:
            ValidationFailed: it is no such description, or over a limit.

        Example:
            >>> plain = read_schema(lambda item, count=1: item * count).describe()
            >>> Schema.from_description(plain) == read_schema(lambda item, count=1: item * count)
            True
        """
        try:
            return _from_plain(plain)
        except ValidationFailed:
            raise
        except Exception as error:  # it comes from a peer, and may be anything
            raise ValidationFailed(
                "this is no description of a tool; pass what Schema.describe has returned"
            ) from error

    def describe(self) -> dict[str, Any]:
        """Return the schema as plain data, all of it JSON, for workers, lists and documents."""
        return copy.deepcopy(dict(self._plain))

    def to_json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the parameters, as one object.

        It is what the tool definitions of OpenAI (``parameters``), Anthropic (``input_schema``) and
        MCP (``inputSchema``) take: without our keywords.
        """
        plain: dict[str, Any] = _without_ours(self._plain["parameters"])
        return plain

    def check(self, tool: str, given: object) -> dict[str, Any]:
        """Return the parameters of a call as keyword arguments.

        Where the function is, they are what its annotations say; elsewhere they are what is sent
        there: Enums are values, and dataclasses and models are mappings.

        Raises:
            ValidationFailed: some are missing, unknown, or of another type; ``details["problems"]``
                has them all, up to 20. Values are not shown.

        Example:
            >>> read_schema(lambda count: count).check("count", {"count": 2})
            {'count': 2}
        """
        obvious = self._obvious
        if (
            obvious is not None
            and type(given) is dict
            and (len(given) == len(obvious) or given.keys() >= self._required)
        ):
            for name, value in given.items():
                if type(value) not in obvious.get(name, _NO_TYPES):
                    break
            else:
                return given.copy()
        return self._check_closely(tool, given)

    def _check_closely(self, tool: str, given: object) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise ValidationFailed(
                f"the parameters of tool {tool!r} must be a mapping of names to values, not a "
                f"{type(given).__name__}"
            )
        problems = Problems()
        try:
            values: dict[str, Any] = self._check.read(given, None, problems)
        except RecursionError:
            raise self._wrong(tool, ["it is nested too deeply"]) from None
        if problems.found:
            raise self._wrong(tool, problems.texts())
        if self._convert is None:
            return dict(values)
        try:
            return self._convert(values)
        except Unconvertible as error:
            raise self._wrong(tool, error.problems) from error.__cause__

    def _wrong(self, tool: str, problems: list[str]) -> ValidationFailed:
        names = [parameter.name for parameter in self.parameters]
        return ValidationFailed(
            f"the parameters of tool {tool!r} are wrong ({'; '.join(problems)}); it takes: "
            f"{', '.join(names) or 'none'}",
            details={"tool": tool, "parameters": names, "problems": problems},
        )


def read_schema(function: Callable[..., Any], *, description: str | None = None) -> Schema:
    """Return the schema of a function, from its signature, annotations and docstring.

    ``function`` may be a function, a coroutine function, a generator function, async or not, a
    bound method, a ``functools.partial``, an object with ``__call__`` or a class. ``description``
    replaces the text of the docstring.

    Raises:
        ValidationFailed: it can't be called with names alone, an annotation can't be resolved or
            is of a type that no data can become, or a text or the whole is too long.

    Example:
        >>> read_schema(lambda item, count=1: item * count).parameters[1].default
        1
    """
    from snakepit_grpc_bridge.tools.schema.annotations import describe

    signature = read_signature(function)
    described = describe(signature)
    documentation = read_docstring(signature.doc)
    for name, field_schema in described.parameters["properties"].items():
        if name in documentation.parameters:
            field_schema.setdefault("description", documentation.parameters[name])
    plain = {
        "description": documentation.text if description is None else description,
        "parameters": described.parameters,
        "returns": described.returns,
        "streams": signature.streams,
        "is_async": signature.is_async,
    }
    try:
        schema = Schema.from_description(plain)
    except ValidationFailed as error:
        raise not_a_tool(signature.name, error.message) from error.__cause__
    convert = described.convert
    obvious = _obvious(schema._check, convert.plain)
    return dataclasses.replace(schema, _convert=convert, _obvious=obvious)


# --- the plain form ------------------------------------------------------------------------------


def _from_plain(given: Mapping[str, Any]) -> Schema:
    text = json.dumps(given, allow_nan=False)
    _check_size("its schema", "bytes as JSON", len(text), MOST_SCHEMA_BYTES)
    plain = json.loads(text)
    parameters = plain["parameters"]
    _check_form(plain, parameters)
    check = compile_check(parameters)
    return Schema(
        description=plain["description"],
        parameters=tuple(
            _parameter(name, schema, parameters)
            for name, schema in parameters["properties"].items()
        ),
        open_ended=parameters["additionalProperties"] is not False,
        returns=plain["returns"],
        streams=plain["streams"],
        is_async=plain["is_async"],
        _plain=plain,
        _check=check,
        _obvious=_obvious(check, check.entries),
        _required=frozenset(parameters["required"]),
    )


def _obvious(check: Check, stay: Entries | None) -> Mapping[str, frozenset[type]] | None:
    """The types of parameters that need no check, and of which values ``stay`` as they are."""
    if check.entries is None or stay is None:
        return None
    obvious = {}
    for name, right in check.entries.items():
        types = stay.get(name)
        if types is not None:
            obvious[name] = types if right is None else types & right
    return obvious


def _parameter(name: str, schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=name,
        type=_type_of(schema, parameters.get("$defs", {})),
        required=name in parameters["required"],
        default=schema.get("default"),
        description=schema.get("description", ""),
        schema=schema,
    )


def _type_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    found = schema.get("x-kind") or schema.get("type")
    return found if isinstance(found, str) else "any"


def _check_form(plain: dict[str, Any], parameters: dict[str, Any]) -> None:
    if {name: type(value) for name, value in plain.items()} != _FORM:
        raise ValueError("its parts are other ones")
    if parameters["type"] != "object":
        raise ValueError("its parameters are no mapping")
    _check_size("its description", "characters", len(plain["description"]), LONGEST_DESCRIPTION)
    _check_size("it", "parameters", len(parameters["properties"]), MOST_PARAMETERS)
    for name, schema in parameters["properties"].items():
        if not PARAMETER_NAME.fullmatch(name):
            raise ValidationFailed(
                f"{name!r:.100} is no name for a parameter; use at most 64 of the letters a to z, "
                "A to Z, digits and _"
            )
        text = schema.get("description", "")
        if not isinstance(text, str):
            raise TypeError("a description is text")
        what = f"the description of {name!r}"
        _check_size(what, "characters", len(text), LONGEST_PARAMETER_DESCRIPTION)


def _check_size(what: str, unit: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValidationFailed(f"{what} has {size} {unit}, and may have {limit}; shorten it")


def _without_ours(schema: Any) -> Any:
    """Return a JSON Schema without our keywords; names of fields and values are no keywords."""
    if isinstance(schema, list):
        return [_without_ours(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for keyword, value in schema.items():
        if keyword in ("properties", "$defs", "patternProperties"):
            result[keyword] = {name: _without_ours(each) for name, each in value.items()}
        elif keyword in ("default", "enum", "const", "examples"):
            result[keyword] = copy.deepcopy(value)
        elif keyword not in _OURS:
            result[keyword] = _without_ours(value)
    return result
