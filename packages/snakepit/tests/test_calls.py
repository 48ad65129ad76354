"""One call: its states, its one answer, and the items of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.calls import STREAM_CREDIT, Call, CallEvent, CallOutcome, CallState, StreamBuffer
from snakepit.errors import CallTimeout, PoolClosed, ProtocolError

ALLOWED = {
    "new": {"queue": "queued", "start": "running", "end": "ended"},
    "queued": {"start": "running", "end": "ended"},
    "running": {"stop": "stopping", "end": "ended"},
    "stopping": {"end": "ended"},
    "ended": {},
}


def new_call(*, stream: bool = False) -> Call:
    answer = asyncio.get_running_loop().create_future()
    buffer = StreamBuffer() if stream else None
    return Call("work", {}, answer=answer, submitted_at=0.0, stream=buffer)


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
    assert not call.answer.done()


# --- answers -------------------------------------------------------------------------------------

ANSWERS: dict[CallOutcome, Callable[[Call], None]] = {
    CallOutcome.SUCCEEDED: lambda call: call.succeed(7),
    CallOutcome.FAILED: lambda call: call.fail(PoolClosed("closed")),
    CallOutcome.TIMED_OUT: lambda call: call.fail(CallTimeout("late")),
    CallOutcome.CANCELLED: lambda call: call.cancel(),
}


def result_of(call: Call) -> Any:
    """What the caller awaits: a value, an error, or that nothing came."""
    if not call.answer.done():
        return "nothing"
    return call.answer.exception() or call.answer.result()


@pytest.mark.parametrize(("first", "second"), [*product(CallOutcome, CallOutcome)])
async def test_the_first_answer_counts(first: CallOutcome, second: CallOutcome) -> None:
    call = new_call()
    ANSWERS[first](call)
    before = result_of(call)
    ANSWERS[second](call)
    assert call.outcome is first
    assert result_of(call) is before


async def test_what_the_caller_gets() -> None:
    succeeded, failed, cancelled = new_call(), new_call(), new_call()
    error = PoolClosed("closed")
    succeeded.succeed([1])
    failed.fail(error)
    cancelled.cancel()
    assert await succeeded.answer == [1]
    assert failed.answer.exception() is error
    assert not cancelled.answer.done()


@pytest.mark.parametrize("outcome", [CallOutcome.SUCCEEDED, CallOutcome.FAILED])
async def test_an_answer_for_a_caller_that_went_away_is_kept_as_the_outcome(
    outcome: CallOutcome,
) -> None:
    call = new_call()
    call.answer.cancel()
    ANSWERS[outcome](call)
    assert call.outcome is outcome


async def test_the_answer_to_a_stream_is_its_end() -> None:
    complete, broken = new_call(stream=True), new_call(stream=True)
    assert complete.stream is not None
    assert broken.stream is not None
    complete.succeed(None)
    with pytest.raises(StopAsyncIteration):
        await complete.stream.next()
    error = PoolClosed("closed")
    broken.fail(error)
    with pytest.raises(PoolClosed) as caught:
        await broken.stream.next()
    assert caught.value is error
    assert not complete.answer.done()
    assert not broken.answer.done()


# --- streams -------------------------------------------------------------------------------------


async def test_items_come_in_order_and_the_end_after_them() -> None:
    buffer = StreamBuffer()
    buffer.push([1, 2])
    buffer.push([3])
    buffer.finish(None)
    assert [await buffer.next() for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await buffer.next()


async def test_an_error_comes_after_the_items_before_it_and_again_when_asked_again() -> None:
    buffer = StreamBuffer()
    buffer.push(["item"])
    buffer.finish(PoolClosed("closed"))
    buffer.finish(None)
    assert await buffer.next() == "item"
    for _ in range(2):
        with pytest.raises(PoolClosed):
            await buffer.next()


async def test_items_after_the_end_are_dropped() -> None:
    buffer = StreamBuffer()
    buffer.finish(CallTimeout("late"))
    buffer.push(["too late"])
    with pytest.raises(CallTimeout):
        await buffer.next()


@pytest.mark.parametrize("wake", ["item", "end", "error"])
async def test_a_waiting_consumer_is_woken(wake: str) -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next())
    await asyncio.sleep(0)
    assert not consumer.done()
    match wake:
        case "item":
            buffer.push(["item"])
            assert await consumer == "item"
        case "end":
            buffer.finish(None)
            # Awaiting the task would raise it here.
            await asyncio.wait([consumer])
            assert isinstance(consumer.exception(), StopAsyncIteration)
        case _:
            buffer.finish(PoolClosed("closed"))
            with pytest.raises(PoolClosed):
                await consumer


async def test_a_consumer_that_was_cancelled_loses_no_item() -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next())
    await asyncio.sleep(0)
    consumer.cancel()
    buffer.push(["item"])
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert await buffer.next() == "item"


async def test_an_empty_batch_wakes_nobody_for_good() -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next())
    await asyncio.sleep(0)
    buffer.push([])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not consumer.done()
    buffer.push([1])
    assert await consumer == 1


async def test_credit_is_granted_in_halves_for_what_was_consumed() -> None:
    buffer = StreamBuffer()
    buffer.push(list(range(STREAM_CREDIT)))
    due = []
    for _ in range(STREAM_CREDIT):
        await buffer.next()
        due.append(buffer.credit_due())
    half = STREAM_CREDIT // 2
    assert [index for index, items in enumerate(due, start=1) if items] == [half, 2 * half]
    assert set(due) == {0, half}


async def test_nothing_is_granted_after_the_end() -> None:
    buffer = StreamBuffer()
    buffer.push(list(range(STREAM_CREDIT)))
    buffer.finish(None)
    for _ in range(STREAM_CREDIT):
        await buffer.next()
        assert buffer.credit_due() == 0


async def test_more_items_than_granted_are_refused() -> None:
    buffer = StreamBuffer()
    buffer.push(list(range(STREAM_CREDIT)))
    with pytest.raises(ProtocolError, match="brought 1 items when 0 were granted"):
        buffer.push(["one too many"])
    for _ in range(STREAM_CREDIT):
        await buffer.next()
    half = buffer.credit_due()
    assert half > 0
    buffer.push(list(range(half)))
    with pytest.raises(ProtocolError):
        buffer.push([1])


@given(st.lists(st.integers(1, STREAM_CREDIT), max_size=30), st.integers(1, STREAM_CREDIT))
def test_a_producer_within_its_credit_is_never_refused_nor_starved(
    bursts: list[int], first: int
) -> None:
    async def run() -> None:
        buffer = StreamBuffer()
        credit, sent = STREAM_CREDIT, 0
        got: list[int] = []
        for burst in [first, *bursts]:
            items = min(burst, credit)
            buffer.push(list(range(sent, sent + items)))
            sent, credit = sent + items, credit - items
            while len(got) < sent:
                got.append(await buffer.next())
                credit += buffer.credit_due()
            # With nothing under way, the producer may send on.
            assert credit > STREAM_CREDIT // 2
        assert got == list(range(sent))

    asyncio.run(run())
