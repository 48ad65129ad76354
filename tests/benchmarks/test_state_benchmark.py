"""The benchmark of state works end to end, with as little work as it can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pool import report
from benchmarks.pool.figures import Samples, results
from benchmarks.pool.machine import facts
from benchmarks.state import __main__ as command_line
from benchmarks.state import figures

ROUND = {
    f"{name}_us": 1.0
    for name in (
        *("get", "dict_get", "set", "dict_set", "cached_read", "local_call"),
        *("uncached_read", "call", "host_tool", "blocking_host_tool", "host_call"),
        *("durable_insert", "bare_insert", "durable_set", "bare_write"),
    )
}


@pytest.mark.slow
def test_everything_is_measured(tmp_path: Path) -> None:
    tiny = command_line.Scale(rounds=1, seconds=0.005, sessions={"memory": 40, "sqlite": 40})

    found = command_line.measure(tiny, tmp_path)

    modes: Any = found["by_mode"]
    assert all(set(taken) == set(ROUND) for taken in modes.values())
    assert all(spread["min"] > 0 for taken in modes.values() for spread in taken.values())
    sessions: Any = found["sessions"]
    assert {each["sessions"] for each in sessions.values()} == {40}


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_median() -> None:
    slow = {**ROUND, "uncached_read_us": 3.0, "call_us": 2.0, "host_tool_us": 4.0}
    slower = {**ROUND, "uncached_read_us": 30.0, "call_us": 20.0, "host_tool_us": 40.0}

    found = figures.results({"split": [slow, slower]}, {})

    judged = {each["name"]: (each["reached"]["max"], each["ok"]) for each in found["ratios"]}
    assert judged["any other read in a worker, over a bare call"] == (1.5, True)
    assert judged["a tool of the host, over a bare call"] == (2.0, False)
    assert judged["a bare function of the host, over a bare call"] == (0.5, None)


def test_results_stand_beside_those_of_the_pool_and_outlive_them(tmp_path: Path) -> None:
    state = {
        "at": "today",
        "rounds": 1,
        "quick": True,
        **figures.results({"split": [ROUND]}, {"memory": {"sessions": 40, **_SESSIONS}}),
    }
    pool: dict[str, Any] = {
        "machine": facts(),
        "run": {"at": "", "took_s": 0, "quick": True, "rounds": 2},
        **results(Samples([])),
    }
    assert not report.add(state, "state", tmp_path)

    report.write(pool, tmp_path)
    assert report.add(state, "state", tmp_path)
    report.write(pool, tmp_path)

    assert json.loads((tmp_path / "latest.json").read_text())["state"] == state
    assert "| memory | 40 | 1 | 2 | 3 | 4 |" in (tmp_path / "latest.md").read_text()


_SESSIONS = {"open_us": 1.0, "bytes": 2.0, "sweep_us": 3.0, "sweep_blocks_ms": 4.0}
