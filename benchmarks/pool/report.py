"""The results as JSON, as Markdown tables and as a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.pool.chart import Panel, svg
from benchmarks.pool.contenders import PEERS
from benchmarks.state import figures as state

#: Key, heading, unit; and whether less is better.
COLUMNS: Final = (
    ("latency_p50_us", "p50", "us", True),
    ("latency_p99_us", "p99", "us", True),
    ("latency_cpu_us", "CPU a call", "us", True),
    ("rps_sync", "calls/s", "", False),
    ("rps_async", "calls/s, async", "", False),
    ("array100MB_in_ms", "100 MB in", "ms", True),
    ("array100MB_echo_ms", "100 MB echo", "ms", True),
    ("recovery_ms", "recovery", "ms", True),
    ("calls_lost", "calls lost", "", True),
    ("start20_dspy_s", "20 dspy workers", "s", True),
    ("private_mb", "private MB", "", True),
)
_PANELS: Final = ("latency_p50_us", "rps_sync", "array100MB_in_ms", "recovery_ms", "start20_dspy_s")
_TITLES: Final = {
    "limit": "the limit: blocking echo",
    "asyncio_echo": "bare asyncio echo",
    "no_spin": "snakepit, no spinning",
    "no_look_ahead": "snakepit, no look-ahead",
    "handler": "snakepit, no spinning, a handler for all events",
    "opentelemetry": "snakepit, no spinning, OpenTelemetry",
    "connection": "snakepit, one worker without a pool",
    "executor": "snakepit.ProcessPoolExecutor",
    "thread": "snakepit, without an event loop",
    "preloaded": "ppe, fork server with DSPy",
}


#: Results of other benchmarks, which stand beside those of the pool.
_GUESTS: Final = {"state": state.markdown}


def add(found: Mapping[str, Any], guest: str, folder: Path) -> bool:
    """Write the results of another benchmark beside those of the pool; whether there are any."""
    before = _before(folder)
    if before:
        write({**before, guest: found}, folder)
    return bool(before)


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write ``latest.json``, ``latest.md`` and ``latest.svg``. What other benchmarks have added
    stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _before(folder)
    found = {**found, **{name: before[name] for name in _GUESTS if name in before.keys() - found}}
    (folder / "latest.json").write_text(json.dumps(found, indent=1, sort_keys=False) + "\n")
    (folder / "latest.md").write_text(markdown(found))
    (folder / "latest.svg").write_text(svg(_panels(found)))


def _before(folder: Path) -> dict[str, Any]:
    path = folder / "latest.json"
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return before


def markdown(found: Mapping[str, Any]) -> str:
    """All tables."""
    machine, run = found["machine"], found["run"]
    lines = [
        f"Measured at {run['at']} in {run['took_s']} s, {run['rounds']} rounds"
        + (" (quick)" if run["quick"] else "")
        + f": {machine['cpus']} CPUs ({machine['model']}), {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, "
        f"load before {machine['load_before']}.",
        "",
        *_goal_table([goal for goal in found["goals"] if goal["reached"] is not None]),
        *_headline_table(found),
    ]
    if found["layers"]:
        lines += ["", "## Where a call's processor time goes, all on one core", ""]
        lines += ["| part | us |", "|---|---|"]
        lines += [f"| {x['name']} | {_number(x['microseconds'])} |" for x in found["layers"]]
    for mode in ("split", "one_core", "unpinned"):
        table = list(_mode_table(found, mode))
        if table:
            lines += ["", f"## {mode}: medians (smallest .. largest)", "", *table]
    for name, tables in _GUESTS.items():
        if name in found:
            lines += ["", *tables(found[name])]
    if found["errors"]:
        lines += ["", "## Failed", ""]
        lines += [
            f"- {e['contender']}, {e['measure']}, {e['mode']}: {e['error']}"
            for e in found["errors"]
        ]
    return "\n".join(lines) + "\n"


def _goal_table(goals: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Nothing for a run of measures that no goal is about."""
    if not goals:
        return
    yield "## Goals"
    yield ""
    yield "| goal | limit | reached (smallest .. largest) | ok |"
    yield "|---|---|---|---|"
    for goal in goals:
        limit = f"{'<=' if goal['at_most'] else '>='} {goal['goal']:g}"
        verdict = "yes" if goal["ok"] else "**no**"
        yield f"| {goal['name']} | {limit} | {_spread(goal['reached'])} | {verdict} |"
    yield ""


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All contenders and their variants that have figures, with their titles."""
    owners = [("limit", found["limit"]), ("snakepit", found["snakepit"])]
    owners += [(name, found["peers"][name]) for name in PEERS]
    for name, figures in owners:
        if "by_mode" in figures:
            yield _TITLES.get(name, name), figures
        for variant, of_variant in figures.get("variants", {}).items():
            yield _TITLES[variant], of_variant


def _headline_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Nothing for a run of measures that have no column in it."""
    rows = list(_rows(found))
    columns = [column for column in COLUMNS if any(column[0] in figures for _, figures in rows)]
    if not columns:
        return
    yield "## Figures"
    yield ""
    heads = [f"{head} {unit}".strip() for _, head, unit, _ in columns]
    yield f"| | {' | '.join(heads)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for title, figures in rows:
        cells = [_number(figures[key]) if key in figures else "" for key, *_ in columns]
        if any(cells):
            yield f"| {title} | {' | '.join(cells)} |"


def _mode_table(found: Mapping[str, Any], mode: str) -> Iterator[str]:
    """One row a figure, one column a contender: there are more figures than contenders."""
    rows = [
        (title, figures["by_mode"][mode])
        for title, figures in _rows(found)
        if mode in figures.get("by_mode", {})
    ]
    if not rows:
        return
    yield f"| | {' | '.join(title for title, _ in rows)} |"
    yield "|---" * (len(rows) + 1) + "|"
    for key in dict.fromkeys(key for _, figures in rows for key in figures):
        cells = [_spread(figures[key]) if key in figures else "" for _, figures in rows]
        yield f"| `{key}` | {' | '.join(cells)} |"


def _panels(found: Mapping[str, Any]) -> list[Panel]:
    panels = []
    for key, head, unit, less in COLUMNS:
        bars = [(title, figures[key]) for title, figures in _rows(found) if key in figures]
        if key in _PANELS and bars:
            better = "less is better" if less else "more is better"
            panels.append(Panel(title=f"{head} {unit}".strip() + f" ({better})", bars=bars))
    return panels


def _spread(spread: Mapping[str, Any]) -> str:
    if spread["rounds"] == 1:
        return _number(spread["median"])
    return f"{_number(spread['median'])} ({_number(spread['min'])} .. {_number(spread['max'])})"


def _number(value: float) -> str:
    """Three digits that matter; large ones whole."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"
