"""What `snakepit top` shows, at any size."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.calls.stats import PoolStats
from snakepit.cli.table import View, clean, duration, render, seconds

HOSTILE = "x\x1b[2J\r\n\u202e\u0301漢"


def worker(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "worker_id": f"demo-{number}",
        "pid": 4000 + number,
        "state": "idle",
        "in_flight": 0,
        "completed": 100 * number,
        "age_s": 50.0,
        **changes,
    }


def call(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "command": "resize_image",
        "worker_id": f"demo-{number}",
        "state": "running",
        "running_s": 12.34,
        **changes,
    }


def snapshot(**changes: Any) -> dict[str, Any]:
    stats = PoolStats(
        size=2, ready=2, starting=0, queued=7, running=1, stopping=0,
        succeeded=290, failed=6, timed_out=3, cancelled=1, refused=2, workers_lost=1,
    )  # fmt: skip
    return {
        "name": "demo",
        "pid": 4000,
        "at": 1000.0,
        "age_s": 100.0,
        "live": True,
        "ready": True,
        "stats": asdict(stats),
        "workers": [worker(1, state="busy", in_flight=1), worker(2)],
        "calls": [call(1)],
        **changes,
    }


def shown(view: View, columns: int = 120, rows: int | None = None) -> str:
    return "\n".join(render(view, columns, rows))


def test_a_pool_at_its_full_width() -> None:
    view = View(snapshot=snapshot(), memory={"demo-1": 123_400_000})
    assert shown(view) == (
        "demo  process 4000  ready  up 0:01:40\n"
        "workers  2/2 ready, 0 starting, 1 lost, 0 recycled\n"
        "calls    1 running, 0 stopping, 7 queued, 3.0/s\n"
        "ended    290 succeeded, 6 failed, 3 timed out, 1 cancelled, 2 refused\n"
        "\n"
        "WORKER   PID  STATE  CALLS  ENDED  PER SECOND    MEMORY      AGE  RUNS\n"
        "demo-1  4001  busy       1    100         2.0  123.4 MB  0:00:50  resize_image 12.3 s\n"
        "demo-2  4002  idle       0    200         4.0         -  0:00:50\n"
        "\n"
        "LONGEST RUNNING     FOR  WORKER  STATE\n"
        "resize_image     12.3 s  demo-1  running"
    )


def test_rates_are_those_since_the_view_before() -> None:
    later = snapshot(at=1002.0, workers=[worker(1, completed=150), worker(3, completed=8)])
    later["stats"]["succeeded"] += 80
    text = shown(View(snapshot=later, before=snapshot()))
    assert "7 queued, 40.0/s" in text
    assert "150        25.0" in text
    assert "8         4.0" in text, "a worker that was not there before has begun with none"


@pytest.mark.parametrize(
    ("live", "ready", "word"),
    [(True, True, "ready"), (True, False, "not ready"), (False, False, "broken")],
)
def test_whether_it_takes_calls(live: bool, ready: bool, word: str) -> None:
    view = View(snapshot=snapshot(live=live, ready=ready), notice="LOOK HERE")
    assert shown(view).startswith(f"demo  process 4000  {word}  up 0:01:40  LOOK HERE\n")


def test_what_matters_least_is_left_out_first() -> None:
    text = shown(View(snapshot=snapshot()), columns=40)
    titles = text.splitlines()[5].split()
    assert titles == ["WORKER", "STATE", "CALLS", "PER", "SECOND", "MEMORY"]
    assert text.splitlines()[3].endswith("~"), "cut, and one can see it"


def test_what_is_unusual_is_shown_when_not_all_fits() -> None:
    workers = [worker(number) for number in range(1, 100)] + [worker(100, state="hung")]
    lines = render(View(snapshot=snapshot(workers=workers)), 80, 24)
    assert len(lines) <= 24
    assert "hung" in lines[6]
    hidden = int(lines[-4].removeprefix("... and ").removesuffix(" more"))
    assert hidden + sum(line.startswith("demo-") for line in lines) == 100
    assert lines[-1].startswith("resize_image"), "the calls keep their place"


def test_without_calls_the_space_is_for_workers() -> None:
    workers = [worker(number) for number in range(1, 100)]
    lines = render(View(snapshot=snapshot(workers=workers, calls=[])), 80, 24)
    assert lines[-1].startswith("... and")
    assert 20 <= len(lines) <= 24


texts = st.text(max_size=60) | st.just(HOSTILE)
counts = st.integers(0, 10**12)
views = st.builds(
    lambda name, workers, calls, memory: View(
        snapshot=snapshot(name=name, workers=workers, calls=calls), memory=memory
    ),
    texts,
    st.lists(
        st.builds(worker, counts, worker_id=texts, state=texts, completed=counts), max_size=60
    ),
    st.lists(st.builds(call, counts, command=texts, worker_id=texts), max_size=20),
    st.dictionaries(texts, counts, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(views, st.integers(1, 220), st.integers(1, 60))
def test_whatever_there_is_it_fits(view: View, columns: int, rows: int) -> None:
    lines = render(view, columns, rows)
    assert len(lines) <= rows
    for line in lines:
        assert len(line) <= columns
        assert line == clean(line), "no character that a terminal obeys or draws wider"


def test_names_reach_no_terminal_as_commands() -> None:
    assert clean(HOSTILE) == "x?[2J?????"
    assert clean("größe-1") == "größe-1"


def test_times() -> None:
    assert [duration(value) for value in (0.9, 61, 3_600, 90_000)] == [
        "0:00:00", "0:01:01", "1:00:00", "1d 01:00",
    ]  # fmt: skip
    assert [seconds(value) for value in (0.04, 59.9, 60)] == ["0.0 s", "59.9 s", "0:01:00"]
