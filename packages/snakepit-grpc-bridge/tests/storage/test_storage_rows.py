"""What every storage takes and gives back, memory and databases alike."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from operator import methodcaller
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from storage_tables import (
    ITEMS,
    MARKS,
    Counter,
    Item,
    Mark,
    a_storage,
    all_items,
    put_all,
)

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.storage import (
    ReadTransaction,
    Table,
    Transaction,
)

NAN = math.nan


# --- rows ----------------------------------------------------------------------------------------


ROWS: list[dict[str, Any]] = [
    {},
    {"weight": -0.0, "size": -0.0},
    {"weight": math.inf, "size": NAN},
    {"weight": -math.inf, "size": -math.inf},
    {"weight": 5e-324, "size": 2.0**60},
    {"flag": True, "count": -(2**63)},
    {"count": 2**63 - 1, "number": -(2**63)},
    {"text": "NaN", "data": b"\0\xff"},
    {"text": "", "group": ""},
    {"text": "e\u0301 \u00e9 \U0001f469\u200d\U0001f4bb \u202e\n\t\x01'\"%s ?", "group": "%s?"},
    {"text": "x" * 200_000, "data": b"\xff" * 200_000},
]
VALUES: list[Any] = [
    None,
    True,
    0,
    10**5000,
    -(2**64),
    [NAN, math.inf, -0.0],
    "U+0000 \0 here",
    b"\0",
    {"a": [1, (2, {3})], 4: Decimal("0.1")},
    UUID(int=7),
    datetime(2026, 2, 28, 12, tzinfo=UTC),
    ["x" * 3_000_000],
]


async def test_rows_come_back_as_they_were(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        for changed in ROWS:
            item = replace(Item("g", 1), **changed)
            await storage.transact(put_all(item))
            found = await storage.read(partial(get, item=item))
            # By its text, as NaN is not equal to itself and -0.0 is equal to 0.0.
            assert repr(found) == repr(item)
            assert repr(await storage.read(all_items)) == repr([item])
            assert await storage.prune(ITEMS.span()) == 1


async def test_values_come_back_as_they_were(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        for value in VALUES:
            item = Item("g", 1, value=value)
            await storage.transact(put_all(item))
            found = await storage.read(partial(get, item=item))
            assert found is not None
            assert repr_of(found.value) == repr_of(value)
        assert await storage.transact(lambda tx: tx.delete(ITEMS, "g", 1))
        assert await storage.read(all_items) == []


def get(tx: ReadTransaction, item: Item) -> Item | None:
    return tx.get(ITEMS, item.group, item.number)


def repr_of(value: object) -> str:
    return hex(value) if isinstance(value, int) else repr(value)


async def test_an_array_comes_back_as_it_was(storage_url: str) -> None:
    array = np.arange(100_000, dtype=">f4").reshape(100, 1000).T
    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(Item("g", 1, value=array)))
        found = await storage.read(lambda tx: tx.get(ITEMS, "g", 1))
    assert found is not None
    assert found.value.dtype == array.dtype
    np.testing.assert_array_equal(found.value, array)


async def test_a_row_that_is_nothing_but_its_key(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        assert await storage.transact(lambda tx: tx.insert(MARKS, Mark("m")))
        await storage.transact(lambda tx: tx.put(MARKS, Mark("m")))
        assert not await storage.transact(lambda tx: tx.insert(MARKS, Mark("m")))
        assert await storage.read(lambda tx: tx.scan(MARKS.span())) == [Mark("m")]


async def test_insert_put_and_delete_say_what_was_there(storage_url: str) -> None:
    first, second = Item("g", 1, text="first"), Item("g", 1, text="second")
    async with a_storage(storage_url) as storage:
        assert await storage.transact(lambda tx: tx.insert(ITEMS, first))
        assert not await storage.transact(lambda tx: tx.insert(ITEMS, second))
        assert await storage.read(lambda tx: tx.get(ITEMS, "g", 1)) == first
        await storage.transact(put_all(second))
        assert await storage.read(all_items) == [second]
        assert await storage.transact(lambda tx: tx.delete(ITEMS, "g", 1))
        assert not await storage.transact(lambda tx: tx.delete(ITEMS, "g", 1))
        assert await storage.read(lambda tx: tx.get(ITEMS, "g", 1)) is None


async def test_text_is_ordered_by_code_points(storage_url: str) -> None:
    names = ["", " ", "A", "Z", "_", "a", "a ", "a!", "aa", "b", "\u00e4", "\u0142", "\uffee"]
    names += ["\U0001f600", "\U0010ffff"]
    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(*(Item(name, 1) for name in reversed(names))))
        found = await storage.read(all_items)
        assert [item.group for item in found] == sorted(names) == names
        part = await storage.read(lambda tx: tx.scan(ITEMS.span(start="a", stop="b")))
        assert [item.group for item in part] == ["a", "a ", "a!", "aa"]


# --- what is refused -----------------------------------------------------------------------------


class Text(str):
    """Not quite text."""


def wrong(**changed: Any) -> Item:
    return replace(Item("g", 1), **changed)


BAD_ROWS = {
    "U+0000": wrong(text="a\0b"),
    "U+0000 in the key": wrong(group="\0"),
    "a lone surrogate": wrong(text="\ud800"),
    "an escaped byte of a file name": wrong(group="\udcff"),
    "an integer of 65 bits": wrong(count=2**63),
    "an integer far too large": wrong(count=-(10**5000)),
    "bool for int": wrong(count=True),
    "int for bool": wrong(flag=1),
    "int for float": wrong(size=1),
    "a numpy number": wrong(size=np.float64(1.0)),
    "str of another class": wrong(text=Text("a")),
    "bytes for str": wrong(text=b"a"),
    "bytearray for bytes": wrong(data=bytearray()),
    "None where none may be": wrong(size=None),
    "None in the key": wrong(group=None),
    "NaN in an index": wrong(weight=NAN),
    "a key that is too long": wrong(group="x" * 2001),
    "a key that is too long in UTF-8": wrong(group="\u20ac" * 700),
    "a row of another table": Counter("c", 1),
    "no row": {"group": "g"},
}


async def test_bad_rows_are_refused_and_nothing_written(storage_url: str) -> None:
    def work(tx: Transaction, bad: Any) -> None:
        tx.put(ITEMS, Item("g", 0))
        tx.put(ITEMS, bad)

    async with a_storage(storage_url) as storage:
        for name, bad in BAD_ROWS.items():
            raised = await error_of(storage.transact(partial(work, bad=bad)))
            assert isinstance(raised, ValidationFailed), name
            assert isinstance(raised, ValueError), name
            assert len(str(raised)) < 300, name
            assert await storage.read(all_items) == [], name


async def error_of(awaitable: Awaitable[object]) -> Exception | None:
    try:
        await awaitable
    except Exception as error:
        return error
    return None


BAD_KEYS: dict[Table[Any], list[tuple[Any, ...]]] = {
    ITEMS: [
        *((), ("g",), ("g", 1, 2), ("g", "1"), ("g\0", 1), ("g", 2**63)),
        *(("g", True), ("g", 1.0), ("g", [1])),  # two of them equal the key of a row
    ],
    MARKS: [(), ("m", "m"), (1,), (b"m",), ("m\0",), ("\ud800",), (["m"],)],
}


async def test_bad_keys_are_refused(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        await storage.transact(put_all(Item("g", 1)))
        await storage.transact(lambda tx: tx.put(MARKS, Mark("m")))
        for table, keys in BAD_KEYS.items():
            for key in keys:
                for verb in ("get", "delete"):
                    raised = await error_of(storage.transact(methodcaller(verb, table, *key)))
                    assert isinstance(raised, ValidationFailed), (verb, key)


async def test_a_table_that_was_not_declared_is_refused(storage_url: str) -> None:
    other = Table("others", Mark, key=("name",))
    async with a_storage(storage_url) as storage:
        for work in (
            lambda tx: tx.get(other, "m"),
            lambda tx: tx.put(other, Mark("m")),
            lambda tx: tx.scan(other.span()),
        ):
            with pytest.raises(ConfigurationError, match="others"):
                await storage.transact(work)


async def test_async_work_is_refused(storage_url: str) -> None:
    async def work(tx: Any) -> None:
        await asyncio.sleep(0)

    async with a_storage(storage_url) as storage:
        with pytest.raises(ConfigurationError, match="plain function"):
            await storage.transact(work)  # type: ignore[unused-coroutine]
        with pytest.raises(ConfigurationError, match="plain function"):
            await storage.read(work)  # type: ignore[unused-coroutine]


async def test_a_transaction_that_was_kept_is_refused(storage_url: str) -> None:
    kept: list[Transaction] = []
    async with a_storage(storage_url) as storage:
        await storage.transact(kept.append)
        with pytest.raises(ConfigurationError, match="over"):
            kept[0].put(MARKS, Mark("m"))
        with pytest.raises(ConfigurationError, match="over"):
            kept[0].get(MARKS, "m")
        assert await storage.read(lambda tx: tx.scan(MARKS.span())) == []


async def test_a_read_can_not_write(storage_url: str) -> None:
    async with a_storage(storage_url) as storage:
        with pytest.raises(AttributeError):
            await storage.read(lambda tx: tx.put(MARKS, Mark("m")))  # type: ignore[attr-defined]
