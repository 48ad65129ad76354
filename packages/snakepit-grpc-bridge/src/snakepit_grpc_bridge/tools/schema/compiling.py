"""Reads the values of a call as the plain description of a tool says. Pure; keeps no state.

The description is JSON Schema (2020-12) as pydantic writes it, with keywords of our own:

===========  =====================================================================================
``x-kind``   which of :data:`~.kinds.KINDS` a value is of, or ``tuple``, ``set``, ``frozenset``
``x-dtype``  the element type of an array, by numpy's name
``x-keys``   what the keys of a mapping are, if they are not text
``x-finite`` the number may be neither infinite nor NaN
===========  =====================================================================================

What JSON Schema has beyond that (``pattern``, ``format``, ``multipleOf``, ...) is left to the side
that has the function: regular expressions from a peer never run here.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from snakepit_grpc_bridge.tools.schema.arrays import Unfit, read_array
from snakepit_grpc_bridge.tools.schema.check import Check, Entries
from snakepit_grpc_bridge.tools.schema.choices import (
    by_type,
    choice,
    is_among,
    near_to,
    tagged_union,
    union,
)
from snakepit_grpc_bridge.tools.schema.constraints import bounds_of, check_bounds, sizes_of
from snakepit_grpc_bridge.tools.schema.kinds import KINDS
from snakepit_grpc_bridge.tools.schema.problems import Problems, Where, clip
from snakepit_grpc_bridge.tools.schema.travel import as_it_travels, type_name

__all__ = ["compile_check"]

_ARRAY_KINDS: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_INTEGER_TEXT = re.compile(r"0|-?[1-9][0-9]{0,99}")


def compile_check(schema: Mapping[str, Any]) -> Check:
    """Return the check of values against a description.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, RecursionError: it is no such description.
    """
    return _Compiler(schema.get("$defs", {})).check(schema)


class _Compiler:
    """Compiles a schema once, its definitions when they are first referred to."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._compiled: dict[str, Check | None] = {}

    def check(self, schema: Any) -> Check:
        if schema is True:
            return _ANYTHING
        for keyword, build in _BY_KEYWORD:
            if keyword in schema:
                return build(self, schema)
        types = schema.get("type")
        if types is None:
            return _ANYTHING
        if isinstance(types, list):
            return union([_BY_TYPE[each](self, schema) for each in types])
        return _BY_TYPE[types](self, schema)

    def reference(self, schema: Mapping[str, Any]) -> Check:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name not in self._compiled:
            self._compiled[name] = None
            self._compiled[name] = self.check(self._definitions[name])
        found = self._compiled[name]
        if found is not None:
            return found

        def read_itself(value: Any, where: Where, problems: Problems) -> Any:
            check = self._compiled[name]
            return None if check is None else check.read(value, where, problems)

        def misfits(value: Any) -> int | None:
            check = self._compiled[name]
            return None if check is None else check.misfits(value)

        # It refers to itself, and is still being compiled.
        return Check(_named(self._definitions[name], "a value"), read_itself, misfits=misfits)

    def union(self, schema: Mapping[str, Any]) -> Check:
        if "discriminator" in schema:
            tag = schema["discriminator"]
            choices = {
                value: self.check({"$ref": each} if isinstance(each, str) else each)
                for value, each in tag["mapping"].items()
            }
            return tagged_union(tag["propertyName"], choices)
        choices = schema.get("anyOf") or schema["oneOf"]
        return union([self.check(choice) for choice in choices])

    def kind(self, schema: Mapping[str, Any]) -> Check:
        name = schema["x-kind"]
        if name in _ARRAY_KINDS:
            return self.array(schema)
        kind = KINDS[name]
        read = partial(read_array, dtype=schema.get("x-dtype")) if name == "ndarray" else kind.read
        expects = kind.expects + (" of " + schema["x-dtype"] if "x-dtype" in schema else "")
        return Check(expects, partial(_read_kind, expects, read))

    def choice(self, schema: Mapping[str, Any]) -> Check:
        return choice(_choices(schema))

    def integer(self, schema: Mapping[str, Any]) -> Check:
        bounds = bounds_of(schema)

        def read(value: Any, where: Where, problems: Problems) -> Any:
            value = as_it_travels(value)
            if type(value) is not int:
                return problems.unfit(where, "an integer", value)
            check_bounds(bounds, value, where, problems)
            return value

        return Check("an integer", read, frozenset() if bounds else frozenset({int}))

    def number(self, schema: Mapping[str, Any]) -> Check:
        bounds = bounds_of(schema)
        finite = schema.get("x-finite", False)

        def read(value: Any, where: Where, problems: Problems) -> Any:
            given = as_it_travels(value)
            if type(given) not in (float, int):
                return problems.unfit(where, "a number", value)
            number = _as_float(given)
            if number is None:
                return problems.add(where, "is an integer too large to be exact as a float")
            if finite and not math.isfinite(number):
                problems.add(where, "must be finite")
            check_bounds(bounds, number, where, problems)
            return number

        return Check("a number", read, frozenset() if bounds or finite else frozenset({float}))

    def text(self, schema: Mapping[str, Any]) -> Check:
        sizes = sizes_of(schema, "string")

        def read(value: Any, where: Where, problems: Problems) -> Any:
            value = as_it_travels(value)
            if type(value) is not str:
                return problems.unfit(where, "text", value)
            sizes.check(value, where, problems)
            return value

        return Check("text", read, frozenset() if sizes.unit else frozenset({str}))

    def array(self, schema: Mapping[str, Any]) -> Check:
        kind = schema.get("x-kind", "list")
        prefix = [self.check(each) for each in schema.get("prefixItems", ())]
        items = self.check(schema.get("items", True))
        sizes = sizes_of(schema, "array")
        takes = (list, tuple) if kind in {"list", "tuple"} else (list, tuple, set, frozenset)
        expects = _named(schema, "a list" if kind == "list" else f"a {kind} (or a list)")

        def read(value: Any, where: Where, problems: Problems) -> Any:
            given = as_it_travels(value)
            if not isinstance(given, takes):
                return problems.unfit(where, expects, value)
            sizes.check(given, where, problems)
            result = _read_items(prefix, items, given, where, problems)
            return result if problems.found else _container(kind, result, where, problems)

        def misfits(value: Any) -> int | None:
            return 0 if isinstance(as_it_travels(value), takes) else None

        return Check(expects, read, misfits=misfits)

    def mapping(self, schema: Mapping[str, Any]) -> Check:
        return _Fields(self, schema).as_check()


