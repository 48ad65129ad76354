"""The benchmark works end to end, with as little work as it can do, and its sums are right."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pool import __main__ as command_line
from benchmarks.pool import report
from benchmarks.pool.contenders import PEERS
from benchmarks.pool.figures import Goal, Samples, Spread, goals, layers, results
from benchmarks.pool.machine import facts
from benchmarks.pool.measures import MEASURES, Effort
from benchmarks.pool.plan import FULL, QUICK, chosen, sections
from benchmarks.pool.session import ONE_CORE, SPLIT, UNPINNED
from benchmarks.pool.steps import by_part, steps_of_a_call
from benchmarks.pool.turns import Sample, Section, run

TINY = Effort(seconds=0.01, repeats=1, array_bytes=800, streams=10, items=3, patience=10.0)


def sample(
    figures: Mapping[str, float], *, of: str = "snakepit", mode: str = SPLIT, number: int = 0
) -> Sample:
    return Sample(mode=mode, measure="any", contender=of, round=number, figures=dict(figures))


def complaints(section: Section) -> tuple[list[Sample], list[str]]:
    told: list[str] = []
    return list(run(section, told.append)), told


@pytest.mark.slow
def test_each_measure_of_the_pool_and_of_the_limit(tmp_path: Path) -> None:
    everybody = ("limit", "asyncio_echo", "snakepit", "snakepit_connection")
    ours = [(name, ("snakepit",)) for name in ("rps_sync", "rps_async", "array_in", "array_echo")]
    life = [(name, ("snakepit",)) for name in ("behind_slow", "batching", "recovery", "streams")]
    section = Section(
        mode=SPLIT,
        turns=[("latency", everybody), *ours, *life, ("memcpy", ("limit",))],
        sessions=1,
        slices=2,
        effort=TINY,
        patience=20.0,
    )

    taken, told = complaints(section)

    assert told == []
    found = {"machine": facts(), "run": {"at": "", "took_s": 0, "quick": True, "rounds": 2}}
    found |= results(Samples(taken))
    report.write(found, tmp_path)
    read = json.loads((tmp_path / "latest.json").read_text())
    assert read["limit"]["latency_p50_us"] > 0
    assert read["limit"]["memcpy100MB_ms"] > 0
    assert read["limit"]["variants"]["asyncio_echo"]["latency_p50_us"] > 0
    assert read["snakepit"]["calls_lost"] <= 1
    assert read["snakepit"]["by_mode"][SPLIT]["rps_async"]["rounds"] == 2
    arrays = {"array100MB_in_ms", "array100MB_echo_ms"}
    others = {
        "latency_p99_us",
        "rps_sync",
        "behind_slow_worst_ms",
        "batching_gain",
        "recovery_ms",
        "stream_items_per_s",
        "latency_cpu_us",
    }
    assert arrays | others <= set(read["snakepit"])
    text = (tmp_path / "latest.md").read_text()
    assert "snakepit, one worker without a pool" in text
    ElementTree.parse(tmp_path / "latest.svg")


@pytest.mark.slow
def test_a_measure_that_fails_is_told_and_the_others_go_on() -> None:
    section = Section(
        mode=UNPINNED,
        turns=[("recovery", ("limit",)), ("latency", ("limit",))],
        sessions=1,
        slices=1,
        effort=TINY,
        patience=20.0,
    )

    failed, measured = complaints(section)[0]

    assert failed.error is not None
    assert measured.error is None
    assert results(Samples([failed, measured]))["errors"][0]["measure"] == "recovery"


def test_a_ratio_is_taken_round_by_round() -> None:
    samples = Samples(
        [
            *(sample({"x": value}, number=n) for n, value in enumerate([10.0, 200.0, 30.0])),
            *(sample({"x": value}, of="limit", number=n) for n, value in enumerate([10.0, 100.0])),
        ]
    )
    assert samples.ratio(SPLIT, ("snakepit", "x"), ("limit", "x")) == Spread(1.5, 1.0, 2.0, 2)
    assert samples.ratio(ONE_CORE, ("snakepit", "x"), ("limit", "x")) is None


@pytest.mark.parametrize(
    ("reached", "at_most", "ok"),
    [(1.0, True, True), (1.1, True, False), (1.1, False, True), (0.9, False, False)],
)
def test_a_goal_is_a_bound_on_the_median(reached: float, at_most: bool, ok: bool) -> None:
    spread = Spread(reached, 0.0, 9.0, 3)
    assert Goal(name="", goal=1.0, at_most=at_most, reached=spread).ok is ok


def test_a_goal_without_samples_is_neither_reached_nor_missed() -> None:
    assert {goal.ok for goal in goals(Samples([]))} == {None}


def test_calls_are_compared_with_the_best_that_a_peer_does_in_any_way() -> None:
    samples = Samples(
        [
            sample({"rps_async": 1000.0, "rps_sync": 600.0}),
            sample({"rps_async": 100.0, "rps_sync": 50.0}, of="xoscar"),
            sample({"rps_sync": 200.0}, of="pebble"),
        ]
    )
    reached = {goal.name: goal.reached for goal in goals(samples) if goal.reached is not None}
    assert reached == {
        "calls/s at concurrency 1 over the best peer (pebble)": Spread(3.0, 3.0, 3.0, 1),
        "calls/s at concurrency 32 over the best peer (pebble)": Spread(5.0, 5.0, 5.0, 1),
    }


def test_the_headline_is_the_pinned_figure() -> None:
    found = results(
        Samples(
            [
                sample({"x": 1.0, "y": 1.0}, mode=ONE_CORE),
                sample({"x": 2.0, "y": 2.0}, mode=UNPINNED),
                sample({"x": 3.0}, mode=SPLIT),
            ]
        )
    )
    assert (found["snakepit"]["x"], found["snakepit"]["y"]) == (3.0, 2.0)
    assert found["limit"] == {}


def test_the_plan_measures_everything_and_a_quick_one_starts_no_peer_with_dspy() -> None:
    def starts(plan: list[Section]) -> set[str]:
        return {
            name
            for section in plan
            for measure, who in section.turns
            for name in who
            if measure == "start20"
        }

    full = sections(FULL, cpus=2)
    assert {measure for section in full for measure, _ in section.turns} == set(MEASURES)
    assert {"snakepit", *PEERS} <= starts(full)
    assert starts(sections(QUICK, cpus=2)) == {"snakepit"}
    assert {section.mode for section in sections(FULL, cpus=1)} == {ONE_CORE}


def test_the_layers_of_a_call_add_up_to_it() -> None:
    costs = {"limit": 10.0, "asyncio_echo": 15.0, "snakepit_connection": 40.0, "snakepit": 60.0}
    samples = Samples(
        sample({"latency_cpu_us": cost}, of=name, mode=ONE_CORE) for name, cost in costs.items()
    )
    found = layers(samples)
    assert [layer.microseconds for layer in found] == [10.0, 5.0, 25.0, 20.0]
    assert layers(Samples([])) == []


def test_a_part_of_the_plan_can_be_chosen() -> None:
    part = chosen(sections(QUICK, cpus=2), ["latency"], ["limit", "ray"], [SPLIT])
    assert [list(section.turns) for section in part] == [
        [("latency", ["limit"])],
        [("latency", ["ray"])],
    ]


@pytest.mark.slow
def test_the_command_line_runs_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["latency", "--only", "limit", "--rounds", "1", "--mode", ONE_CORE, "--quick"]
    assert command_line.main([*arguments, "--output", str(tmp_path)]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "latest.json").read_text())
    assert list(found["limit"]["by_mode"]) == [ONE_CORE]
    assert "blocking echo" in capsys.readouterr().out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["latncy"])
    assert "latncy" in capsys.readouterr().err


async def test_each_part_of_a_call_has_steps() -> None:
    host, worker = await steps_of_a_call()
    assert [part for part in host if not host[part] + worker[part]] == []
    assert by_part({"calls.scheduler": 400, "selectors": 200}) == {
        **dict.fromkeys(host, 0.0),
        "scheduling: slots, sessions, priorities, queue": 2.0,
        "the event loop and the rest": 1.0,
    }
