"""What a worker knows of the host's calls: cancelled before they arrive, while they wait, or late.

And which command a request selects.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snakepit
from snakepit.errors import ProtocolError, StreamingNotSupported, UnknownCommand
from snakepit.wire.credit import WINDOW, Credit
from snakepit.wire.messages import CallRequest
from snakepit.worker.calls import IncomingCalls, Turn, select_command
from snakepit.worker.registry import commands_of


def start(calls: IncomingCalls, call_id: int) -> Turn:
    """Start a call, and see that it is registered if it really starts."""
    registered: list[int] = []
    turn = calls.start(call_id, registered.append, call_id)
    assert registered == ([call_id] if turn is Turn.START else [])
    return turn


def test_a_call_that_nobody_cancels_starts() -> None:
    calls = IncomingCalls()
    calls.received(1)
    assert start(calls, 1) is Turn.START


def test_cancelled_before_it_arrives_it_never_starts() -> None:
    calls = IncomingCalls()
    assert calls.withdraw(1)
    calls.received(1)
    assert start(calls, 1) is Turn.DROP


def test_cancelled_while_it_waits_it_never_starts() -> None:
    calls = IncomingCalls()
    calls.received(1)
    assert calls.withdraw(1)
    assert not calls.withdraw(1), "whoever withdraws a call answers for it, so only one may"
    assert start(calls, 1) is Turn.DROP


def test_withdrawn_without_an_answer_it_gets_one_on_its_arrival() -> None:
    calls = IncomingCalls()
    assert calls.withdraw(1, Turn.REFUSE)
    calls.received(1)
    assert start(calls, 1) is Turn.REFUSE


def test_cancelled_while_it_runs_it_is_for_the_engine_to_stop() -> None:
    calls = IncomingCalls()
    calls.received(1)
    assert start(calls, 1) is Turn.START
    assert not calls.withdraw(1)


@pytest.mark.parametrize("ended_id", [1, 3])
def test_a_cancellation_that_comes_after_the_end_changes_nothing(ended_id: int) -> None:
    calls = IncomingCalls()
    for call_id in (1, 3):
        calls.received(call_id)
        assert start(calls, call_id) is Turn.START
    assert not calls.withdraw(ended_id)
    calls.received(5)
    assert start(calls, 5) is Turn.START


def test_a_cancellation_hits_only_its_own_call() -> None:
    calls = IncomingCalls()
    calls.received(1)
    calls.received(3)
    assert calls.withdraw(3)
    assert calls.withdraw(7)
    calls.received(5)
    calls.received(7)
    turns = [start(calls, call_id) for call_id in (1, 3, 5, 7)]
    assert turns == [Turn.START, Turn.DROP, Turn.START, Turn.DROP]


@pytest.mark.parametrize("again", [1, 3, 4])
def test_ids_have_to_be_odd_and_ascend(again: int) -> None:
    calls = IncomingCalls()
    calls.received(3)
    with pytest.raises(ProtocolError, match=f"call id {again} is not odd and ascending"):
        calls.received(again)


@given(st.data())
def test_of_cancellation_and_start_whichever_is_first_wins(data: st.DataObject) -> None:
    """Two channels interleave at random; either the call starts or its cancellation is certain."""
    calls = IncomingCalls()
    arriving = list(range(1, 2 * data.draw(st.integers(1, 6)), 2))
    cancelling = data.draw(st.lists(st.sampled_from(arriving), unique=True))
    waiting: list[int] = []
    started: set[int] = set()
    withdrawn: set[int] = set()
    while arriving or waiting or cancelling:
        steps = [name for name, left in [("arrive", arriving), ("start", waiting)] if left]
        step = data.draw(st.sampled_from([*steps, "cancel"] if cancelling else steps))
        if step == "arrive":
            calls.received(arriving[0])
            waiting.append(arriving.pop(0))
        elif step == "start":
            call_id = waiting.pop(0)
            turn = Turn.DROP if call_id in withdrawn else Turn.START
            assert start(calls, call_id) is turn
            started.add(call_id)
        else:
            call_id = cancelling.pop(0)
            assert calls.withdraw(call_id) == (call_id not in started)
            withdrawn.add(call_id)


# --- selecting a command -------------------------------------------------------------------------


class Worker:
    @snakepit.command
    def add(self, x: int) -> int:
        return x

    @snakepit.command
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


COMMANDS = commands_of(Worker())


def request(command: str, credit: Credit | None = None) -> CallRequest:
    return CallRequest(command, {}, None, None, None, credit)


def test_a_command_is_selected_by_name_and_by_the_way_it_is_called() -> None:
    assert select_command(COMMANDS, request("add")).name == "add"
    assert select_command(COMMANDS, request("count", credit=WINDOW)).name == "count"


@pytest.mark.parametrize(
    ("command", "credit", "method"),
    [("add", WINDOW, r"with execute\(\)"), ("count", None, r"with execute_stream\(\)")],
)
def test_the_wrong_way_is_refused_and_the_right_one_named(
    command: str, credit: Credit | None, method: str
) -> None:
    with pytest.raises(StreamingNotSupported, match=method) as caught:
        select_command(COMMANDS, request(command, credit))
    assert caught.value.details == {"command": command}


def test_an_unknown_command_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(UnknownCommand, match="did you mean 'count'"):
        select_command(COMMANDS, request("cuont"))
