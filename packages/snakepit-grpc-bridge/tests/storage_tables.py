"""The tables of the storage's tests, and what most of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snakepit_grpc_bridge.storage import (
    ReadTransaction,
    Schema,
    Storage,
    Table,
    Transaction,
    open_storage,
)


@dataclass(frozen=True, slots=True)
class Item:
    """A row with a column of each kind."""

    group: str
    number: int
    weight: float | None = None
    flag: bool = False
    text: str | None = None
    data: bytes = b""
    size: float = 0.0
    count: int | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Counter:
    """A row without values."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A row that is nothing but its key."""

    name: str


ITEMS = Table(
    "items",
    Item,
    key=("group", "number"),
    indexes={"weight": ("weight",), "flag": ("flag", "weight")},
    values=("value",),
)
COUNTERS = Table("counters", Counter, key=("name",))
MARKS = Table("marks", Mark, key=("name",))
SCHEMA = Schema(tables=(ITEMS, COUNTERS, MARKS))


def a_storage(url: str, schema: Schema = SCHEMA) -> Storage:
    """A storage that waits long enough for a slow machine."""
    return open_storage(url, schema, timeout=10.0)


def put_all(*items: Item) -> Callable[[Transaction], None]:
    """The work that writes some items."""

    def work(tx: Transaction) -> None:
        for item in items:
            tx.put(ITEMS, item)

    return work


def all_items(tx: ReadTransaction) -> list[Item]:
    return tx.scan(ITEMS.span())


def add_one(tx: Transaction) -> int:
    """Count in the counter ``c``."""
    found = tx.get(COUNTERS, "c")
    count = 1 if found is None else found.count + 1
    tx.put(COUNTERS, Counter("c", count))
    return count
