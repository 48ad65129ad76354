"""What lies between a stream's producer and its consumer: order, end, credit and waiting."""

from __future__ import annotations

import asyncio
import math
import time
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.calls.streams import StreamBuffer
from snakepit.errors import CallTimeout, PoolClosed, ProtocolError
from snakepit.wire.credit import WINDOW, SendWindow

SIZES = st.one_of(st.integers(1, 100), st.integers(1, 2 * WINDOW.bytes), st.just(10 * WINDOW.bytes))
FRAMES = st.lists(st.tuples(st.integers(1, 2 * WINDOW.items), SIZES), max_size=40)


async def test_items_come_in_order_and_the_end_after_them() -> None:
    buffer = StreamBuffer()
    buffer.push([1, 2], 2)
    buffer.push([3], 1)
    buffer.finish(None)
    assert await buffer.next_items() == [1, 2]
    assert await buffer.next_items() == [3]
    for _ in range(2):
        assert await buffer.next_items() == []
    assert buffer.delivered == 3


async def test_an_error_comes_after_the_items_before_it_and_again_when_asked_again() -> None:
    buffer = StreamBuffer()
    buffer.push(["item"], 5)
    buffer.finish(PoolClosed("closed"))
    buffer.finish(None)
    assert await buffer.next_items() == ["item"]
    for _ in range(2):
        with pytest.raises(PoolClosed):
            await buffer.next_items()


async def test_items_after_the_end_are_dropped() -> None:
    buffer = StreamBuffer()
    buffer.finish(CallTimeout("late"))
    buffer.push(["too late"], 9)
    with pytest.raises(CallTimeout):
        await buffer.next_items()
    assert buffer.delivered == 0


@pytest.mark.parametrize("wake", ["item", "end", "error"])
async def test_a_waiting_consumer_is_woken(wake: str) -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next_items())
    await asyncio.sleep(0)
    assert not consumer.done()
    match wake:
        case "item":
            buffer.push(["item"], 5)
            assert await consumer == ["item"]
        case "end":
            buffer.finish(None)
            assert await consumer == []
        case _:
            buffer.finish(PoolClosed("closed"))
            with pytest.raises(PoolClosed):
                await consumer


async def test_a_consumer_that_was_cancelled_loses_no_item() -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next_items())
    await asyncio.sleep(0)
    consumer.cancel()
    buffer.push(["item"], 5)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert await buffer.next_items() == ["item"]


# --- credit --------------------------------------------------------------------------------------


async def consume(buffer: StreamBuffer, window: SendWindow | None = None) -> list[object]:
    items = await buffer.next_items()
    credit = buffer.consumed()
    if credit is not None and window is not None:
        window.grant(credit)
    return items


async def test_credit_is_granted_in_halves_for_what_was_consumed() -> None:
    for count, size in ((WINDOW.items, 1), (8, WINDOW.bytes // 8)):
        buffer, due = StreamBuffer(), []
        for _ in range(count):
            buffer.push(["item"], size)
        for _ in range(count):
            await buffer.next_items()
            due.append(buffer.consumed())
        half = count // 2
        assert [index for index, credit in enumerate(due, 1) if credit] == [half, count]
        assert [credit for credit in due if credit] == [(half, half * size)] * 2


async def test_nothing_is_granted_before_the_items_are_used_up_nor_twice() -> None:
    buffer = StreamBuffer()
    buffer.push(["large"], WINDOW.bytes)
    assert buffer.consumed() is None
    await buffer.next_items()
    assert buffer.consumed() == (1, WINDOW.bytes)
    assert buffer.consumed() is None


async def test_nothing_is_granted_after_the_end() -> None:
    buffer = StreamBuffer()
    buffer.push(list(range(WINDOW.items)), 100)
    buffer.finish(None)
    await buffer.next_items()
    assert buffer.consumed() is None


async def test_more_items_than_granted_are_refused() -> None:
    buffer = StreamBuffer()
    buffer.push(list(range(WINDOW.items)), 100)
    with pytest.raises(ProtocolError, match="brought 1 items when 0 items"):
        buffer.push(["one too many"], 1)
    await consume(buffer)
    buffer.push(list(range(WINDOW.items)), 100)


async def test_items_are_refused_when_no_bytes_are_granted_but_the_last_may_be_large() -> None:
    buffer = StreamBuffer()
    buffer.push(["small"], WINDOW.bytes - 1)
    buffer.push(["large"], 100 * WINDOW.bytes)
    with pytest.raises(ProtocolError, match=r"brought 1 items when \d+ items and -\d+ bytes"):
        buffer.push(["item"], 1)
    await consume(buffer)
    with pytest.raises(ProtocolError):
        buffer.push(["item"], 1)
    await consume(buffer)
    buffer.push(["item"], 1)


async def test_a_frame_without_items_is_refused() -> None:
    with pytest.raises(ProtocolError, match="without items"):
        StreamBuffer().push([], 1)


@given(FRAMES, st.lists(st.booleans(), max_size=80))
def test_a_producer_that_keeps_to_its_credit_is_never_refused_nor_starved(
    frames: list[tuple[int, int]], consumes: list[bool]
) -> None:
    async def run() -> None:
        buffer, window = StreamBuffer(), SendWindow(WINDOW)
        sent: list[int] = []
        got: list[object] = []
        under_way: list[tuple[int, int]] = []
        turns = chain(consumes, [True] * 1000)
        for items, size in frames:
            while not window.is_open or next(turns):
                if not under_way:
                    assert window.is_open  # with nothing under way, the producer may go on
                    break
                got += await consume(buffer, window)
                under_way.pop(0)
            items = min(items, window.items)
            buffer.push(list(range(len(sent), len(sent) + items)), size)
            window.spend(items, size)
            sent += range(len(sent), len(sent) + items)
            under_way.append((items, size))
            # All that waits but one frame is within the window.
            assert sum(count for count, _ in under_way) <= WINDOW.items
            assert sum(size for _, size in under_way[:-1]) < WINDOW.bytes
        buffer.finish(None)
        while items_left := await buffer.next_items():
            got += items_left
        assert got == sent
        assert buffer.delivered == len(sent)

    asyncio.run(run())


# --- waiting -------------------------------------------------------------------------------------


async def test_a_stream_without_an_idle_limit_is_never_idle() -> None:
    buffer = StreamBuffer()
    consumer = asyncio.create_task(buffer.next_items())
    await asyncio.sleep(0)
    assert buffer.idle_until(time.monotonic(), 0.0) == math.inf
    buffer.push([1], 1)
    await consumer


async def test_only_the_consumers_waiting_counts_as_idle() -> None:
    buffer = StreamBuffer(idle_limit=2.0)
    now = time.monotonic()
    assert buffer.idle_until(now, now - 100) == now + 2  # the consumer has not asked yet
    consumer = asyncio.create_task(buffer.next_items())
    await asyncio.sleep(0)
    later = time.monotonic() + 1
    since = buffer.idle_until(later, now - 100) - 2
    assert now <= since < later  # it began to wait in between
    assert buffer.idle_until(later, None) == later + 2  # no worker runs it yet
    assert buffer.idle_until(later, later - 0.5) == later + 1.5  # one does since then
    buffer.push([1], 1)
    assert buffer.idle_until(later, now - 100) == later + 2
    await consumer
    assert buffer.idle_until(later, now - 100) == later + 2
