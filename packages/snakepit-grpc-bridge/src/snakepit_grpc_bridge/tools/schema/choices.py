"""Values that are one of several, or of one of several types. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from snakepit_grpc_bridge.errors import did_you_mean
from snakepit_grpc_bridge.tools.schema.check import Check
from snakepit_grpc_bridge.tools.schema.problems import Problems, Where, clip
from snakepit_grpc_bridge.tools.schema.travel import as_it_travels

__all__ = ["by_type", "choice", "is_among", "near_to", "tagged_union", "union"]

_SCALARS: Final = frozenset({type(None), bool, int, float, str})
_SHOWN_CHOICES = 10


def by_type(choices: list[Any]) -> frozenset[tuple[type, Any]]:
    """Return values together with their types, for ``is_among``: 1 == True == 1.0."""
    return frozenset((type(each), each) for each in choices)


def is_among(value: Any, known: frozenset[tuple[type, Any]]) -> bool:
    """Say whether a value, as it travels, is one of those, also in type."""
    return type(value) in _SCALARS and (type(value), value) in known


def choice(choices: list[Any]) -> Check:
    """Read a value that is one of those."""
    known = by_type(choices)
    names = [each for each in choices if isinstance(each, str)]
    shown = ", ".join(clip(repr(each)) for each in choices[:_SHOWN_CHOICES])
    more = ", ..." if len(choices) > _SHOWN_CHOICES else ""
    expects = f"one of {shown}{more}" if len(choices) > 1 else shown

    def read(value: Any, where: Where, problems: Problems) -> Any:
        value = as_it_travels(value)
        if is_among(value, known):
            return value
        if type(value) not in {type(each) for each in choices}:
            return problems.unfit(where, expects, value)
        return problems.add(where, f"must be {expects}{near_to(value, names)}")

    return Check(expects, read)


def near_to(given: Any, names: Iterable[str]) -> str:
    """Return the suggestion of a name that is near to one that was given, if there is one."""
    return did_you_mean(given[:64], names) if isinstance(given, str) else ""


def union(choices: list[Check]) -> Check:
    """Read with the choice that takes the value as it is, else with the first that takes it."""
    expects = " or ".join(dict.fromkeys(check.expects for check in choices))

    def read(value: Any, where: Where, problems: Problems) -> Any:
        misfits = [check.misfits(value) for check in choices]
        taken, trials = [], []
        for check, misfit in zip(choices, misfits, strict=True):
            if misfit != 0:
                continue
            trial = Problems()
            result = check.read(value, where, trial)
            if trial.found:
                trials.append(trial)
            elif result is value:
                return value
            else:
                taken.append(result)
        if taken:
            return taken[0]
        near = [trial for trial in trials if not trial.unfit_at(where)]
        if not near and any(misfits):
            _, nearest = min((misfit, i) for i, misfit in enumerate(misfits) if misfit)
            return choices[nearest].read(value, where, problems)
        inside = [trial for trial in near if trial.inside(where)]
        if inside or len(near) == 1:
            return problems.extend(min(inside or near, key=lambda trial: len(trial.found)))
        if near:
            return problems.add(where, f"must be {expects}")
        return problems.unfit(where, expects, value)

    return Check(expects, read)


def tagged_union(tag: str, choices: Mapping[str, Check]) -> Check:
    """Read with the choice that a field of the value names."""
    expects = " or ".join(dict.fromkeys(check.expects for check in choices.values()))
    names = clip(", ".join(map(repr, choices)), 200)

    def read(value: Any, where: Where, problems: Problems) -> Any:
        given = as_it_travels(value)
        if not isinstance(given, Mapping):
            return problems.unfit(where, expects, value)
        if tag not in given:
            return problems.missing((where, tag))
        chosen = as_it_travels(given[tag])
        check = choices.get(_as_key(chosen))
        if check is None:
            return problems.add((where, tag), f"must be one of {names}{near_to(chosen, choices)}")
        return check.read(given, where, problems)

    return Check(expects, read)


def _as_key(tag: Any) -> str:
    """Return how a tag is written as a key of JSON; "" for what is none."""
    if type(tag) is int and tag.bit_length() < 64:
        return str(tag)
    return tag if type(tag) is str else ""
