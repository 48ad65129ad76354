"""The golden vectors of values: bytes that must not change, for workers in any language.

Each vector of ``values.json`` has ``hex`` (the encoding), ``value`` (a description: plain
JSON, or an object with the one key ``$type``-like tag, as ``described`` reads it) and ``sent``:
false for encodings that are accepted but never made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from snakepit.errors import DecodeError, SnakepitError, error_from_wire
from snakepit.testing.golden import GOLDEN_VECTORS
from snakepit.wire.codec import decode, encode, resolve
from snakepit.wire.explain import MAX_DEPTH
from snakepit.wire.memory import create_memory
from snakepit.wire.segments import IncomingSegments, Leases
from snakepit.wire.values import Ext

GOLDEN = json.loads((GOLDEN_VECTORS / "values.json").read_text())


def zoned(text: str, offset: int | None, zone: str | None, fold: int) -> datetime:
    moment = datetime.fromisoformat(text).replace(fold=fold)
    if zone is not None:
        return moment.replace(tzinfo=ZoneInfo(zone))
    return moment if offset is None else moment.replace(tzinfo=utc_offset(offset))


def utc_offset(microseconds: int) -> timezone:
    return timezone(timedelta(microseconds=microseconds))


def zoned_time(text: str, offset: int | None, zone: str | None, fold: int) -> time:
    moment = zoned(f"2000-01-01T{text}", offset, zone, fold)
    return moment.timetz()


def array(dtype: Any, shape: list[int], order: Any, elements: str) -> Any:
    return np.ndarray(shape, fields(dtype), buffer=bytes.fromhex(elements), order=order)


def fields(dtype: Any) -> Any:
    if isinstance(dtype, str):
        return np.dtype(dtype)
    return np.dtype([(name, fields(kind), *map(tuple, shape)) for name, kind, *shape in dtype])


TAGS: dict[str, Callable[[Any], Any]] = {
    "$int": int,
    "$float": float,
    "$bytes": bytes.fromhex,
    "$map": lambda pairs: {described(key): described(item) for key, item in pairs},
    "$tuple": lambda items: tuple(map(described, items)),
    "$set": lambda items: set(map(described, items)),
    "$frozenset": lambda items: frozenset(map(described, items)),
    "$datetime": lambda parts: zoned(*parts),
    "$date": date.fromisoformat,
    "$time": lambda parts: zoned_time(*parts),
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$path": Path,
    "$complex": lambda parts: complex(*map(float, parts)),
    "$array": lambda parts: array(*parts),
    "$array_scalar": lambda parts: array(*parts)[()],
    "$error": error_from_wire,
}


def described(description: Any) -> Any:
    """Return the value that ``description`` stands for."""
    if isinstance(description, list):
        return [described(item) for item in description]
    if not isinstance(description, dict):
        return description
    tag = next(iter(description), "")
    if tag.startswith("$"):
        return TAGS[tag](description[tag])
    return {key: described(item) for key, item in description.items()}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, SnakepitError):
        return type(one) is type(other) and one.__dict__ == other.__dict__
    if isinstance(one, (np.ndarray, np.generic)):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and one.tobytes() == other.tobytes()
        )
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda vector: vector["name"])
def test_golden_vectors(vector: dict[str, Any]) -> None:
    value, data = described(vector["value"]), bytes.fromhex(vector["hex"])
    assert equal(decode(data), value)
    if vector.get("sent", True):
        assert encode(value).hex() == vector["hex"]


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda vector: vector["name"])
def test_golden_refusals(vector: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(vector["hex"]))


@pytest.fixture
def incoming() -> Iterator[IncomingSegments]:
    """The receiver of the golden file's segment."""
    content = bytes.fromhex(GOLDEN["segment"]["content"])
    memory, fd = create_memory(len(content))
    memory[:] = content
    segments = IncomingSegments(lambda _: None, lambda: None)
    segments.opened(GOLDEN["segment"]["id"], len(content), fd)
    os.close(fd)
    yield segments
    segments.close()


@pytest.mark.parametrize("vector", GOLDEN["in_segment"], ids=lambda vector: vector["name"])
def test_golden_values_in_a_segment(vector: dict[str, Any], incoming: IncomingSegments) -> None:
    body = resolve(bytes.fromhex(vector["hex"]), Leases(incoming))
    found, expected = body.content(), described(vector["value"])
    pairs = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
    assert all(equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("vector", GOLDEN["in_segment_refused"], ids=lambda vector: vector["name"])
def test_golden_refusals_in_a_segment(vector: dict[str, Any], incoming: IncomingSegments) -> None:
    with pytest.raises(SnakepitError) as caught:
        resolve(bytes.fromhex(vector["hex"]), Leases(incoming)).content()
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("vector", GOLDEN["in_segment"], ids=lambda vector: vector["name"])
def test_without_segments_a_reference_to_one_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(vector["hex"]))


def test_the_golden_file_names_every_extension_and_the_limit() -> None:
    assert GOLDEN["extensions"] == {kind.name.lower(): kind.value for kind in Ext}
    assert GOLDEN["max_depth"] == MAX_DEPTH
    vectors = (*GOLDEN["vectors"], *GOLDEN["in_segment"])
    names = " ".join(vector["name"] for vector in vectors)
    for kind in Ext:
        assert kind.name.lower().replace("_", " ") in names
