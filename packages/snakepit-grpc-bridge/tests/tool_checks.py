"""How tests check one value against one annotation, on both sides of a call."""

from __future__ import annotations

import json
from typing import Any

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema import Schema, read_schema


class Refused(list[str]):
    """The problems of a call that was refused."""


def schema_of(annotation: Any) -> Schema:
    """The schema of a function with one parameter, ``v``."""

    def function(v: Any) -> None: ...

    function.__annotations__ = {"v": annotation}
    return read_schema(function)


def sent(schema: Schema) -> Schema:
    """The schema as the other side has it."""
    return Schema.from_description(json.loads(json.dumps(schema.describe())))


def checked(schema: Schema, value: Any) -> Any:
    """What is passed on of a value, or why not."""
    try:
        return schema.check("tool", {"v": value})["v"]
    except ValidationFailed as error:
        return Refused(error.details["problems"])
