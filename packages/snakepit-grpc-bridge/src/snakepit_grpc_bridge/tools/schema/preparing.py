"""Annotations as pydantic takes them: what it refuses is put in other words. Pure."""

from __future__ import annotations

import collections.abc
import operator
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typing_extensions
from pydantic import Field

from snakepit_grpc_bridge.tools.schema.arrays import ABSTRACT_DTYPES
from snakepit_grpc_bridge.tools.schema.kinds import KINDS

__all__ = ["is_array", "prepared", "typed_dict"]


@dataclass(frozen=True, slots=True)
class _Array:
    """Says in an annotation what the elements of an array are."""

    dtype: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {**KINDS["ndarray"].form, "x-kind": "ndarray", "x-dtype": self.dtype}


def is_array(cls: object) -> bool:
    """Say whether a class is numpy's array; never imports numpy."""
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and cls is numpy.ndarray


def prepared(annotation: Any) -> Any:
    """Return an annotation for pydantic.

    - Text beside a type, ``Annotated[int, "how many"]`` or ``Doc("how many")``, describes it.
    - ``NDArray[float64]`` keeps the type of its elements.
    - An ``Iterable`` becomes a list.
    - ``typing.TypedDict`` becomes that of typing_extensions, which pydantic asks for before
      Python 3.12.
    """
    return _Preparing().prepare(annotation)


class _Preparing:
    def __init__(self) -> None:
        self._twins: dict[Any, Any] = {}  # a TypedDict may hold itself

    def prepare(self, annotation: Any) -> Any:
        origin = typing.get_origin(annotation)
        if is_array(origin):
            return _array(annotation)
        if origin is typing.Annotated:
            return self._annotated(annotation)
        if sys.version_info < (3, 12) and typing.is_typeddict(annotation):
            return self._twin(annotation)
        if origin in (None, typing.Literal):
            return annotation
        return self._generic(annotation, origin)

    def _annotated(self, annotation: Any) -> Any:
        described = [_described(each) for each in annotation.__metadata__]
        return typing.Annotated[self.prepare(annotation.__origin__), *described]

    def _generic(self, annotation: Any, origin: Any) -> Any:
        arguments = typing.get_args(annotation)
        ready = tuple(self.prepare(each) for each in arguments)
        if origin is collections.abc.Iterable:
            # For pydantic it is an iterator, whose items are read too late, while the tool runs.
            return types.GenericAlias(list, ready or (Any,))
        if all(map(operator.is_, arguments, ready)):
            return annotation
        if origin in (typing.Union, types.UnionType):
            return typing.Union[ready]  # noqa: UP007 - made of a tuple
        return origin[ready]

    def _twin(self, cls: Any) -> Any:
        if type(cls).__module__ != "typing":
            return cls
        if cls not in self._twins:
            twin = typed_dict(cls.__name__, {})
            self._twins[cls] = twin
            hints = typing.get_type_hints(cls, include_extras=True)
            twin.__annotations__ = {
                name: self._with_presence(name, hint, cls) for name, hint in hints.items()
            }
            twin.__required_keys__, twin.__optional_keys__ = frozenset(hints), frozenset()
            twin.__doc__, twin.__module__ = cls.__doc__, cls.__module__
            config = getattr(cls, "__pydantic_config__", None)
            if config is not None:
                twin.__pydantic_config__ = config
        return self._twins[cls]

    def _with_presence(self, name: str, hint: Any, cls: Any) -> Any:
        if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
            (inner,) = typing.get_args(hint)
            return typing.get_origin(hint)[self.prepare(inner)]
        presence: Any = typing.Required if name in cls.__required_keys__ else typing.NotRequired
        return presence[self.prepare(hint)]


def typed_dict(name: str, fields: Mapping[str, Any]) -> Any:
    """Return a TypedDict with fields that a call may leave out, for pydantic."""
    make: Any = typing_extensions.TypedDict
    return make(name, dict(fields), total=False)


def _described(metadata: Any) -> Any:
    text = metadata if isinstance(metadata, str) else getattr(metadata, "documentation", None)
    return Field(description=text) if isinstance(text, str) else metadata


def _array(annotation: Any) -> Any:
    """Return numpy's array with its element type, where one single type is given."""
    numpy: Any = sys.modules["numpy"]
    elements = typing.get_args(annotation)[1:]
    scalar = next((each for kind in elements for each in typing.get_args(kind)), None)
    if not isinstance(scalar, type) or not issubclass(scalar, numpy.generic):
        return numpy.ndarray
    name = scalar.__name__
    if name in ABSTRACT_DTYPES:
        return typing.Annotated[numpy.ndarray, _Array(name)]
    if scalar in (numpy.generic, numpy.flexible, numpy.character):
        return numpy.ndarray
    return typing.Annotated[numpy.ndarray, _Array(numpy.dtype(scalar).name)]
