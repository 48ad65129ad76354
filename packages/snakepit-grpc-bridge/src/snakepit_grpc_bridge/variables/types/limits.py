"""The constraints of the built-in types. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from snakepit_grpc_bridge.errors import shown
from snakepit_grpc_bridge.variables.types import arrays, scalars
from snakepit_grpc_bridge.variables.types.unfit import Unfit
from snakepit_grpc_bridge.variables.types.variable_type import Check, Constraint

__all__ = [
    "DIMENSIONS",
    "DTYPE",
    "FLOAT_STEP",
    "INTEGER_STEP",
    "SHAPE",
    "bounds",
    "choices",
    "lengths",
    "pattern",
]

Read = Callable[[Any], Any]

#: The part of a step by which a float may miss it, as a sum of 0.1 and 0.1 and so on does.
_OFF_STEP: Final = 1e-6
_MOST_SHOWN: Final = 10
_LONGEST_SHOWN: Final = 100
_LONGEST_PATTERN: Final = 1000
_MOST_DIMENSIONS: Final = 64


# --- what can be compared ------------------------------------------------------------------------


def bounds(expects: str, read: Read) -> tuple[Constraint, Constraint]:
    """Return the constraints ``min`` and ``max`` for values any two of which can be compared.

    ``expects`` and ``read`` are of the limits, as in :class:`Constraint`.

    Example:
        >>> least, most = bounds("a number", float)
        >>> least.check(0.0, {})(-1.0)
        'must be at least 0.0'
    """

    def read_limit(value: Any) -> Any:
        limit = read(value)
        if limit != limit:  # NaN, of whatever class
            raise Unfit
        return limit

    return (
        Constraint(name="min", expects=expects, read=read_limit, check=_at_least),
        Constraint(name="max", expects=expects, read=read_limit, check=_at_most),
    )


# Written so that NaN, which is neither above nor below, is refused.


def _at_least(limit: Any, _limits: Mapping[str, Any]) -> Check:
    return lambda value: None if value >= limit else f"must be at least {_text(limit)}"


def _at_most(limit: Any, _limits: Mapping[str, Any]) -> Check:
    return lambda value: None if value <= limit else f"must be at most {_text(limit)}"


def _read_float_step(value: Any) -> float:
    step = scalars.read_float(value)
    if not 0 < step < math.inf:
        raise Unfit
    return step


def _read_integer_step(value: Any) -> int:
    step = scalars.read_integer(value)
    if step <= 0:
        raise Unfit
    return step


def _float_step(step: float, limits: Mapping[str, Any]) -> Check:
    base = limits.get("min", 0.0)
    base = base if math.isfinite(base) else 0.0

    def check(value: float) -> str | None:
        on_step = math.isfinite(value) and _misses(value, base, step) <= _tolerance(
            value, base, step
        )
        return None if on_step else _off_step(step, base)

    return check


def _misses(value: float, base: float, step: float) -> float:
    # By remainders, which are exact; the difference of value and base may not be.
    return abs(math.remainder(math.remainder(value, step) - math.remainder(base, step), step))


def _tolerance(value: float, base: float, step: float) -> float:
    # Or, where steps are finer than floats are, what floats can't tell apart.
    return max(step * _OFF_STEP, 4 * math.ulp(max(abs(value), abs(base))))


def _integer_step(step: int, limits: Mapping[str, Any]) -> Check:
    base = limits.get("min", 0)
    return lambda value: None if (value - base) % step == 0 else _off_step(step, base)


def _off_step(step: float, base: float) -> str:
    return f"must be {_text(base)} plus or minus a multiple of {_text(step)}"


FLOAT_STEP: Final = Constraint(
    name="step", expects="a number above 0", read=_read_float_step, check=_float_step
)
INTEGER_STEP: Final = Constraint(
    name="step", expects="a whole number above 0", read=_read_integer_step, check=_integer_step
)


# --- what has a length ---------------------------------------------------------------------------


def lengths(unit: str, size: Callable[[Any], int] = len) -> tuple[Constraint, Constraint]:
    """Return the constraints ``min_length`` and ``max_length`` for values of that many ``unit``.

    Example:
        >>> shortest, longest = lengths("characters")
        >>> longest.check(2, {})("abc")
        'must have at most 2 characters'
    """

    def longer(limit: int, _limits: Mapping[str, Any]) -> Check:
        return lambda value: None if size(value) >= limit else f"must have at least {limit} {unit}"

    def shorter(limit: int, _limits: Mapping[str, Any]) -> Check:
        return lambda value: None if size(value) <= limit else f"must have at most {limit} {unit}"

    return (
        Constraint(name="min_length", expects=_COUNT, read=_read_count, check=longer),
        Constraint(name="max_length", expects=_COUNT, read=_read_count, check=shorter),
    )


_COUNT: Final = "a whole number of at least 0"


def _read_count(value: Any) -> int:
    count = scalars.read_integer(value)
    if count < 0:
        raise Unfit
    return count


def _dimensions(count: int, _limits: Mapping[str, Any]) -> Check:
    def check(value: Any) -> str | None:
        return None if len(value) == count else f"must have {count} dimensions, it has {len(value)}"

    return check


DIMENSIONS: Final = Constraint(
    name="dimensions", expects=_COUNT, read=_read_count, check=_dimensions
)


# --- what is one of several ----------------------------------------------------------------------


def choices(read: Read) -> Constraint:
    """Return the constraint ``choices`` for values that ``read`` reads."""

    def read_choices(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or not value:
            raise Unfit
        found = tuple(read(item) for item in value)
        if any(item != item for item in found):  # NaN, which equals nothing
            raise Unfit
        return found

    return Constraint(
        name="choices",
        expects="a list of such values that is not empty",
        read=read_choices,
        check=_among,
    )


def _among(allowed: tuple[Any, ...], _limits: Mapping[str, Any]) -> Check:
    # 1 == True: a choice is one of the listed values in type, too.
    known = frozenset((type(choice), choice) for choice in allowed)
    listed = ", ".join(map(_text, allowed[:_MOST_SHOWN]))
    more = f" and {len(allowed) - _MOST_SHOWN} more" if len(allowed) > _MOST_SHOWN else ""
    return lambda value: None if (type(value), value) in known else f"must be one of {listed}{more}"


def pattern(text_of: Callable[[Any], str] = str) -> Constraint:
    """Return the constraint ``pattern``: a regular expression that all of the text must match.

    The expressions are Rust's, by way of pydantic: no look-around and no references back, and so
    a time that grows with the text's length only, whatever the expression.
    """

    def check(expression: str, _limits: Mapping[str, Any]) -> Check:
        matches = _matcher(expression)
        return lambda value: (
            None if matches(text_of(value)) else f"must match the pattern {_text(expression)}"
        )

    return Constraint(
        name="pattern",
        expects=f"a regular expression of at most {_LONGEST_PATTERN} characters, without "
        "look-around and references back",
        read=_read_pattern,
        check=check,
    )


def _read_pattern(value: Any) -> str:
    expression = scalars.read_string(value)
    if len(expression) > _LONGEST_PATTERN:
        raise Unfit
    _matcher(expression)
    return expression


def _matcher(expression: str) -> Callable[[str], bool]:
    # Imported here: it takes longer than all of this package, and few types need it.
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        # On its own first: "a)|(?:b" is none, though it would fit into the other.
        _, whole = (
            SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))
            for text in (expression, rf"\A(?:{expression})\z")
        )
    except SchemaError as error:
        raise Unfit from error
    return whole.isinstance_python


# --- arrays --------------------------------------------------------------------------------------


def _read_shape(value: Any) -> tuple[int | None, ...]:
    if type(value) not in (list, tuple) or len(value) > _MOST_DIMENSIONS:
        raise Unfit
    return tuple(None if size is None else _read_count(size) for size in value)


def _shape(shape: tuple[int | None, ...], _limits: Mapping[str, Any]) -> Check:
    def check(value: Any) -> str | None:
        fits = len(value.shape) == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, value.shape, strict=True)
        )
        return None if fits else f"must have the shape {shape}, it has {value.shape}"

    return check


SHAPE: Final = Constraint(
    name="shape",
    expects="a list of sizes, None where any size will do",
    read=_read_shape,
    check=_shape,
)


def _dtype(name: str, _limits: Mapping[str, Any]) -> Check:
    wanted = arrays.dtype_of(name)
    return lambda value: (
        None if value.dtype == wanted else f"must have the dtype {name}, it has {value.dtype}"
    )


DTYPE: Final = Constraint(
    name="dtype",
    expects="the name of a numpy dtype, such as 'float32'",
    read=arrays.read_dtype_name,
    check=_dtype,
)


def _text(limit: object) -> str:
    if isinstance(limit, str):
        return repr(limit) if len(limit) <= _LONGEST_SHOWN else f"{limit[:_LONGEST_SHOWN]!r}..."
    return shown(limit) if isinstance(limit, (int, float)) else str(limit)
