"""From values that were read to what annotations say. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

import pydantic

from snakepit_grpc_bridge.tools.schema.problems import Problems, Unconvertible, Where, clip

__all__ = ["OTHERS", "Converter"]

#: The name under which further named values go through pydantic; no parameter can have it.
OTHERS: Final = "**"
_LONGEST_MESSAGE = 200
_NO_TYPES: Final[frozenset[type]] = frozenset()
#: pydantic's errors that say that a value is of another type.
_OF_TYPES: Final = re.compile(
    r".*_(type|parsing)|missing.*|unexpected_.*|extra_forbidden|enum|literal_error|none_required"
)


class Converter:
    """Makes what the annotations say of values that were read; raises Unconvertible.

    ``adapter`` takes a mapping of parameters, and of ``OTHERS``; ``names`` are the parameters, and
    ``hidden`` what is bound already. ``plain``: of each parameter the types of which values stay as
    they are; None if that is true of none, or something is added.
    """

    def __init__(
        self,
        adapter: pydantic.TypeAdapter[Any],
        names: frozenset[str],
        hidden: frozenset[str],
        plain: Mapping[str, frozenset[type]] | None,
    ) -> None:
        self._adapter = adapter
        self._names = names
        self._hidden = hidden
        self.plain = plain

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        plain = self.plain
        if plain is None:
            return self._converted(values)
        for name, value in values.items():
            if type(value) not in plain.get(name, _NO_TYPES):
                return self._converted(values)
        return dict(values)

    def _converted(self, values: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in values.items() if name in self._names}
        if len(fields) < len(values):
            others = {name: value for name, value in values.items() if name not in self._names}
            # A function that takes any name must not get one that is bound already.
            if not self._hidden.isdisjoint(others):
                raise Unconvertible([f"unknown: {name}" for name in others if name in self._hidden])
            fields[OTHERS] = others
        try:
            converted: dict[str, Any] = self._adapter.validate_python(fields)
        except pydantic.ValidationError as error:
            # pydantic's own error shows what was given, which may be private.
            raise Unconvertible(_texts(error, values)) from _cause_of(error)
        except Exception as error:  # a validator of a user's type is any code
            problem = f"a validator of its types failed with {type(error).__name__}"
            raise Unconvertible([problem]) from error
        converted |= converted.pop(OTHERS, {})
        return converted


def _texts(error: pydantic.ValidationError, values: dict[str, Any]) -> list[str]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # That values have the types was seen before: what tells otherwise is of a union's other types.
    telling = [each for each in found if not _OF_TYPES.fullmatch(each["type"])]
    problems = Problems()
    for each in telling or found:
        message = each["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        problems.add(_place(each["loc"], values), clip(message, _LONGEST_MESSAGE))
        if problems.enough:
            break
    return problems.texts()


def _cause_of(error: pydantic.ValidationError) -> Exception | None:
    """Return what the first validator of a user's type raised, if it was one."""
    for each in error.errors(include_url=False, include_input=False):
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, Exception):
            return cause
    return None


def _place(steps: tuple[Any, ...], values: Any) -> Where:
    """Return the way to a value; pydantic's has names of types and validators in between."""
    where: Where = None
    for step in steps:
        if isinstance(values, (Mapping, list, tuple)):
            with contextlib.suppress(LookupError, TypeError):
                where, values = (where, step), values[step]
    return where
