"""Commands that take many calls at once, as the worker runs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit import Batch, command
from snakepit.calls.look_ahead import CommandTimes
from snakepit.errors import ConfigurationError, Outcome, ProtocolError, RemoteError, SnakepitError
from snakepit.worker.batches import BatchCommand, read_batches
from snakepit.worker.registry import commands_of, described


class Sums:
    @command(batch=Batch(max_size=3))
    def add(self, x: list[int], y: list[int] | int = 1) -> list[int]:
        assert isinstance(y, list)
        return [a + b for a, b in zip(x, y, strict=True)]

    @command(name="later", batch=Batch(max_size=5, max_wait=timedelta(milliseconds=2)))
    async def add_later(self, x: list[int]) -> list[int]:
        return x

    @command
    def plain(self) -> None: ...


def test_a_command_with_batches_is_two_for_the_host() -> None:
    commands = commands_of(Sums())
    assert set(commands) == {"add", "add[]", "later", "later[]", "plain"}
    assert commands["add"].function(x=1) == 2
    assert commands["add[]"].function(calls=[{"x": 1}, {"x": 1, "y": 5}]) == [2, 6]
    assert described(commands) == {
        "add": {"stream": False, "batch": {"max_size": 3, "max_wait": 0.0}},
        "add[]": {"stream": False},
        "later": {"stream": False, "batch": {"max_size": 5, "max_wait": 0.002}},
        "later[]": {"stream": False},
        "plain": {"stream": False},
    }
    assert read_batches(described(commands)) == {
        "add": Batch(max_size=3),
        "later": Batch(max_size=5, max_wait=0.002),
    }


async def test_an_async_one_serves_both_ways() -> None:
    commands = commands_of(Sums())
    assert await commands["later"].function(x=1) == 1
    assert await commands["later[]"].function(calls=[{"x": 1}, {"x": 2}]) == [1, 2]


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=3), max_size=9))
def test_calls_with_wrong_arguments_fail_alone_with_what_a_plain_call_would_say(
    calls: list[dict[str, int]],
) -> None:
    def add(x: int, y: int = 1) -> int:
        return x + y

    results = BatchCommand("add", Sums().add).run(calls)
    assert len(results) == len(calls)
    for args, result in zip(calls, results, strict=True):
        try:
            expected = add(**args)
        except TypeError:
            assert isinstance(result, TypeError)
            assert isinstance(result, RemoteError)
            assert str(result).startswith("add() ")
        else:
            assert result == expected


def test_the_method_is_not_called_for_no_calls() -> None:
    def fail(x: list[int]) -> None:
        raise AssertionError

    (error,) = BatchCommand("fail", fail).run([{"y": 1}])
    assert isinstance(error, TypeError)


def test_exceptions_among_the_results_are_as_if_the_command_had_raised_them() -> None:
    inner = SnakepitError("inner", outcome=Outcome.NONE, retryable=True)
    inner.from_peer = True

    def results(x: list[int]) -> list[Any]:
        return [KeyError("one"), inner, 3]

    one, two, three = BatchCommand("results", results).run([{"x": 1}] * 3)
    assert isinstance(one, KeyError)
    assert (one.outcome, one.retryable) == (Outcome.DONE, False)  # type: ignore[attr-defined]
    assert (two.outcome, two.retryable) == (Outcome.DONE, False)
    assert three == 3
    with pytest.raises(KeyError, match="one"):
        BatchCommand("results", lambda x: [KeyError("one")]).run_one(x=1)


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ([1], "returned 1 results for 2 calls"),
        ([1, 2, 3], "returned 3 results for 2 calls"),
        (None, "returned a NoneType for 2 calls"),
        ("ab", "returned a str for 2 calls"),
        (b"ab", "returned a bytes for 2 calls"),
        ({1: 2, 3: 4}, "returned a dict for 2 calls"),
        (iter([1, 2]), "returned a list_iterator for 2 calls"),
    ],
)
def test_what_is_no_sequence_of_as_many_results_is_refused(returned: Any, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        BatchCommand("add", lambda x: returned).run([{"x": 1}] * 2)
    assert caught.value.outcome is Outcome.DONE


def test_arrays_of_rows_stay_one_array_and_numbers_become_a_list() -> None:
    numpy = pytest.importorskip("numpy")
    rows = BatchCommand("rows", lambda x: numpy.ones((len(x), 3)))
    assert rows.run([{"x": 1}] * 4).shape == (4, 3)
    assert rows.run_one(x=1).tolist() == [1.0, 1.0, 1.0]
    # With a call less than results, there is no array that has them all.
    assert isinstance(rows.run([{"x": 1}, {"y": 1}]), list)
    assert list(BatchCommand("one", lambda x: numpy.ones(len(x))).run([{"x": 1}] * 2)) == [1.0, 1.0]


# --- what is refused -----------------------------------------------------------------------------


def method_with(parameters: str) -> Callable[..., Any]:
    found: Callable[..., Any] = eval(f"lambda self, {parameters}: None")
    return found


@pytest.mark.parametrize("parameters", ["*x", "**x", "x, *, y, **z"])
def test_parameters_without_a_name_are_refused(parameters: str) -> None:
    kind = type(
        "Kind", (), {"work": command(name="work", batch=Batch(max_size=2))(method_with(parameters))}
    )
    with pytest.raises(ConfigurationError, match="'work' is called with batches"):
        commands_of(kind())


def test_a_command_that_streams_takes_no_batches() -> None:
    class Streams:
        @command(batch=Batch(max_size=2))
        def count(self, n: list[int]) -> Any:
            yield from n

    with pytest.raises(ConfigurationError, match="'count' yields items"):
        commands_of(Streams())


def test_the_name_of_the_batches_is_taken_by_them() -> None:
    class Twice:
        @command(batch=Batch(max_size=2))
        def add(self, x: list[int]) -> list[int]:
            return x

        @command(name="add[]")
        def other(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"two commands named 'add\[\]'"):
        commands_of(Twice())


@pytest.mark.parametrize(
    "options", [{"max_size": 0}, {"max_size": 2.5}, {"max_size": 2, "max_wait": -1}]
)
def test_impossible_batches_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Batch(**options)


@pytest.mark.parametrize(
    "said",
    [3, [], {}, {"max_size": 2}, {"max_size": "2", "max_wait": 0}, {"max_size": 0, "max_wait": 0}],
)
def test_a_worker_that_says_nonsense_of_its_batches_breaks_the_protocol(said: Any) -> None:
    with pytest.raises(ProtocolError, match="'work' says of its batches"):
        read_batches({"work": {"stream": False, "batch": said}})


def test_what_a_later_version_says_of_batches_is_ignored() -> None:
    said = {"batch": {"max_size": 2, "max_wait": 0.5, "colour": "red"}}
    assert read_batches({"work": said, "odd": 3, "plain": {}}) == {
        "work": Batch(max_size=2, max_wait=0.5)
    }


def test_a_command_that_is_to_be_long_never_becomes_short() -> None:
    times = CommandTimes()
    times.keep_long("work[]")
    for _ in range(100):
        times.record("work[]", 0.0)
        times.record("other", 0.0)
    assert times.is_short("other")
    assert not times.is_short("work[]")
