"""What can happen to a PostgreSQL server, and on the way to it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Sized

import psycopg
import pytest
from cutting_proxy import Cut, CuttingProxy
from postgres_cluster import PASSWORD, PostgresCluster
from storage_tables import COUNTERS, ITEMS, MARKS, SCHEMA, Counter, Item, Mark

from snakepit.errors import ConfigurationError, DecodeError, EncodeError
from snakepit.testing import until
from snakepit_grpc_bridge.errors import (
    BridgeError,
    OutcomeUnknown,
    StorageBusy,
    StorageUnavailable,
)
from snakepit_grpc_bridge.storage import (
    FaultPoint,
    ReadTransaction,
    Storage,
    Transaction,
    open_storage,
)

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'snakepit' AND datname = '{}'"
)


@pytest.fixture
def database(postgres_cluster: PostgresCluster) -> str:
    return postgres_cluster.emptied_database()


def add_one(tx: Transaction) -> int:
    found = tx.get(COUNTERS, "c")
    counted = 1 if found is None else found.count + 1
    tx.put(COUNTERS, Counter("c", counted))
    tx.insert(MARKS, Mark(str(counted)))
    return counted


def state(tx: ReadTransaction) -> tuple[int, int]:
    found = tx.get(COUNTERS, "c")
    return 0 if found is None else found.count, tx.count(MARKS.span())


# --- connecting ----------------------------------------------------------------------------------


async def test_over_tcp_with_a_password(postgres_cluster: PostgresCluster, database: str) -> None:
    async with open_storage(postgres_cluster.tcp_url(database), SCHEMA) as storage:
        assert await storage.transact(add_one) == 1
        assert PASSWORD not in repr(storage)


@pytest.mark.parametrize("wrong", ["password", "database", "user"])
async def test_a_refused_connection_is_told_at_once(
    postgres_cluster: PostgresCluster, database: str, wrong: str
) -> None:
    url = {
        "password": postgres_cluster.tcp_url(database, password="wrong-horse"),
        "database": postgres_cluster.tcp_url("nowhere"),
        "user": postgres_cluster.url(database).replace("ada", "eve"),
    }[wrong]
    start = time.perf_counter()
    with pytest.raises(StorageUnavailable) as raised:
        await open_storage(url, SCHEMA, timeout=30.0).start()
    assert time.perf_counter() - start < 10.0
    assert not raised.value.retryable
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
    told = f"{raised.value} {raised.value.details} {raised.value.__cause__}"
    assert "horse" not in told


async def test_a_database_of_another_encoding_is_refused(postgres_cluster: PostgresCluster) -> None:
    name = f"{postgres_cluster.new_database()}_latin"
    postgres_cluster.execute(
        f"CREATE DATABASE {name} OWNER ada ENCODING 'LATIN1' TEMPLATE template0"
    )
    with pytest.raises(ConfigurationError, match="LATIN1"):
        await open_storage(postgres_cluster.url(name), SCHEMA).start()


async def test_a_user_who_may_not_make_tables(postgres_cluster: PostgresCluster) -> None:
    database = postgres_cluster.new_database()
    url = postgres_cluster.url(database)
    postgres_cluster.execute(f"CREATE ROLE user_of_{database} LOGIN")
    of_user = url.replace("ada", f"user_of_{database}")
    with pytest.raises(StorageUnavailable) as raised:
        await open_storage(of_user, SCHEMA).start()
    assert not raised.value.retryable
    async with open_storage(url, SCHEMA):
        pass
    for grant in ("USAGE ON SCHEMA snakepit", "ALL ON ALL TABLES IN SCHEMA snakepit"):
        postgres_cluster.execute(f"GRANT {grant} TO user_of_{database}", database)
    async with open_storage(of_user, SCHEMA) as storage:
        assert await storage.transact(add_one) == 1


async def test_commits_are_durable_also_where_the_server_would_not_wait(
    postgres_cluster: PostgresCluster,
) -> None:
    database = postgres_cluster.new_database()
    postgres_cluster.execute(f"ALTER DATABASE {database} SET synchronous_commit TO off")
    postgres_cluster.execute(f"ALTER DATABASE {database} SET log_statement TO 'all'")
    seen: list[str] = []

    def look(point: FaultPoint) -> None:
        # Another session of the same settings can't see ours; the server's own view can.
        if point is FaultPoint.BEFORE_COMMIT:
            seen.append(postgres_cluster.log())

    async with open_storage(postgres_cluster.url(database), SCHEMA, fault_point=look) as storage:
        await storage.transact(add_one)
    assert "set_config('synchronous_commit', 'on', false)" in seen[0]


async def test_two_applications_share_a_database(postgres_cluster: PostgresCluster) -> None:
    database = postgres_cluster.new_database()
    postgres_cluster.execute("CREATE TABLE public.items (x text)", database)
    async with open_storage(postgres_cluster.url(database), SCHEMA) as storage:
        await storage.transact(lambda tx: tx.put(ITEMS, Item("g", 1)))
    assert postgres_cluster.execute("SELECT count(*) FROM public.items", database) == [(0,)]
    assert postgres_cluster.execute("SELECT count(*) FROM snakepit.items", database) == [(1,)]


# --- values --------------------------------------------------------------------------------------


async def test_a_value_that_does_not_travel_is_refused_by_its_path(postgres_url: str) -> None:
    async with open_storage(postgres_url, SCHEMA) as storage:
        with pytest.raises(EncodeError) as raised:
            await storage.transact(lambda tx: tx.put(ITEMS, Item("g", 1, value=[object()])))
        assert raised.value.path == "value[0]"
        assert await storage.read(lambda tx: tx.count(ITEMS.span())) == 0


async def test_a_value_that_can_not_be_read_names_its_column(
    postgres_cluster: PostgresCluster, database: str
) -> None:
    async with open_storage(postgres_cluster.url(database), SCHEMA) as storage:
        await storage.transact(lambda tx: tx.put(ITEMS, Item("g", 1)))
        postgres_cluster.execute("UPDATE snakepit.items SET value = '\\xc1'", database)
        with pytest.raises(DecodeError, match="column 'value' of table 'items'"):
            await storage.read(lambda tx: tx.get(ITEMS, "g", 1))
        assert await storage.transact(lambda tx: tx.delete(ITEMS, "g", 1))


async def test_every_scan_goes_by_an_index(
    postgres_cluster: PostgresCluster, database: str
) -> None:
    """Reading a whole table would conflict with all who write to it."""
    item = Item("g", 1, weight=1.0)

    def work(tx: Transaction) -> None:
        tx.put(ITEMS, item)
        for span in (
            ITEMS.span(),
            ITEMS.span("g", start=0, stop=5),
            ITEMS.span(by="weight", stop=2.0),
            ITEMS.span(False, by="flag", start=0.0),
        ):
            for reverse in (False, True):
                tx.scan(span, reverse=reverse)
                tx.scan(span, after=item, limit=1, reverse=reverse)
            tx.count(span)
            tx.delete_span(span, limit=1)

    def scans() -> tuple[int, int]:
        ((by_index, whole),) = postgres_cluster.execute(
            "SELECT idx_scan, seq_scan FROM pg_stat_user_tables WHERE relname = 'items'", database
        )
        return by_index, whole

    url = postgres_cluster.url(database)
    async with open_storage(url, SCHEMA):
        pass
    # Making an index reads the table as a whole. The session that did is told of a bit later.
    await until(lambda: scans()[1] > 0, "the statistics of the start are there")
    _, before = scans()
    async with open_storage(url, SCHEMA) as storage:
        for _ in range(8):
            await storage.transact(work)
    await until(lambda: scans()[0] >= 8 * 20, "the statistics are there")
    assert scans()[1] == before


# --- others in the way ---------------------------------------------------------------------------


async def test_a_lock_that_is_not_let_go(postgres_cluster: PostgresCluster, database: str) -> None:
    async with open_storage(postgres_cluster.url(database), SCHEMA, timeout=0.2) as storage:
        await storage.transact(add_one)
        with psycopg.connect(postgres_cluster.url(database)) as other:
            other.execute("LOCK TABLE snakepit.counters IN EXCLUSIVE MODE")
            with pytest.raises(StorageBusy) as raised:
                await storage.transact(add_one)
            assert raised.value.retryable
            assert isinstance(raised.value.__cause__, psycopg.errors.LockNotAvailable)
            assert await storage.read(state) == (1, 1)
        assert await storage.transact(add_one) == 2


async def test_of_two_hosts_that_see_one_free_place_one_takes_it(postgres_url: str) -> None:
    """Write skew: each reads what the other writes. Only serializable transactions prevent it."""
    loop = asyncio.get_running_loop()
    reached, go_on = asyncio.Event(), asyncio.Event()

    def hold(point: FaultPoint) -> None:
        if point is FaultPoint.BEFORE_COMMIT and not reached.is_set():
            loop.call_soon_threadsafe(reached.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    def take(tx: Transaction, name: str) -> bool:
        return tx.count(MARKS.span()) == 0 and tx.insert(MARKS, Mark(name))

    async with (
        open_storage(postgres_url, SCHEMA, fault_point=hold) as ours,
        open_storage(postgres_url, SCHEMA) as theirs,
    ):
        taking = asyncio.create_task(ours.transact(lambda tx: take(tx, "ours")))
        await reached.wait()
        try:
            assert await theirs.transact(lambda tx: take(tx, "theirs"))
        finally:
            go_on.set()
        assert not await taking
        assert await ours.read(lambda tx: tx.scan(MARKS.span())) == [Mark("theirs")]


async def test_a_connection_whose_record_was_cleared_away(
    postgres_cluster: PostgresCluster, database: str
) -> None:
    async with open_storage(postgres_cluster.url(database), SCHEMA) as storage:
        for number in range(1, 9):
            assert await storage.transact(add_one) == number
        postgres_cluster.execute("DELETE FROM snakepit.commits", database)
        for number in range(9, 17):
            assert await storage.transact(add_one) == number
        rows = postgres_cluster.execute("SELECT count(*) FROM snakepit.commits", database)
        assert rows[0][0] > 0
    assert postgres_cluster.execute("SELECT * FROM snakepit.commits", database) == []


# --- connections that break ----------------------------------------------------------------------


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("point", [FaultPoint.AFTER_WRITE, FaultPoint.BEFORE_COMMIT])
async def test_a_connection_that_breaks_costs_no_transaction_and_repeats_none(
    postgres_cluster: PostgresCluster, database: str, cut: Cut, point: FaultPoint
) -> None:
    """With BEFORE_COMMIT and ANSWER_LOST, the commit has landed and nobody has heard of it."""
    told: list[int] = []
    armed = False

    def strike(at: FaultPoint) -> None:
        nonlocal armed
        if armed and at is point:
            armed = False
            proxy.arm(cut)

    async with CuttingProxy(*postgres_cluster.address) as proxy:
        url = postgres_cluster.tcp_url(database, port=proxy.port)
        async with open_storage(url, SCHEMA, fault_point=strike) as storage:
            storage.on_commit(lambda changes: told.append(len(changes)))
            assert await storage.transact(add_one) == 1
            for number in range(2, 7):
                armed = True
                assert await storage.transact(add_one) == number
                assert proxy.cuts == number - 1
            assert await storage.read(state) == (6, 6)
    assert told == [2] * 6


async def test_a_read_whose_connection_breaks_is_repeated(
    postgres_cluster: PostgresCluster, database: str
) -> None:
    async with CuttingProxy(*postgres_cluster.address) as proxy:
        url = postgres_cluster.tcp_url(database, port=proxy.port)
        async with open_storage(url, SCHEMA) as storage:
            await storage.transact(add_one)
            for _ in range(8):  # more than there are connections
                proxy.arm(Cut.ANSWER_LOST)
                assert await storage.read(state) == (1, 1)
            assert proxy.cuts == 8


@pytest.mark.parametrize("cut", Cut)
async def test_a_commit_whose_server_stays_away_has_an_unknown_outcome(
    postgres_cluster: PostgresCluster, database: str, cut: Cut
) -> None:
    def strike(at: FaultPoint) -> None:
        if at is FaultPoint.BEFORE_COMMIT:
            proxy.arm(cut, and_refuse=True)

    async with CuttingProxy(*postgres_cluster.address) as proxy:
        url = postgres_cluster.tcp_url(database, port=proxy.port)
        async with open_storage(url, SCHEMA, timeout=0.3, fault_point=strike) as storage:
            with pytest.raises(OutcomeUnknown) as raised:
                await storage.transact(add_one)
            assert raised.value.outcome == "unknown"
            assert not raised.value.retryable
            assert isinstance(raised.value.__cause__, psycopg.OperationalError)
            with pytest.raises(StorageUnavailable) as away:
                await storage.read(state)
            assert away.value.retryable
            proxy.refuses = False
            landed = 1 if cut is Cut.ANSWER_LOST else 0
            assert await storage.read(state) == (landed, landed)


async def reaches(things: Sized, count: int) -> None:
    await until(lambda: len(things) >= count, f"there are {count}")


@pytest.mark.slow
async def test_connections_that_are_killed_under_load_lose_and_repeat_nothing(
    postgres_cluster: PostgresCluster, database: str
) -> None:
    counted: list[int] = []

    async def count(storage: Storage) -> None:
        for _ in range(25):
            counted.append(await storage.transact(add_one))

    async with open_storage(postgres_cluster.url(database), SCHEMA, timeout=30.0) as storage:
        counting = [asyncio.create_task(count(storage)) for _ in range(8)]
        killed = 0
        for step in range(1, 11):
            await reaches(counted, 15 * step)
            killed += len(postgres_cluster.execute(TERMINATE.format(database)))
        await asyncio.gather(*counting)
        assert await storage.read(state) == (200, 200)
    assert sorted(counted) == list(range(1, 201))
    assert killed >= 10


class Counting:
    """Tasks that count until they are told to stop, and what became of that."""

    def __init__(self, storage: Storage) -> None:
        self.counted: list[int] = []
        self.failed: list[BridgeError] = []
        self._storage = storage
        self._over = False
        self._tasks = [asyncio.create_task(self._count()) for _ in range(4)]

    async def _count(self) -> None:
        while not self._over:
            try:
                self.counted.append(await self._storage.transact(add_one))
            except BridgeError as error:
                self.failed.append(error)

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_callers_with_patience_notice_nothing_of_a_server_that_comes_back(
    own_cluster: PostgresCluster, how: signal.Signals
) -> None:
    url = own_cluster.url(own_cluster.new_database())
    async with open_storage(url, SCHEMA, timeout=30.0) as storage:
        counting = Counting(storage)
        for _ in range(2):
            await reaches(counting.counted, len(counting.counted) + 20)
            await asyncio.to_thread(own_cluster.stop, how)
            await asyncio.to_thread(own_cluster.start)
        await reaches(counting.counted, len(counting.counted) + 20)
        await counting.stop()
        total = len(counting.counted)
        assert await storage.read(state) == (total, total)
    assert counting.failed == []
    assert sorted(counting.counted) == list(range(1, total + 1))


@pytest.mark.slow
async def test_callers_without_patience_are_told_and_go_on_when_the_server_is_back(
    own_cluster: PostgresCluster,
) -> None:
    url = own_cluster.url(own_cluster.new_database())
    async with open_storage(url, SCHEMA, timeout=0.3) as storage:
        counting = Counting(storage)
        await reaches(counting.counted, 20)
        await asyncio.to_thread(own_cluster.stop)
        await reaches(counting.failed, len(counting.failed) + 5)
        await asyncio.to_thread(own_cluster.start)
        back = time.perf_counter()
        await reaches(counting.counted, len(counting.counted) + 1)
        assert time.perf_counter() - back < 2.0
        await counting.stop()
        count, marks = await storage.read(state)
    unknown = [error for error in counting.failed if isinstance(error, OutcomeUnknown)]
    others = [error for error in counting.failed if error not in unknown]
    assert {type(error) for error in others} <= {StorageUnavailable, StorageBusy}
    assert any(isinstance(error, StorageUnavailable) for error in others)
    assert all(error.retryable for error in others)
    assert len(set(counting.counted)) == len(counting.counted)
    assert len(counting.counted) <= count == marks <= len(counting.counted) + len(unknown)


@pytest.mark.slow
async def test_closing_does_not_wait_for_ever_for_a_server_that_is_frozen(
    own_cluster: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_cluster.url(own_cluster.new_database())
    storage = open_storage(url, SCHEMA, timeout=0.2)
    await storage.start()
    await storage.transact(add_one)
    with own_cluster.frozen():
        waiting = [asyncio.create_task(storage.read(state)) for _ in range(8)]
        await asyncio.sleep(0)
        await storage.aclose()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {OutcomeUnknown}
        assert "get no answer" in caplog.text


@pytest.mark.slow
async def test_a_server_that_is_frozen_is_given_up_and_taken_up_again(
    own_cluster: PostgresCluster,
) -> None:
    """In line are so many that the test would take an hour if each waited for itself."""
    url = own_cluster.url(own_cluster.new_database())
    frozen, thaw = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(point: FaultPoint) -> None:
        if point is FaultPoint.BEFORE_COMMIT and not thaw.is_set():
            loop.call_soon_threadsafe(frozen.set)
            assert thaw.wait(30)

    async with open_storage(url, SCHEMA, timeout=0.5, fault_point=hold) as storage:
        committing = asyncio.create_task(storage.transact(add_one))
        await frozen.wait()
        with own_cluster.frozen():
            thaw.set()
            waiting = [
                storage.read(state) if n % 2 else storage.transact(add_one) for n in range(5000)
            ]
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(end) for end in ends} == {StorageUnavailable}
            causes = {type(end.__cause__) for end in ends if isinstance(end, StorageUnavailable)}
            assert all(issubclass(cause, psycopg.OperationalError) for cause in causes)
            with pytest.raises(OutcomeUnknown):
                await committing
        count, marks = await storage.read(state)
        assert count == marks <= 1
        assert await storage.transact(add_one) == count + 1
