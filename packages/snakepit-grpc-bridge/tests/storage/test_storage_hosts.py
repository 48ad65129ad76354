"""Several hosts on one file, and on one server."""

from __future__ import annotations

import asyncio

import pytest
from storage_hosts import child, result_of, told
from storage_tables import COUNTERS, SCHEMA, Counter

from snakepit_grpc_bridge.errors import StorageBusy
from snakepit_grpc_bridge.storage import FaultPoint, ReadTransaction, Transaction, open_storage


def count(tx: ReadTransaction) -> int:
    found = tx.get(COUNTERS, "c")
    return 0 if found is None else found.count


def add_one(tx: Transaction) -> None:
    tx.put(COUNTERS, Counter("c", count(tx) + 1))


@pytest.mark.slow
async def test_writers_in_two_processes_lose_nothing(database_url: str) -> None:
    first, second = await asyncio.gather(
        result_of("count", database_url, "5"), result_of("count", database_url, "5")
    )
    async with open_storage(database_url, SCHEMA) as storage:
        assert await storage.read(count) == 2 * 16 * 5
    # They did get in each other's way.
    assert first[0]["conflicts"] + second[0]["conflicts"] > 0


async def test_commits_of_another_host_change_the_foreign_version(database_url: str) -> None:
    async with (
        open_storage(database_url, SCHEMA) as ours,
        open_storage(database_url, SCHEMA) as theirs,
    ):
        await ours.transact(add_one)
        await theirs.transact(add_one)
        seen = {await ours.foreign_version()}
        for number in range(1, 6):
            await theirs.transact(add_one)
            seen.add(await ours.foreign_version())
            assert len(seen) == 1 + number
        await theirs.read(count)
        await ours.transact(add_one)
        seen.add(await ours.foreign_version())
        assert len(seen) == 6
        assert await ours.read(count) == await theirs.read(count) == 8


@pytest.mark.slow
async def test_a_host_that_stays_in_a_transaction_makes_writers_busy_and_readers_not(
    database_url: str,
) -> None:
    def hold_too(tx: Transaction) -> None:
        tx.put(COUNTERS, Counter("held", 2))

    async with open_storage(database_url, SCHEMA, timeout=0.3) as storage:
        await storage.transact(lambda tx: tx.put(COUNTERS, Counter("held", 0)))
        async with child("hold", database_url) as other:
            assert await told(other) == {"holds": True}
            ends = await asyncio.gather(
                *(storage.transact(hold_too) for _ in range(3)), return_exceptions=True
            )
            assert [type(end) for end in ends] == [StorageBusy] * 3
            assert all(isinstance(end, StorageBusy) and end.retryable for end in ends)
            assert all(isinstance(end, StorageBusy) and end.__cause__ for end in ends)
            found = await storage.read(lambda tx: tx.get(COUNTERS, "held"))
            assert found == Counter("held", 0)
            assert other.stdin is not None
            other.stdin.write(b"\n")
            assert await told(other) == {"end": "ok"}
        await storage.transact(hold_too)
        assert await storage.read(lambda tx: tx.get(COUNTERS, "held")) == Counter("held", 2)


async def test_a_host_that_dies_in_a_transaction_is_in_nobodys_way(database_url: str) -> None:
    async with open_storage(database_url, SCHEMA, timeout=10.0) as storage:
        async with child("hold", database_url) as other:
            assert await told(other) == {"holds": True}
            waiting = asyncio.create_task(
                storage.transact(lambda tx: tx.insert(COUNTERS, Counter("held", 2)))
            )
            other.kill()
            assert await waiting
        assert await storage.read(lambda tx: tx.get(COUNTERS, "held")) == Counter("held", 2)


async def test_readers_do_not_wait_for_the_writer(database_url: str) -> None:
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    held = False
    go_on = asyncio.Event()

    def hold(point: FaultPoint) -> None:
        if held and point is FaultPoint.BEFORE_COMMIT:
            loop.call_soon_threadsafe(reached.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    async with open_storage(database_url, SCHEMA, fault_point=hold) as storage:
        await storage.transact(add_one)
        held = True
        writing = asyncio.create_task(storage.transact(add_one))
        await reached.wait()
        try:
            assert [await storage.read(count) for _ in range(3)] == [1, 1, 1]
        finally:
            go_on.set()
        await writing
        assert await storage.read(count) == 2
