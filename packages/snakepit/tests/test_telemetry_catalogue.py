"""Every event of the catalogue is documented, told somewhere, and proved by a test; none costs
anything while nobody listens."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import snakepit
from snakepit.telemetry.bus import OWN_PREFIX, require_name
from snakepit.telemetry.catalogue import EVENTS, IN_HOST, IN_WORKERS, EventSpec

TESTS = Path(__file__).parent
SOURCE = Path(snakepit.__file__).parent
DOCUMENT = TESTS.parents[2] / "docs" / "telemetry.md"
# What makes events of facts, besides functions called `_tell...`. Everything else asks first
# whether anybody listens.
MAKERS = {"call_events", "pool_events", "command_events", "events", "remote_events"}


def test_each_event_has_a_name_of_its_own_that_is_possible() -> None:
    names = [spec.full_name for spec in EVENTS]
    assert len(set(names)) == len(names)
    for spec in EVENTS:
        require_name(spec.full_name)
        assert spec.full_name == OWN_PREFIX + spec.name
        assert len(set(spec.metadata) | set(spec.measurements)) == (
            len(spec.metadata) + len(spec.measurements)
        )


def test_each_event_is_proved_by_a_test() -> None:
    proved = [name for path in TESTS.glob("test_telemetry_*.py") for name in proofs_in(path)]
    assert sorted(set(proved)) == sorted(spec.name for spec in EVENTS)


def proofs_in(path: Path) -> Iterator[str]:
    """The events that the tests of a file are marked with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "proves":
                    yield from map(ast.literal_eval, mark.args)


def test_the_document_has_the_table_of_all_events() -> None:
    documented = re.findall(r"^\| `snakepit\.(.*)\|$", DOCUMENT.read_text(), re.M)
    rows = [row(spec).removeprefix("| `snakepit.").removesuffix("|") for spec in EVENTS]
    assert documented == rows
    assert set(IN_HOST) | set(IN_WORKERS) == set(EVENTS)


def row(spec: EventSpec) -> str:
    """One event, as the document shows it."""
    cells = [", ".join(f"`{name}`" for name in names) for names in spec[1:3]]
    return f"| `{spec.full_name}` | {cells[0]} | {cells[1]} | {spec.when} |"


# --- what it costs while nobody listens ----------------------------------------------------------


def test_every_event_site_asks_first_whether_anybody_listens() -> None:
    sites = [site for path in sources() for site in event_sites(ast.parse(path.read_text()))]
    assert len(sites) > 40
    assert [line for line, is_guarded in sites if not is_guarded] == []


def sources() -> Iterator[Path]:
    for path in SOURCE.rglob("*.py"):
        folder = path.relative_to(SOURCE).parts[0]
        if folder not in ("telemetry", "testing") and path.stem not in MAKERS:
            yield path


def event_sites(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """The calls that make an event, and whether each stands below a test of `bus.listening`."""
    for node, guards in nodes_with_guards(tree, ()):
        if isinstance(node, ast.Call) and makes_an_event(node.func):
            yield f"{node.lineno}: {ast.unparse(node)}", any(map(is_guard, guards))


def makes_an_event(function: ast.expr) -> bool:
    text = ast.unparse(function)
    if text == "command_events.ended":
        return False  # what was begun is ended
    names = ("bus.tell", "observed", "worker_spawned", "_tell", "self.on_look")
    return text in names or text.rpartition(".")[0] in MAKERS


def nodes_with_guards(
    node: ast.AST, guards: tuple[ast.expr, ...]
) -> Iterator[tuple[ast.AST, tuple[ast.expr, ...]]]:
    if isinstance(node, ast.FunctionDef) and node.name.startswith("_tell"):
        return
    yield node, guards
    for name, value in ast.iter_fields(node):
        guarded = isinstance(node, ast.If | ast.IfExp) and name == "body"
        below = (*guards, node.test) if guarded else guards  # type: ignore[attr-defined]
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from nodes_with_guards(child, below)


def is_guard(test: ast.expr) -> bool:
    return any(part == "bus.listening" for part in re.split(r" and ", ast.unparse(test)))


def test_a_site_that_does_not_ask_is_found() -> None:
    sample = (
        "if bus.listening and x:\n    call_events.queued(1)\ncall_events.queued(2)\n"
        "if other:\n    bus.tell('x')\nelse:\n    pass\n"
        "y = command_events.started(c) if bus.listening else 0.0\n"
    )
    found = [is_guarded for _, is_guarded in event_sites(ast.parse(sample))]
    assert sorted(found) == [False, False, True, True]
