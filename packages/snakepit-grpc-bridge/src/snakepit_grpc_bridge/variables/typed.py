"""Variables as the fields of a class: a pydantic model or a dataclass. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from snakepit_grpc_bridge.errors import ValidationFailed

__all__ = ["field_names", "fields_of", "from_fields"]

Model = TypeVar("Model")


def field_names(model: type[Any]) -> tuple[str, ...]:
    """The names of the fields of a model class.

    Raises:
        ValidationFailed: it is neither a dataclass nor a pydantic model.
    """
    if dataclasses.is_dataclass(model) and isinstance(model, type):
        return tuple(each.name for each in dataclasses.fields(model) if each.init)
    fields = getattr(model, "model_fields", None)
    if isinstance(fields, Mapping) and isinstance(model, type):
        return tuple(fields)
    raise ValidationFailed(
        f"variables are read as a dataclass or a pydantic model, and {model!r:.100} is neither"
    )


def from_fields(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return an instance of a model class with these fields; the others have their defaults.

    Raises:
        ValidationFailed: a field without default is missing, or the class refuses a value.
    """
    try:
        return model(**values)
    except (TypeError, ValueError) as error:
        missing = [name for name in field_names(model) if name not in values]
        hint = f" (not set: {', '.join(missing)})" if missing else ""
        raise ValidationFailed(
            f"the variables do not make a {model.__name__}{hint}: {error}"
        ) from error


def fields_of(instance: object) -> dict[str, Any]:
    """The fields of an instance of a model class, by name.

    Raises:
        ValidationFailed: its class is neither a dataclass nor a pydantic model.
    """
    return {name: getattr(instance, name) for name in field_names(type(instance))}
