"""Any transactions on any backend do what they do to a dictionary."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from postgres_cluster import PostgresCluster
from storage_tables import ITEMS, SCHEMA, Item

from snakepit_grpc_bridge.storage import Span, Storage, open_storage

Model = dict[tuple[str, int], Item]
Operation = Callable[[Any], Any]

GROUPS = st.sampled_from(["", "a", "a\x01", "b", "\u00e9", "\U0001f600"])
NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 2**63 - 1])
WEIGHTS = st.sampled_from([float("-inf"), -1.5, -0.0, 0.0, 1.0, float("inf")])
LARGE = st.builds(bytes, st.just(100_000))
VALUES = st.sampled_from([None, 1, "text", (1, 2), {"a": float("nan")}]) | LARGE
ITEM = st.builds(
    Item,
    group=GROUPS,
    number=NUMBERS,
    weight=st.none() | WEIGHTS,
    flag=st.booleans(),
    size=st.sampled_from([-0.0, float("nan"), 1.5]),
    value=VALUES,
)
COLUMNS = {"group": GROUPS, "number": NUMBERS, "weight": WEIGHTS, "flag": st.booleans()}
LIMIT = st.none() | st.integers(0, 4)


@st.composite
def spans(draw: st.DrawFn) -> Span[Item]:
    order = ITEMS.orders[draw(st.sampled_from([None, "weight", "flag"]))]
    length = draw(st.integers(0, len(order.columns)))
    prefix = [draw(COLUMNS[name]) for name in order.columns[:length]]
    limits = {}
    if length < len(order.columns):
        limit = st.none() | COLUMNS[order.columns[length]]
        limits = {"start": draw(limit), "stop": draw(limit)}
    return ITEMS.span(*prefix, by=order.name, **limits)


@st.composite
def pages(draw: st.DrawFn) -> tuple[Span[Item], dict[str, Any]]:
    span = draw(spans())
    after = draw(st.none() | ITEM)
    if after is not None and None in span.order.entry(after):
        after = None
    return span, {"after": after, "limit": draw(LIMIT), "reverse": draw(st.booleans())}


class DictTransaction:
    """The model: what a transaction does, to a dictionary."""

    def __init__(self, rows: Model) -> None:
        self.rows = rows

    def get(self, table: Any, *key: Any) -> Item | None:
        return self.rows.get(key)

    def put(self, table: Any, row: Item) -> None:
        self.rows[row.group, row.number] = row

    def insert(self, table: Any, row: Item) -> bool:
        return self.rows.setdefault((row.group, row.number), row) is row

    def delete(self, table: Any, *key: Any) -> bool:
        return self.rows.pop(key, None) is not None

    def scan(
        self, span: Span[Item], *, after: Any = None, limit: Any = None, reverse: bool = False
    ) -> list[Item]:
        entry = span.order.entry
        inside = [row for row in self.rows.values() if is_inside(span, entry(row))]
        inside.sort(key=entry, reverse=reverse)
        if after is not None:
            passed = entry(after)
            inside = [r for r in inside if (entry(r) < passed if reverse else entry(r) > passed)]
        return inside[:limit]

    def count(self, span: Span[Item]) -> int:
        return len(self.scan(span))

    def delete_span(self, span: Span[Item], *, limit: int | None = None) -> int:
        found = self.scan(span, limit=limit)
        for row in found:
            del self.rows[row.group, row.number]
        return len(found)


def is_inside(span: Span[Item], entry: tuple[Any, ...]) -> bool:
    length = len(span.prefix)
    if None in entry or entry[:length] != span.prefix:
        return False
    after_start = span.start is None or entry[length] >= span.start
    return after_start and (span.stop is None or entry[length] < span.stop)


OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    ITEM.map(lambda row: lambda tx: tx.put(ITEMS, row)),
    ITEM.map(lambda row: lambda tx: tx.insert(ITEMS, row)),
    st.tuples(GROUPS, NUMBERS).map(lambda key: lambda tx: tx.get(ITEMS, *key)),
    st.tuples(GROUPS, NUMBERS).map(lambda key: lambda tx: tx.delete(ITEMS, *key)),
    pages().map(lambda page: lambda tx: tx.scan(page[0], **page[1])),
    spans().map(lambda span: lambda tx: tx.count(span)),
    st.tuples(spans(), LIMIT).map(lambda it: lambda tx: tx.delete_span(it[0], limit=it[1])),
)


class Machine(RuleBasedStateMachine):
    """Runs the same operations on a storage and on the model; subclasses say where it is kept."""

    lasting = True

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.runner = asyncio.Runner()
        self.storage = self.make()

    def make(self) -> Storage:
        raise AssertionError("subclasses make it")

    @initialize()
    def open(self) -> None:
        self.runner.run(self.storage.start())
        self.runner.run(self.storage.prune(ITEMS.span()))

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=8), fails=st.booleans())
    def transact(self, operations: list[Operation], fails: bool) -> None:
        rows = dict(self.model)
        expected = [operation(DictTransaction(rows)) for operation in operations]
        found: list[Any] = []

        def work(tx: Any) -> None:
            found[:] = [operation(tx) for operation in operations]
            if fails:
                raise ZeroDivisionError

        if fails:
            with pytest.raises(ZeroDivisionError):
                self.runner.run(self.storage.transact(work))
        else:
            self.runner.run(self.storage.transact(work))
            self.model = rows
        # By their text, as NaN is not equal to itself, and -0.0 is equal to 0.0.
        assert repr(found) == repr(expected)

    @rule(page=pages())
    def read(self, page: tuple[Span[Item], dict[str, Any]]) -> None:
        found = self.runner.run(self.storage.read(lambda tx: tx.scan(page[0], **page[1])))
        assert repr(found) == repr(DictTransaction(self.model).scan(page[0], **page[1]))

    @rule(span=spans())
    def prune(self, span: Span[Item]) -> None:
        expected = DictTransaction(self.model).delete_span(span)
        assert self.runner.run(self.storage.prune(span)) == expected

    @rule()
    def reopen(self) -> None:
        if self.lasting:
            self.runner.run(self.storage.aclose())
            self.storage = self.make()
            self.runner.run(self.storage.start())

    def teardown(self) -> None:
        try:
            found = self.runner.run(self.storage.read(lambda tx: tx.scan(ITEMS.span())))
            assert repr(found) == repr(DictTransaction(self.model).scan(ITEMS.span()))
        finally:
            self.runner.run(self.storage.aclose())
            self.runner.close()


def check(machine: type[Machine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_memory() -> None:
    class InMemory(Machine):
        lasting = False

        def make(self) -> Storage:
            return open_storage("memory", SCHEMA)

    check(InMemory, 40)


@pytest.mark.slow
def test_sqlite() -> None:
    class InSqlite(Machine):
        def __init__(self) -> None:
            self.folder = tempfile.TemporaryDirectory()
            super().__init__()

        def make(self) -> Storage:
            return open_storage(f"sqlite:///{self.folder.name}/state.db", SCHEMA)

        def teardown(self) -> None:
            super().teardown()
            self.folder.cleanup()

    check(InSqlite, 12)


@pytest.mark.slow
def test_postgresql(postgres_cluster: PostgresCluster, postgres_url: str) -> None:
    class InPostgresql(Machine):
        def make(self) -> Storage:
            return open_storage(postgres_url, SCHEMA)

    check(InPostgresql, 10)
