"""How much of a worker's output is logged, and what is kept of it."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import until

from snakepit.processes.output import LogBudget, OutputTail


def test_a_burst_passes_then_it_is_dropped_until_there_is_room_again() -> None:
    budget = LogBudget(at_once=100, a_second=10)
    assert [budget.allows(40, now=5.0) for _ in range(4)] == [True, True, False, False]
    assert budget.dropped == 80
    assert not budget.allows(20, now=7.0), "40 are left, less than half"
    assert budget.allows(20, now=10.0)
    assert budget.take_dropped() == 100
    assert budget.take_dropped() == 0
    assert not budget.allows(200, now=1000.0), "more than is ever allowed"


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 3)), max_size=100))
def test_never_more_than_the_burst_and_the_rate(lines: list[tuple[int, float]]) -> None:
    budget = LogBudget(at_once=100, a_second=10)
    now, logged, total = 1.0, 0, 0
    for size, pause in lines:
        now += pause
        total += size
        logged += size if budget.allows(size, now) else 0
    assert logged <= 100 + 10 * (now - 1.0) + 1e-6
    assert logged + budget.dropped == total


async def test_the_tail_has_the_last_lines_and_the_one_without_an_end() -> None:
    read, write = os.pipe()
    tail = OutputTail(read, "it")
    os.write(write, b"".join(b"%05d %s\n" % (i, b"x" * 50) for i in range(1000)))
    os.write(write, b"no end")
    lines = tail.text().split("\n")
    assert lines[-1] == "no end"
    assert lines[-2].startswith("00999")
    assert lines[0].startswith("00600")
    tail.close()
    os.close(write)


async def test_what_is_forgotten_is_logged_and_told_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "snakepit.output")
    read, write = os.pipe()
    tail = OutputTail(read, "it")
    os.write(write, b"read\n")
    assert tail.text() == "read"
    os.write(write, b"in the pipe\nno end")
    tail.forget()
    os.write(write, b"new\n")
    assert tail.text() == "new"
    assert caplog.messages == ["it: read", "it: in the pipe", "it: no end", "it: new"]
    tail.close()
    os.close(write)


async def test_a_line_without_end_is_cut_and_what_is_cut_is_noted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "snakepit.output")
    read, write = os.pipe()
    tail = OutputTail(read, "it")
    os.write(write, b"a" * 5000)
    assert len(tail.text()) == 2000
    os.write(write, b"\nnext\n")
    await until(lambda: "next" in caplog.text, "the line is logged")
    tail.close()
    os.close(write)
    assert "dropped 3000 bytes" in caplog.text
