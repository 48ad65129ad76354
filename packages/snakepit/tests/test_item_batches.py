"""Which items are gathered, and that gathering changes neither order nor credit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.wire.batching import MOST_BYTES, MOST_ITEMS, QUICK, RUN, ItemBatches
from snakepit.wire.credit import WINDOW, Credit, ReceiveWindow, SendWindow
from snakepit.wire.frames import FrameDecoder
from snakepit.wire.messages import item_body, items_size, read_items

MUCH = Credit(1 << 40, 1 << 40)


def add(batches: ItemBatches, item: object, now: float, call_id: int = 1) -> bool:
    return batches.add(call_id, item_body(item, None), SendWindow(MUCH), now)


def received(data: bytes) -> list[tuple[int, list[object]]]:
    return [(frame.call_id, read_items(frame)) for frame in FrameDecoder().feed(data)]


def test_items_are_gathered_only_after_a_run_of_quick_ones() -> None:
    batches, now = ItemBatches(), 100.0
    for number in range(RUN):
        assert add(batches, number, now)
        assert received(batches.take()) == [(1, [number])]
        now += QUICK / 2
        batches.sent(now)
    for number in range(MOST_ITEMS - 1):
        assert not add(batches, number, now)
        now += QUICK / 2
    assert add(batches, MOST_ITEMS - 1, now)
    assert received(batches.take()) == [(1, list(range(MOST_ITEMS)))]
    assert not batches.gathered
    # The run goes on; a slow item ends it, and takes along what was gathered.
    assert not add(batches, "quick", now)
    assert add(batches, "slow", now + 2 * QUICK)
    assert received(batches.take()) == [(1, ["quick", "slow"])]


def test_an_item_that_is_not_small_is_sent_with_what_was_gathered() -> None:
    batches, now = ItemBatches(), 100.0
    for number in range(RUN):
        add(batches, number, now)
        batches.take()
    assert not add(batches, "small", now)
    assert add(batches, bytes(MOST_BYTES), now)
    assert received(batches.take()) == [(1, ["small", bytes(MOST_BYTES)])]


def test_a_producer_that_is_never_quick_sends_each_item_at_once() -> None:
    batches, now = ItemBatches(), 100.0
    for number in range(10 * RUN):
        assert add(batches, number, now)
        batches.take()
        batches.sent(now)
        now += QUICK


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers() | st.text(max_size=8) | st.just("x" * (MOST_BYTES + 1)),
            st.booleans(),
            st.booleans(),
        ),
        max_size=200,
    )
)
def test_order_and_credit_are_those_of_items_sent_one_by_one(
    steps: list[tuple[int, object, bool, bool]],
) -> None:
    """Each step: whose item, the item, whether it comes quickly, whether a flush comes then."""
    batches, now = ItemBatches(), 100.0
    windows = {call_id: SendWindow(WINDOW) for call_id in (1, 2, 3)}
    consumers = {call_id: ReceiveWindow() for call_id in windows}
    sent: dict[int, list[object]] = {call_id: [] for call_id in windows}
    got: dict[int, list[object]] = {call_id: [] for call_id in windows}
    used: dict[int, list[int]] = {call_id: [0, 0] for call_id in windows}

    def deliver() -> None:
        for frame in FrameDecoder().feed(batches.take()):
            items, size = read_items(frame), items_size(frame)
            got[frame.call_id] += items
            used[frame.call_id][0] += len(items)
            used[frame.call_id][1] += size
            consumers[frame.call_id].arrived(len(items), size)  # raises without credit
            credit = consumers[frame.call_id].consumed(len(items), size)
            if credit is not None:
                windows[frame.call_id].grant(credit)

    for call_id, item, quick, flush in steps:
        if not windows[call_id].is_open:
            deliver()
        assert windows[call_id].is_open
        now += QUICK / 2 if quick else 2 * QUICK
        sent[call_id].append(item)
        if batches.add(call_id, item_body(item, None), windows[call_id], now) or flush:
            deliver()
    deliver()
    assert got == sent
    for call_id, window in windows.items():
        # What the producer counts is what the consumer counts.
        assert [window._sent_items, window._sent_bytes] == used[call_id]
