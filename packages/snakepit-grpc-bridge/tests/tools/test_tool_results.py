"""What a tool gives as it travels."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pydantic
import pytest
import tool_functions as tools

from snakepit.errors import EncodeError
from snakepit.wire import codec
from snakepit_grpc_bridge.tools.schema import plain_result, read_schema


class Page(pydantic.BaseModel):
    url: pydantic.HttpUrl
    key: pydantic.SecretStr
    read_on: date = pydantic.Field(serialization_alias="readOn")


PAGE = Page(url="http://a.b/c", key="hunter2", read_on=date(2024, 2, 29))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        ([1, "a", b"b", 2.5], [1, "a", b"b", 2.5]),
        (tools.Color.RED, "red"),
        (tools.Pair(1), (1, "r")),
        (tools.Point(1), {"x": 1}),
        ({tools.Point(1)}, [{"x": 1}]),
        ({"a": [tools.Point(1)]}, {"a": [{"x": 1}]}),
        ({tools.Color.RED: frozenset({tools.Size.LARGE})}, {"red": frozenset({2})}),
        (OrderedDict(a=deque([1])), {"a": [1]}),
        (PAGE, {"url": "http://a.b/c", "key": "**********", "readOn": date(2024, 2, 29)}),
        (ipaddress.ip_address("::1"), "::1"),
        (Fraction(1, 2), "1/2"),
        (Decimal("1.10"), Decimal("1.10")),
    ],
)
def test_results(value: Any, plain: Any) -> None:
    result = plain_result(value)
    assert (type(result), result) == (type(plain), plain)
    assert codec.decode(codec.encode(result)) == plain


def test_large_results_are_not_copied() -> None:
    numbers, array = [0.5] * 1000, np.zeros(5)
    result = plain_result({"numbers": numbers, "array": array})
    assert result["numbers"] is numbers
    assert result["array"] is array


def test_what_does_not_travel_is_left_to_the_codec() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ({"a": [object()]}, {"a": endless}):
        with pytest.raises(EncodeError, match=r"value\.a"):
            codec.encode(plain_result(value))


@pytest.mark.parametrize(
    ("function", "returns"),
    [
        (tools.price, {"type": "number"}),
        (tools.counts, {"type": "integer"}),
        (tools.lines, {"type": "string"}),
    ],
)
def test_the_declared_result_is_described(function: Any, returns: dict[str, Any]) -> None:
    assert read_schema(function).returns == returns


def test_a_model_is_described_as_it_is_sent() -> None:
    def function() -> Page: ...  # type: ignore[empty-body]

    schema = read_schema(function).returns
    assert list(schema["$defs"]["Page"]["properties"]) == ["url", "key", "readOn"]
