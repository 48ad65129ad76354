"""The rules of the house that no linter checks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from source_tree import ROOT, files_of_tests, imported_names, library_files, parse, short

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
# The one contract that is pickle: concurrent.futures.Executor.
MAY_PICKLE = {"packages/snakepit/src/snakepit/executor/pickling.py"}
# The workers' blocking sleep is what a test stops; on a clock that stands still, a sleep takes no
# time.
MAY_SLEEP = {
    "packages/snakepit/tests/look_ahead_worker.py",
    "packages/snakepit/tests/pool_worker.py",
    "packages/snakepit/tests/test_testing_clock.py",
    "tests/faults/fault_worker.py",
}
MAY_PRINT = ("packages/dspex/src/dspex/cli/", "packages/dspex/src/dspex/cli.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[ast.Module], Iterator[str]]


def long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines"


def sleeps(tree: ast.Module) -> Iterator[str]:
    for call in calls(tree):
        is_yield = call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        if ast.unparse(call.func) in {"time.sleep", "sleep", "asyncio.sleep"} and not is_yield:
            yield f"{call.lineno}: {ast.unparse(call)}"


def prints(tree: ast.Module) -> Iterator[str]:
    return (f"{c.lineno}: print" for c in calls(tree) if ast.unparse(c.func) == "print")


def pickles(tree: ast.Module) -> Iterator[str]:
    banned = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
    names = imported_names(tree)
    return (f"{line}: {name}" for line, name in names if name.partition(".")[0] in banned)


def relative_imports(tree: ast.Module) -> Iterator[str]:
    return (f"{line}: {name}" for line, name in imported_names(tree) if name.startswith("."))


def stubs(tree: ast.Module) -> Iterator[str]:
    """What was left for later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.dump(node.exc):
            yield f"{node.lineno}: NotImplementedError"


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def violations(rule: Rule, files: list[Path]) -> list[str]:
    return [f"{short(path)}:{found}" for path in files for found in rule(parse(path))]


def all_files() -> list[Path]:
    others = [p for folder in ("examples", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    return [*library_files(), *files_of_tests(), *sorted(others)]


def test_files_are_short() -> None:
    sizes = {short(path): len(path.read_text().splitlines()) for path in all_files()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


@pytest.mark.parametrize("rule", [long_functions, relative_imports])
def test_all_code(rule: Rule) -> None:
    assert violations(rule, all_files()) == []


@pytest.mark.parametrize("rule", [stubs])
def test_library_code(rule: Rule) -> None:
    assert violations(rule, library_files()) == []


def test_library_code_does_not_print() -> None:
    files = [path for path in library_files() if not short(path).startswith(MAY_PRINT)]
    assert violations(prints, files) == []


def test_library_code_does_not_pickle() -> None:
    files = [path for path in library_files() if short(path) not in MAY_PICKLE]
    assert violations(pickles, files) == []


def test_tests_do_not_sleep() -> None:
    files = [path for path in files_of_tests() if short(path) not in MAY_SLEEP]
    assert violations(sleeps, files) == []


def test_names_of_test_files_are_unique() -> None:
    names = [
        path.name for path in files_of_tests() if path.name not in {"__init__.py", "conftest.py"}
    ]
    assert sorted(names) == sorted(set(names))


def test_examples_may_take_their_time() -> None:
    """On a busy machine any of them may be slow, which says nothing of the code."""
    assert settings().deadline is None


@pytest.mark.parametrize(
    ("rule", "sample"),
    [
        (long_functions, "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
        (relative_imports, "from . import x"),
        (relative_imports, "def f():\n    from ..a import x"),
        (stubs, "def f():\n    raise NotImplementedError"),
        (prints, "print(1)"),
        (pickles, "import pickle"),
        (pickles, "from marshal import loads"),
        (sleeps, "time.sleep(0.1)"),
        (sleeps, "async def f():\n    await asyncio.sleep(delay)"),
    ],
)
def test_each_rule_finds_its_sample(rule: Rule, sample: str) -> None:
    assert list(rule(ast.parse(sample)))


def test_giving_way_once_is_no_sleep() -> None:
    assert list(sleeps(ast.parse("async def f():\n    await asyncio.sleep(0)"))) == []
