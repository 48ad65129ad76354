"""docs/faults.md lists the fault scenarios, and each has the tests that the document says."""

from __future__ import annotations

import re
from ast import AsyncFunctionDef, FunctionDef
from pathlib import Path

from source_tree import ROOT, parse, short

FAULTS = ROOT / "docs/faults.md"
FOLDERS = (ROOT / "packages/snakepit/tests", ROOT / "tests/faults")
WITHOUT_NUMBER = [
    ROOT / "packages/snakepit/tests" / name
    for name in ("test_pool_faults.py", "test_stuck_siblings.py")
]
COVERED, NOT_COVERED, UNNUMBERED = "Covered", "Not covered", "Faults without a number"

_NUMBERED = re.compile(r"test_(\d+)_")


def section(heading: str) -> str:
    """What stands under a heading, up to the next one."""
    return FAULTS.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the rows of a section's table, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names_of_tests(file: Path) -> list[str]:
    """The functions that pytest collects: those at the top of the module."""
    functions = (
        node for node in parse(file).body if isinstance(node, FunctionDef | AsyncFunctionDef)
    )
    return [function.name for function in functions if function.name.startswith("test_")]


def provoked() -> set[tuple[str, str]]:
    """Number and file name of every test that names a scenario."""
    return {
        (match[1], file.name)
        for folder in FOLDERS
        for file in folder.glob("test_*.py")
        for match in map(_NUMBERED.match, names_of_tests(file))
        if match
    }


def documented() -> set[tuple[str, str]]:
    found = set()
    for number, _, _, tests in rows(COVERED):
        for file, prefix in re.findall(r"`(\w+\.py)::(\w+)`", tests):
            assert prefix == f"test_{number}_", f"{number} can not be covered by {prefix}"
            found.add((number, file))
    return found


def test_the_tests_of_each_scenario_are_those_documented() -> None:
    assert documented() == provoked()


def test_every_covered_scenario_has_a_test() -> None:
    assert [row[0] for row in rows(COVERED)] == sorted(
        {number for number, _ in provoked()}, key=int
    )


def test_a_scenario_is_covered_or_not_and_the_reason_is_given() -> None:
    missing = rows(NOT_COVERED)
    assert missing
    assert all(len(row) == 3 and all(row) for row in missing)
    assert not {row[0] for row in missing} & {number for number, _ in provoked()}


def test_numbered_tests_are_nowhere_else() -> None:
    others = [
        short(file)
        for file in ROOT.glob("**/test_*.py")
        if file.parent not in FOLDERS
        and any(part in ("tests", "packages") for part in file.relative_to(ROOT).parts[:1])
        and any(map(_NUMBERED.match, names_of_tests(file)))
    ]
    assert others == []


def test_faults_without_a_number_are_listed_by_name() -> None:
    listed = [name for row in rows(UNNUMBERED) for name in re.findall(r"`(test_\w+)`", row[3])]
    names = [name for file in WITHOUT_NUMBER for name in names_of_tests(file)]
    plain = [name for name in names if not _NUMBERED.match(name)]
    assert sorted(listed) == sorted(plain)
