"""docs/errors.md lists every error class as it is."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source_tree import ROOT, SOURCES, library_files, parse

from snakepit import SnakepitError

ERRORS = ROOT / "docs/errors.md"
RESERVED = "Not raised by this version"
BASES = "Bases"
# Made by the registry when an error arrives from another process.
MADE_FROM_WIRE = "RemoteError"

_ROW = re.compile(
    r"\| `(?P<name>\w+)`(?: \(`(?P<builtin>\w+)`\))? \| `(?P<code>\w+)` "
    r"\| (?P<outcome>none|unknown|done) \| (?P<retry>yes|no) \| (?P<when>[^|]+) \|"
)


@dataclass(frozen=True, order=True)
class Row:
    """One error as documented, or as it is."""

    name: str
    code: str
    outcome: str
    retryable: bool
    builtin: str | None


def documented(text: str) -> Iterator[tuple[str, Row]]:
    """The rows of all tables with the heading they stand under."""
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        if match := _ROW.match(line):
            yield (
                heading,
                Row(
                    name=match["name"],
                    code=match["code"],
                    outcome=match["outcome"],
                    retryable=match["retry"] == "yes",
                    builtin=match["builtin"],
                ),
            )


def error_classes() -> list[type[SnakepitError]]:
    """Every class with a code of its own, of the three packages."""
    for file in library_files():
        if any(map(declares_code, ast.walk(parse(file)))):
            importlib.import_module(module_name(file))
    found: list[type[SnakepitError]] = []
    todo: list[type[SnakepitError]] = [SnakepitError]
    while todo:
        current = todo.pop()
        todo += current.__subclasses__()
        if "code" in vars(current) and current.__module__.partition(".")[0] in SOURCES:
            found.append(current)
    return found


def declares_code(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "code"
        for statement in node.body
    )


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[parts.index("src") + 1 :]).removesuffix(".__init__")


def row_of(cls: type[SnakepitError]) -> Row:
    builtins = [base.__name__ for base in cls.__bases__ if base.__module__ == "builtins"]
    return Row(
        name=cls.__name__,
        code=cls.code,
        outcome=cls.outcome.value,
        retryable=cls.retryable,
        builtin=builtins[0] if builtins and cls is not SnakepitError else None,
    )


def constructed_names() -> set[str]:
    """What library code calls: `Name(...)` and `Name.of(...)`."""
    calls = (
        node.func
        for file in library_files()
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Call)
    )
    return {ast.unparse(function).removesuffix(".of").rpartition(".")[2] for function in calls}


def test_every_error_is_documented_as_it_is() -> None:
    rows = [row for _, row in documented(ERRORS.read_text())]
    assert sorted(rows, key=lambda row: row.code) == sorted(
        map(row_of, error_classes()), key=lambda row: row.code
    )


def test_the_document_knows_which_errors_nothing_raises() -> None:
    tables: dict[str, set[str]] = {}
    for heading, row in documented(ERRORS.read_text()):
        tables.setdefault(heading, set()).add(row.name)
    unused = {cls.__name__ for cls in error_classes()} - constructed_names() - {MADE_FROM_WIRE}
    assert tables.pop(RESERVED) | tables.pop(BASES) == unused


def test_wrong_rows_are_found() -> None:
    text = ERRORS.read_text().replace("| `worker_lost` | unknown |", "| `worker_lost` | none |")
    wrong = {row for _, row in documented(text)} - set(map(row_of, error_classes()))
    assert {row.name for row in wrong} == {"WorkerLost"}
