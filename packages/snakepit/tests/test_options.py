"""Options that users pass: what is taken, and what is refused with the option's name."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import ConfigurationError
from snakepit.options import USE_DEFAULT, seconds, whole_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (5e-324, 5e-324),
        (timedelta(milliseconds=1500), 1.5),
        (timedelta(microseconds=1), 1e-6),
        (timedelta(days=2), 172_800.0),
    ],
)
def test_durations(value: float | timedelta, expected: float) -> None:
    found = seconds("timeout", value)
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        0,
        0.0,
        -0.0,
        -1,
        -1e-9,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        timedelta(0),
        timedelta(seconds=-1),
        True,
        None,
        "1",
        Decimal(1),
        [1],
        USE_DEFAULT,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_duration_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^grace is .*positive number of seconds") as err:
        seconds("grace", value)
    assert err.value.details == {"option": "grace"}


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_every_finite_positive_number_is_a_duration(value: float) -> None:
    assert seconds("timeout", value) == value


@pytest.mark.parametrize(("value", "least"), [(1, 1), (10**20, 1), (0, 0), (-3, -3)])
def test_counts(value: int, least: int) -> None:
    assert whole_number("size", value, least=least) == value


@pytest.mark.parametrize(
    ("value", "least"),
    [(0, 1), (-1, 0), (1.0, 1), (True, 1), (False, 0), ("2", 1), (None, 1), (math.nan, 1)],
)
def test_what_is_no_count_is_refused_by_name_and_with_the_least(value: Any, least: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^size is .* at least {least}$") as err:
        whole_number("size", value, least=least)
    assert err.value.details == {"option": "size"}


def test_the_default_shows_as_its_name_in_signatures() -> None:
    assert repr(USE_DEFAULT) == "USE_DEFAULT"
