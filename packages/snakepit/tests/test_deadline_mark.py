"""The deadline that a worker shows its keeper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from snakepit.worker.marks import DeadlineMark, create_mark, read_mark


@contextmanager
def new_mark() -> Iterator[tuple[DeadlineMark, int]]:
    """A worker's mark, and the descriptor on which its keeper sees it."""
    fd = create_mark()
    yield DeadlineMark(os.dup(fd)), fd
    os.close(fd)


def test_nothing_runs_at_first() -> None:
    with new_mark() as (_, fd):
        assert read_mark(fd) is None


def test_one_call_shows_its_deadline_until_it_ends() -> None:
    with new_mark() as (mark, fd):
        mark.enter(12.5)
        assert read_mark(fd) == 12.5
        mark.leave(12.5)
        assert read_mark(fd) is None


def test_a_mark_that_was_cut_off_or_overwritten_says_nothing() -> None:
    with new_mark() as (_, fd):
        os.pwrite(fd, b"\xff" * 8, 0)  # not a number
        assert read_mark(fd) is None
        os.ftruncate(fd, 3)
        assert read_mark(fd) is None


@given(st.lists(st.tuples(st.floats(1.0, 1e9), st.booleans())))
def test_of_many_calls_the_earliest_counts(steps: list[tuple[float, bool]]) -> None:
    running: list[float] = []
    with new_mark() as (mark, fd):
        for deadline, ends_one in steps:
            if ends_one and running:
                mark.leave(running.pop(int(deadline) % len(running)))
            else:
                running.append(deadline)
                mark.enter(deadline)
            assert read_mark(fd) == min(running, default=None)
