"""What every storage does, memory and databases alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from storage_tables import (
    COUNTERS,
    ITEMS,
    MARKS,
    Counter,
    Item,
    Mark,
    a_storage,
    add_one,
    all_items,
    put_all,
)

from snakepit.errors import ConfigurationError, SnakepitError
from snakepit_grpc_bridge.errors import StorageUnavailable
from snakepit_grpc_bridge.storage import (
    Change,
    ReadTransaction,
    Span,
    Storage,
    Transaction,
)

# --- transactions --------------------------------------------------------------------------------


async def test_work_that_raises_leaves_nothing(storage_url: str) -> None:
    before = [Item("g", n, weight=float(n)) for n in range(3)]

    def work(tx: Transaction) -> None:
        tx.put(ITEMS, Item("g", 0, text="changed"))
        tx.delete(ITEMS, "g", 1)
        tx.insert(ITEMS, Item("g", 9, weight=1.0))
        tx.delete(ITEMS, "g", 9)
        tx.insert(COUNTERS, Counter("c", 1))
        assert tx.delete_span(ITEMS.span()) == 2
        raise ZeroDivisionError("as asked")

    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(*before))
        with pytest.raises(ZeroDivisionError, match="as asked"):
            await storage.transact(work)
        assert await storage.read(all_items) == before
        assert await storage.read(lambda tx: tx.scan(ITEMS.span(by="weight"))) == before
        assert await storage.read(lambda tx: tx.count(COUNTERS.span())) == 0


async def test_any_exception_of_work_reaches_the_caller(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        for error in (KeyError("k"), ConnectionError(), OSError(28, "no space"), MemoryError()):
            with pytest.raises(type(error)) as raised:
                await storage.transact(partial(fail, error))
            assert raised.value is error
        with pytest.raises(RuntimeError, match="StopIteration"):
            await storage.transact(lambda tx: next(iter(())))


def fail(error: BaseException, _: object) -> None:
    raise error


async def test_a_transaction_sees_its_own_writes(storage_url: str) -> None:
    def work(tx: Transaction) -> None:
        tx.put(ITEMS, Item("g", 1, weight=1.0))
        assert tx.get(ITEMS, "g", 1) == Item("g", 1, weight=1.0)
        tx.put(ITEMS, Item("g", 1, weight=2.0))
        assert tx.scan(ITEMS.span(by="weight")) == [Item("g", 1, weight=2.0)]
        tx.put(ITEMS, Item("g", 1))
        assert tx.scan(ITEMS.span(by="weight")) == []
        assert tx.count(ITEMS.span("g")) == 1

    async with a_storage(storage_url) as storage:
        await storage.transact(work)


async def test_tasks_that_count_lose_nothing(storage_url: str) -> None:
    seen: list[int] = []

    async def count(storage: Storage) -> None:
        for _ in range(5):
            seen.append(await storage.transact(add_one))

    async with a_storage(storage_url) as storage:
        await asyncio.gather(*(count(storage) for _ in range(32)))
        assert await storage.read(lambda tx: tx.get(COUNTERS, "c")) == Counter("c", 160)
    assert sorted(seen) == list(range(1, 161))


async def test_of_many_that_wait_one_that_fails_fails_alone(storage_url: str) -> None:
    def work(tx: Transaction, number: int) -> None:
        tx.put(ITEMS, Item("g", number))
        tx.put(COUNTERS, Counter(f"c{number}", 1))
        if number % 3 == 0:
            raise ZeroDivisionError(number)

    async with a_storage(storage_url) as storage:
        ends = await asyncio.gather(
            *(storage.transact(partial(work, number=number)) for number in range(40)),
            return_exceptions=True,
        )
        found = await storage.read(all_items)
        counted = await storage.read(lambda tx: tx.count(COUNTERS.span()))
    good = [number for number in range(40) if number % 3]
    assert [number for number, end in enumerate(ends) if end is None] == good
    assert all(isinstance(end, ZeroDivisionError) for end in ends if end is not None)
    assert [item.number for item in found] == good
    assert counted == len(good)


async def test_a_condition_over_several_rows_holds_under_concurrency(storage_url: str) -> None:
    """Each sees a free place and takes it: write skew, were they not serializable."""

    def take(tx: Transaction, name: str) -> bool:
        return tx.count(MARKS.span()) < 5 and tx.insert(MARKS, Mark(name))

    async with a_storage(storage_url) as storage:
        taken = await asyncio.gather(
            *(storage.transact(partial(take, name=f"m{number}")) for number in range(20))
        )
        assert sum(taken) == 5
        assert await storage.read(lambda tx: tx.count(MARKS.span())) == 5


async def test_a_cancelled_caller_leaves_all_or_nothing(storage_url: str) -> None:
    def work(tx: Transaction, name: str) -> None:
        tx.put(COUNTERS, Counter(name, 1))
        tx.put(MARKS, Mark(name))

    async with a_storage(storage_url) as storage:
        for number in range(20):
            name = f"n{number}"
            task = asyncio.create_task(storage.transact(partial(work, name=name)))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # One read, as a transaction whose caller has gone may still be going on.
            counters, marks = await storage.read(
                lambda tx: (tx.scan(COUNTERS.span()), tx.scan(MARKS.span()))
            )
            assert [counter.name for counter in counters] == [mark.name for mark in marks]


# --- spans ---------------------------------------------------------------------------------------


def scan(tx: ReadTransaction, span: Span[Item], **how: Any) -> list[Item]:
    return tx.scan(span, **how)


async def test_pages_of_a_span(storage_url: str) -> None:
    items = [Item("g", n, weight=float(n // 3)) for n in range(10)]
    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(*items, Item("h", 0, weight=0.0)))
        for by, reverse in ((None, False), (None, True), ("weight", False), ("weight", True)):
            span = ITEMS.span("g") if by is None else ITEMS.span(by="weight", start=0.5)
            whole = await storage.read(partial(scan, span=span, reverse=reverse))
            assert len(whole) == (10 if by is None else 7)
            assert await pages(storage, span, reverse) == whole


async def pages(storage: Storage, span: Span[Item], reverse: bool) -> list[Item]:
    found: list[Item] = []
    while True:
        last = found[-1] if found else None
        page = await storage.read(partial(scan, span=span, after=last, limit=3, reverse=reverse))
        found += page
        if len(page) < 3:
            return found


async def test_prune_deletes_a_span_in_batches(storage_url: str) -> None:
    items = [Item("g", n, weight=float(n) if n % 2 else None) for n in range(1000)]
    told: list[int] = []
    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(*items))
        stop = storage.on_commit(lambda changes: told.append(len(changes)))
        assert await storage.prune(ITEMS.span(by="weight", stop=900.0)) == 450
        stop()
        assert await storage.prune(ITEMS.span(by="weight", stop=900.0)) == 0
        left = await storage.read(all_items)
    assert [i.number for i in left] == [n for n in range(1000) if n % 2 == 0 or n > 900]
    assert told == [200, 200, 50]


# --- what is told --------------------------------------------------------------------------------


async def test_listeners_hear_of_each_commit_before_its_caller(storage_url: str) -> None:
    told: list[list[Change]] = []

    def put_and_fail(tx: Transaction) -> None:
        tx.put(MARKS, Mark("x"))
        raise ZeroDivisionError

    def work(tx: Transaction) -> None:
        tx.put(COUNTERS, Counter("a", 1))
        tx.put(COUNTERS, Counter("a", 2))
        tx.insert(COUNTERS, Counter("a", 3))
        tx.delete(MARKS, "not there")
        tx.insert(MARKS, Mark("m"))
        tx.delete_span(MARKS.span())

    async with a_storage(storage_url) as storage:
        stop = storage.on_commit(lambda changes: told.append(list(changes)))
        await storage.transact(work)
        assert [set(changes) for changes in told] == [
            {Change(COUNTERS, ("a",)), Change(MARKS, ("m",))}
        ]
        with pytest.raises(ZeroDivisionError):
            await storage.transact(put_and_fail)
        await storage.transact(lambda tx: tx.get(MARKS, "x"))
        assert len(told) == 1
        stop()
        stop()
        await storage.transact(add_one)
        assert len(told) == 1


def count_to(tx: Transaction, number: int) -> None:
    tx.put(COUNTERS, Counter(f"c{number}", number))


async def test_listeners_hear_of_commits_in_their_order(storage_url: str) -> None:
    told: list[Sequence[Change]] = []
    async with a_storage(storage_url) as storage:
        storage.on_commit(told.append)
        for number in range(20):
            await storage.transact(partial(count_to, number=number))
    assert [changes[0].key for changes in told] == [(f"c{number}",) for number in range(20)]


async def test_a_listener_that_fails_is_logged_and_hurts_nobody(
    storage_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Sequence[Change]] = []
    async with a_storage(storage_url) as storage:
        storage.on_commit(partial(fail, ZeroDivisionError()))
        storage.on_commit(told.append)
        assert await storage.transact(add_one) == 1
    assert len(told) == 1
    assert "listener" in caplog.text


# --- life ----------------------------------------------------------------------------------------


async def test_it_can_be_used_only_while_it_is_open(storage_url: str) -> None:
    storage = a_storage(storage_url)
    await assert_not_open(storage)
    await storage.aclose()
    async with a_storage(storage_url) as storage:
        with pytest.raises(ConfigurationError):
            await storage.start()
        await storage.transact(add_one)
    await assert_not_open(storage)
    await storage.aclose()


async def assert_not_open(storage: Storage) -> None:
    for use in (
        lambda: storage.transact(add_one),
        lambda: storage.read(all_items),
        lambda: storage.prune(ITEMS.span()),
        storage.foreign_version,
    ):
        with pytest.raises(StorageUnavailable, match="not open") as raised:
            await use()
        assert not raised.value.retryable


async def test_closing_waits_for_what_was_submitted(storage_url: str) -> None:
    storage = a_storage(storage_url)
    await storage.start()
    tasks = [asyncio.create_task(storage.transact(add_one)) for _ in range(10)]
    await asyncio.sleep(0)
    await storage.aclose()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    counted = [end for end in ends if isinstance(end, int)]
    assert sorted(counted) == list(range(1, len(counted) + 1))
    assert all(isinstance(end, (int, SnakepitError)) for end in ends)


async def test_own_commits_are_no_foreign_ones(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        await storage.transact(add_one)
        version = await storage.foreign_version()
        for _ in range(8):
            await storage.transact(add_one)
        assert await storage.foreign_version() == version
