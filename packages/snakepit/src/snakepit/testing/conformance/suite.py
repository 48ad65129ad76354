"""Runs the rules against a program, and tells what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from snakepit.errors import ConfigurationError
from snakepit.testing.conformance.bench import Bench
from snakepit.testing.conformance.chapters import (
    calling,
    features,
    framing,
    nesting,
    starting,
    stopping,
    streaming,
    values,
)
from snakepit.testing.conformance.rules import Broken, NotOffered, Rule

#: Every rule by its id, in the order of PROTOCOL.md.
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    starting.chapter
    | framing.chapter
    | calling.chapter
    | streaming.chapter
    | stopping.chapter
    | nesting.chapter
    | values.chapter
    | features.chapter
)
#: What ``WELCOME`` names unless the caller says otherwise: the Python class with the commands.
REFERENCE_TARGET: Final = "snakepit.testing.conformance.worker:Worker"
#: Seconds a program may take for what it has to do.
PATIENCE: Final = 10.0


class Verdict(Enum):
    """What came of a rule."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_OFFERED = "not offered"
    """It is about an optional feature that the program does without."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one rule. ``reason``: how it was broken, or why it was not offered."""

    rule: Rule
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict.value:<12} {self.rule.rule_id:<22} {self.rule.text}"
        return f"{line}\n{'':13}{self.reason}" if self.reason else line


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all rules, in the order of PROTOCOL.md; as text, a table."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[str]:
        """The ids of the rules that the program breaks."""
        return self._of(Verdict.BROKEN)

    @property
    def not_offered(self) -> list[str]:
        """The ids of the rules about features that it does without."""
        return self._of(Verdict.NOT_OFFERED)

    def _of(self, verdict: Verdict) -> list[str]:
        return [found.rule.rule_id for found in self.findings if found.verdict is verdict]

    def __str__(self) -> str:
        kept = len(self.findings) - len(self.broken) - len(self.not_offered)
        counts = f"{kept} kept, {len(self.broken)} broken, {len(self.not_offered)} not offered"
        return "\n".join([*map(str, self.findings), counts])


def check_worker(
    command: Sequence[str],
    *,
    rules: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    target: str = REFERENCE_TARGET,
    patience: float = PATIENCE,
) -> Report:
    """Run a program as a worker again and again, and look at which rules of PROTOCOL.md it keeps.

    Blocks for some seconds. The program has to offer the commands of docs/other-languages.md.

    Args:
        command: the program and its arguments.
        rules: ids of rules, or of groups of them, such as ``"cancel."``; all by default.
        env: its environment; by default this process's own.
        target: what ``WELCOME`` names as what is to be served.
        patience: seconds it may take for whatever it has to do.

    Raises:
        ConfigurationError: the program can't be executed, or there is no such rule.

    Example::

        import sys

        from snakepit.testing.conformance import check_worker

        python = "from snakepit.worker.main import main; main()"
        report = check_worker([sys.executable, "-c", python], rules=["ping."])
        assert not report.broken, report
    """
    chosen = list(_chosen(rules))
    bench = Bench(command, target=target, env=env, patience=patience)
    try:
        return Report(tuple(_finding(rule, bench) for rule in chosen))
    finally:
        bench.reset()


def _chosen(names: Sequence[str] | None) -> Iterator[Rule]:
    if names is None:
        yield from RULES.values()
        return
    for name in names:
        found = [rule for rule_id, rule in RULES.items() if _is_meant(rule_id, name)]
        if not found:
            raise ConfigurationError(f"there is no rule {name!r}; PROTOCOL.md lists them")
        yield from found


def _is_meant(rule_id: str, name: str) -> bool:
    return rule_id.startswith(name) if name.endswith(".") else rule_id == name


def _finding(rule: Rule, bench: Bench) -> Finding:
    try:
        rule.check(bench)
        bench.tidy()
    except NotOffered as reason:
        bench.reset()
        return Finding(rule, Verdict.NOT_OFFERED, str(reason))
    except Broken as reason:
        output = bench.last_output()
        bench.reset()
        told = f"{reason}; its last output was:\n{output}" if output else str(reason)
        return Finding(rule, Verdict.BROKEN, told)
    return Finding(rule, Verdict.KEPT)
