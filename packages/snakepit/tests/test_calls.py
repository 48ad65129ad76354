"""One call: its states, its one answer, and its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from snakepit.calls.call import Call, CallEvent, CallOutcome, CallState
from snakepit.calls.streams import StreamBuffer
from snakepit.errors import CallTimeout, PoolClosed, ProtocolError, StreamBroken, WorkerLost
from snakepit.loops.wakeups import WakeUps

ALLOWED = {
    "new": {"queue": "queued", "start": "running", "end": "ended"},
    "queued": {"start": "running", "end": "ended"},
    "running": {"recall": "queued", "stop": "stopping", "end": "ended"},
    "stopping": {"end": "ended"},
    "ended": {},
}


def new_call(*, stream: bool = False) -> Call:
    buffer = StreamBuffer() if stream else None
    return Call("work", {}, wakeups=WakeUps(), submitted_at=0.0, stream=buffer)


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), [*product(CallState, CallEvent)])
async def test_every_event_in_every_state(state: CallState, event: CallEvent) -> None:
    call = new_call()
    call.state = state
    follows = ALLOWED[state.value].get(event.value)
    if follows is None:
        with pytest.raises(ProtocolError, match=f"{event.value} can't happen.*{state.value}"):
            call.apply(event)
        assert call.state is state
    else:
        call.apply(event)
        assert call.state is CallState(follows)


async def test_a_new_call_has_not_been_answered() -> None:
    call = new_call()
    assert call.state is CallState.NEW
    assert call.outcome is None
    assert await result_of(call) == "nothing"


# --- answers -------------------------------------------------------------------------------------

ANSWERS: dict[CallOutcome, Callable[[Call], object]] = {
    CallOutcome.SUCCEEDED: lambda call: call.succeed(7),
    CallOutcome.FAILED: lambda call: call.fail(PoolClosed("closed")),
    CallOutcome.TIMED_OUT: lambda call: call.fail(CallTimeout("late")),
    CallOutcome.CANCELLED: lambda call: call.cancel(),
}
RESULTS: dict[CallOutcome, type] = {
    CallOutcome.SUCCEEDED: int,
    CallOutcome.FAILED: PoolClosed,
    CallOutcome.TIMED_OUT: CallTimeout,
    CallOutcome.CANCELLED: asyncio.CancelledError,
}


async def result_of(call: Call) -> Any:
    """What the caller awaits: a value, an error, or that nothing came."""
    if call.outcome is None:
        return "nothing"
    try:
        return await call
    except BaseException as error:
        return error


@pytest.mark.parametrize(("first", "second"), [*product(CallOutcome, CallOutcome)])
async def test_the_first_answer_counts(first: CallOutcome, second: CallOutcome) -> None:
    call = new_call()
    ANSWERS[first](call)
    ANSWERS[second](call)
    assert call.outcome is first
    assert type(await result_of(call)) is RESULTS[first]


async def test_what_the_caller_gets() -> None:
    succeeded, failed, cancelled = new_call(), new_call(), new_call()
    error = PoolClosed("closed")
    succeeded.succeed([1])
    failed.fail(error)
    cancelled.cancel()
    assert await succeeded == [1]
    assert await result_of(failed) is error
    with pytest.raises(asyncio.CancelledError):
        await cancelled


@pytest.mark.parametrize("outcome", [CallOutcome.SUCCEEDED, CallOutcome.FAILED])
async def test_an_answer_for_a_caller_that_went_away_changes_nothing(
    outcome: CallOutcome,
) -> None:
    call = new_call()
    assert call.cancel()
    ANSWERS[outcome](call)
    assert call.outcome is CallOutcome.CANCELLED


async def test_the_answer_to_a_stream_is_its_end() -> None:
    complete, broken = new_call(stream=True), new_call(stream=True)
    assert complete.stream is not None
    assert broken.stream is not None
    complete.succeed(None)
    assert await complete.stream.next_items() == []
    error = PoolClosed("closed")
    broken.fail(error)
    with pytest.raises(PoolClosed) as caught:
        await broken.stream.next_items()
    assert caught.value is error


async def test_a_lost_worker_is_the_error_of_a_call_and_the_cause_of_a_streams() -> None:
    lost = WorkerLost.of(worker_id="w", pid=1, reason="crash", phase="call", signal="SIGKILL")
    lost.retryable = True
    unary, stream = new_call(), new_call(stream=True)
    unary.lose(lost)
    assert await result_of(unary) is lost
    assert stream.stream is not None
    stream.stream.push([1, 2], 3)
    stream.lose(lost)
    assert await stream.stream.next_items() == [1, 2]
    with pytest.raises(StreamBroken, match=r"after 2 items.*SIGKILL") as caught:
        await stream.stream.next_items()
    assert caught.value.__cause__ is lost
    assert caught.value.delivered == 2
    assert caught.value.retryable


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "idle_limit", "expected"),
    [(None, None, None), (9.0, None, 9.0), (None, 2.0, 7.0), (9.0, 2.0, 7.0), (6.0, 2.0, 6.0)],
)
async def test_the_first_of_a_streams_limits_counts(
    deadline: float | None, idle_limit: float | None, expected: float | None
) -> None:
    call = new_call()
    call.deadline = deadline
    assert call.limit_at(5.0) == deadline
    call.stream = StreamBuffer(idle_limit)
    assert call.limit_at(5.0) == expected
