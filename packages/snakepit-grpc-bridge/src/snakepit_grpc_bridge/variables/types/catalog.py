"""The built-in types, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from snakepit_grpc_bridge.variables.types import arrays, embeddings, handles, limits, plain, scalars
from snakepit_grpc_bridge.variables.types.datetimes import read_moment
from snakepit_grpc_bridge.variables.types.secret import Secret, read_secret
from snakepit_grpc_bridge.variables.types.variable_type import VariableType

__all__ = ["BUILT_IN"]

_LOCATION: Final = limits.pattern(lambda handle: handle.location)


def _is(*classes: type) -> Callable[[Any], bool]:
    return lambda plain: type(plain) in classes


#: In the order in which they are tried for a value without a type: a bool is an int, too.
BUILT_IN: Final[tuple[VariableType[Any], ...]] = (
    VariableType(
        name="boolean",
        expects="True or False",
        read=scalars.read_boolean,
        inferred_from=(bool,),
        recognises=_is(bool),
    ),
    VariableType(
        name="integer",
        expects="a whole number",
        read=scalars.read_integer,
        constraints=(*limits.bounds("a whole number", scalars.read_integer), limits.INTEGER_STEP),
        inferred_from=(int,),
        recognises=_is(int),
    ),
    VariableType(
        name="float",
        expects="a number",
        read=scalars.read_float,
        constraints=(*limits.bounds("a number", scalars.read_float), limits.FLOAT_STEP),
        inferred_from=(float,),
        recognises=_is(float),
    ),
    VariableType(
        name="string",
        expects="text",
        read=scalars.read_string,
        constraints=(
            *limits.lengths("characters"),
            limits.pattern(),
            limits.choices(scalars.read_string),
        ),
        inferred_from=(str,),
        recognises=_is(str),
    ),
    VariableType(
        name="binary",
        expects="bytes",
        read=scalars.read_binary,
        constraints=limits.lengths("bytes"),
        inferred_from=(bytes, bytearray, memoryview),
        recognises=_is(bytes),
    ),
    VariableType(
        name="datetime",
        expects="a datetime with a zone",
        read=read_moment,
        constraints=limits.bounds("a datetime with a zone", read_moment),
        inferred_from=(datetime,),
        recognises=_is(datetime),
    ),
    VariableType(
        name="list",
        expects="a list of plain data",
        read=plain.read_list,
        constraints=limits.lengths("items"),
        inferred_from=(list, tuple),
        copy=plain.copy_plain,
        recognises=_is(list),
    ),
    VariableType(
        name="map",
        expects="a mapping of text to plain data",
        read=plain.read_map,
        constraints=limits.lengths("entries"),
        inferred_from=(Mapping,),
        copy=plain.copy_plain,
        recognises=_is(dict),
    ),
    VariableType(
        name="choice",
        expects="one of its choices",
        read=scalars.read_choice,
        constraints=(limits.choices(scalars.read_choice),),
        required=("choices",),
        recognises=_is(str, int, float, bool),
    ),
    VariableType(
        name="tensor",
        expects="an array",
        read=arrays.read_tensor,
        constraints=(limits.SHAPE, limits.DTYPE),
        copy=arrays.view_of,
        recognises=arrays.is_array,
    ),
    VariableType(
        name="embedding",
        expects="a list of numbers",
        read=embeddings.read_embedding,
        constraints=(limits.DIMENSIONS,),
        to_plain=embeddings.pack,
        from_plain=embeddings.unpack,
    ),
    VariableType(
        name="model",
        expects="a ModelHandle",
        read=handles.handle_reader(handles.ModelHandle),
        constraints=(_LOCATION,),
        inferred_from=(handles.ModelHandle,),
        copy=handles.copy_handle,
        to_plain=handles.handle_to_plain,
        from_plain=handles.handle_reader(handles.ModelHandle),
    ),
    VariableType(
        name="dataset",
        expects="a DatasetHandle",
        read=handles.handle_reader(handles.DatasetHandle),
        constraints=(_LOCATION,),
        inferred_from=(handles.DatasetHandle,),
        copy=handles.copy_handle,
        to_plain=handles.handle_to_plain,
        from_plain=handles.handle_reader(handles.DatasetHandle),
    ),
    VariableType(
        name="module",
        expects="a dotted path, such as 'dspy.Predict'",
        read=handles.read_module,
        constraints=(limits.pattern(), limits.choices(handles.read_module)),
        recognises=_is(str),
    ),
    VariableType(
        name="secret",
        expects="text, or a Secret",
        read=read_secret,
        constraints=limits.lengths("characters", lambda secret: len(secret.reveal())),
        inferred_from=(Secret,),
        private=True,
    ),
    VariableType(
        name="any",
        expects="plain data",
        read=plain.read_any,
        inferred_from=(
            *(type(None), date, time, timedelta, Decimal, UUID, complex, PurePath),
            *(set, frozenset),
        ),
        copy=plain.copy_plain,
    ),
)