class _Fields:
    """The reader of one mapping: its fields by name, and what else it may hold."""

    def __init__(self, compiler: _Compiler, schema: Mapping[str, Any]) -> None:
        self._fields = {
            name: compiler.check(each) for name, each in schema.get("properties", {}).items()
        }
        self._required = [*dict.fromkeys(schema.get("required", ()))]
        others = schema.get("additionalProperties", True)
        # A pattern of keys is left to the side that has the function; what is under them is not.
        others = next(iter(schema.get("patternProperties", {}).values()), others)
        self._others = None if others is False else compiler.check(others)
        keys = schema.get("x-keys", {"type": "string"})
        self._keys = compiler.check(keys)
        self._numbered = keys.get("type") == "integer"
        self._sizes = sizes_of(schema, "object")
        self._tags = {
            name: by_type(_choices(each))
            for name, each in schema.get("properties", {}).items()
            if "const" in each or "enum" in each
        }
        self._expects = _named(schema, "a mapping")
        # What a mapping that needs no closer look consists of.
        self._obvious: Entries | None = None
        if not self._sizes.unit and self._fields.keys() >= {*self._required}:
            self._obvious = {name: check.plain for name, check in self._fields.items()}

    def as_check(self) -> Check:
        return Check(self._expects, self._read, misfits=self._misfits, entries=self._obvious)

    def _misfits(self, value: Any) -> int | None:
        given = as_it_travels(value)
        if not isinstance(given, Mapping):
            return None
        wrong = sum(name not in given for name in self._required)
        if self._others is None:
            wrong += sum(name not in self._fields for name in given)
        return wrong + sum(
            name in given and not is_among(as_it_travels(given[name]), known)
            for name, known in self._tags.items()
        )

    def _read(self, value: Any, where: Where, problems: Problems) -> Any:
        if type(value) is dict and self._is_obvious(value):
            return value
        given = as_it_travels(value)
        if not isinstance(given, Mapping):
            return problems.unfit(where, self._expects, value)
        self._sizes.check(given, where, problems)
        if self._is_plain(given):
            return given if type(given) is dict else dict(given)
        for name in self._required:
            if name not in given:
                problems.missing((where, name))
        if self._others is None:
            self._refuse_strangers(given, where, problems)
        result = dict(self._entries(given, where, problems))
        if len(result) < len(given) and not problems.found:
            problems.add(where, "has two keys that are the same")
        unchanged = given is value and all(
            key in result and result[key] is item for key, item in given.items()
        )
        return value if unchanged else result

    def _is_obvious(self, given: dict[Any, Any]) -> bool:
        """Say whether all fields are there, nothing else is, and their types say it all."""
        obvious = self._obvious
        if obvious is None or len(given) != len(obvious):
            return False
        for name, value in given.items():
            types = obvious.get(name, _NO_TYPES)
            if types is not None and type(value) not in types:
                return False
        return True

    def _is_plain(self, given: Any) -> bool:
        """Say whether entries need no look."""
        if self._fields or self._required or self._others is None:
            return False
        return _all_plain(self._keys, given) and _all_plain(self._others, given.values())

    def _refuse_strangers(self, given: Any, where: Where, problems: Problems) -> None:
        for name in given:
            if name not in self._fields:
                problems.unknown((where, name), near_to(name, self._fields))
            if problems.enough:
                break

    def _entries(
        self, given: Mapping[Any, Any], where: Where, problems: Problems
    ) -> Iterator[tuple[Any, Any]]:
        for key, item in given.items():
            if problems.enough:
                break
            if key in self._fields:
                yield key, self._fields[key].read(item, (where, key), problems)
            elif self._others is not None:
                read_key = self._read_key(key, where, problems)
                yield read_key, self._others.read(item, (where, key), problems)

    def _read_key(self, key: Any, where: Where, problems: Problems) -> Any:
        if self._numbered and isinstance(key, str) and _INTEGER_TEXT.fullmatch(key):
            key = int(key)  # in JSON all keys are text
        trial = Problems()
        read = self._keys.read(key, None, trial)
        if trial.found:
            expected = f"has a key that must be {self._keys.expects}"
            problems.add(where, f"{expected}, not {type_name(key)}")
        return read


