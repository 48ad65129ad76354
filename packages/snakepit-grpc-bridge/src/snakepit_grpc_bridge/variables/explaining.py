"""Where a value comes from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Explanation", "Scope", "explain"]

Scope = Literal["call", "session", "global"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Where the value of a name comes from: the call's own options, its session, or the global one.

    Attributes:
        name: the name.
        scope: whose value it is; None if nobody has one.
        value: the value; None if there is none.
        hidden: the values that it hides, by scope.
        reason: all that in words.
    """

    name: str
    scope: Scope | None
    value: Any
    hidden: dict[Scope, Any]
    reason: str


_WORDS: dict[Scope, str] = {
    "call": "the call itself",
    "session": "the session",
    "global": "the global session",
}


def explain(name: str, found: dict[Scope, Any]) -> Explanation:
    """Explain a name from the values that each scope has for it.

    Example:
        >>> explain("temperature", {"global": 0.7, "session": 0.2}).reason
        "'temperature' is that of the session, which hides that of the global session"
    """
    in_order = [scope for scope in _WORDS if scope in found]
    if not in_order:
        return Explanation(
            name=name, scope=None, value=None, hidden={}, reason=f"nobody has set {name!r}"
        )
    first, *others = in_order
    hides = " and ".join(f"that of {_WORDS[scope]}" for scope in others)
    return Explanation(
        name=name,
        scope=first,
        value=found[first],
        hidden={scope: found[scope] for scope in others},
        reason=f"{name!r} is that of {_WORDS[first]}" + (f", which hides {hides}" if hides else ""),
    )
