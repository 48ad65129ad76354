"""What a rule is, and how one is told to be broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from snakepit.testing.conformance.bench import Bench

Check = Callable[["Bench"], None]


class Broken(Exception):
    """The program under test broke the rule that is being checked; the text says how."""


class NotOffered(Exception):
    """The program does without the optional feature that the rule is about."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of PROTOCOL.md, and how it is checked.

    ``needs`` is the optional feature that it belongs to; None for a rule for every worker.
    ``text`` says what a worker does.
    """

    rule_id: str
    text: str
    needs: str | None
    check: Check


class Chapter(dict[str, Rule]):
    """The rules about one topic, by their ids."""

    def rule(
        self, rule_id: str, text: str, *, needs: str | None = None
    ) -> Callable[[Check], Check]:
        """Make a function the check of a rule."""

        def add(check: Check) -> Check:
            self[rule_id] = Rule(rule_id, text, needs, check)
            return check

        return add


def broken(what: str) -> NoReturn:
    """Say that the rule is broken.

    Raises:
        Broken: always.
    """
    raise Broken(what)