# --- single values -------------------------------------------------------------------------------


def _read_kind(
    expects: str, read: Callable[[Any], Any], value: Any, where: Where, problems: Problems
) -> Any:
    value = as_it_travels(value)
    try:
        return read(value)
    except Unfit:
        if not isinstance(value, (str, list, tuple)):
            return problems.unfit(where, expects, value)
        # Of a type that such values may have in JSON.
        return problems.add(where, f"must be {expects}")


def _only(expects: str, kind: type) -> Callable[[_Compiler, Mapping[str, Any]], Check]:
    """Return the builder of the check for the values of a type without constraints."""

    def read(value: Any, where: Where, problems: Problems) -> Any:
        value = as_it_travels(value)
        return value if type(value) is kind else problems.unfit(where, expects, value)

    return lambda _compiler, _schema: Check(expects, read, frozenset({kind}))


def _as_float(value: float | int) -> float | None:
    """Return a float; None for an integer that is none exactly."""
    if type(value) is float:
        return value
    try:
        return float(value) if int(float(value)) == value else None
    except OverflowError:
        return None


_NO_TYPES: Final[frozenset[type]] = frozenset()
_ANYTHING: Final = Check("anything", lambda value, _where, _problems: value, None)


# --- containers ----------------------------------------------------------------------------------


def _all_plain(check: Check, values: Any) -> bool:
    """Say whether values need no look. Quick, because a list may hold millions of numbers."""
    return check.plain is None or set(map(type, values)) <= check.plain


def _read_items(
    prefix: list[Check], items: Check, values: Any, where: Where, problems: Problems
) -> Any:
    if not prefix and _all_plain(items, values):
        return values
    result = []
    for index, item in enumerate(values):
        check = prefix[index] if index < len(prefix) else items
        result.append(check.read(item, (where, index), problems))
        if problems.enough:
            return result
    # The same object again shows a union that nothing was changed.
    return values if all(map(operator.is_, values, result)) else result


def _container(kind: str, items: Any, where: Where, problems: Problems) -> Any:
    make = _ARRAY_KINDS[kind]
    if type(items) is make:
        return items
    try:
        result = make(items)
    except TypeError:  # mappings: not hashable before they are the objects they stand for
        return items
    if len(result) < len(items):
        problems.add(where, "must not hold a value twice")
    return result


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return list(schema["enum"]) if "enum" in schema else [schema["const"]]


def _named(schema: Mapping[str, Any], otherwise: str) -> str:
    title = schema.get("title")
    return f"{otherwise} ({clip(title)})" if isinstance(title, str) else otherwise


_Build = Callable[[_Compiler, Mapping[str, Any]], Check]

_BY_KEYWORD: Final[tuple[tuple[str, _Build], ...]] = (
    ("$ref", _Compiler.reference),
    ("x-kind", _Compiler.kind),
    ("anyOf", _Compiler.union),
    ("oneOf", _Compiler.union),
    ("enum", _Compiler.choice),
    ("const", _Compiler.choice),
)
_BY_TYPE: Final[Mapping[str, _Build]] = {
    "integer": _Compiler.integer,
    "number": _Compiler.number,
    "string": _Compiler.text,
    "boolean": _only("true or false", bool),
    "null": _only("None", type(None)),
    "array": _Compiler.array,
    "object": _Compiler.mapping,
}
