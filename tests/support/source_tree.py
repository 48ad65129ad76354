"""The repository's source files, for tests that hold rules over all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = {
    "snakepit": ROOT / "packages/snakepit/src/snakepit",
    "snakepit_grpc_bridge": ROOT / "packages/snakepit-grpc-bridge/src/snakepit_grpc_bridge",
    "dspex": ROOT / "packages/dspex/src/dspex",
}


def library_files() -> list[Path]:
    """All Python files of the three distributions, without their tests."""
    return sorted(path for folder in SOURCES.values() for path in folder.rglob("*.py"))


def files_of_tests() -> list[Path]:
    """All Python files of the tests, their helpers included."""
    folders = [ROOT / "tests", *(ROOT / "packages").glob("*/tests")]
    return [ROOT / "conftest.py", *sorted(p for folder in folders for p in folder.rglob("*.py"))]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
