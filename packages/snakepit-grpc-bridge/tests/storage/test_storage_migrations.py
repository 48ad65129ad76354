"""Databases of other versions: brought up to date, or refused and left as they are."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import StorageUnavailable
from snakepit_grpc_bridge.storage import (
    Migration,
    Schema,
    Storage,
    Table,
    Transaction,
    open_storage,
)


@dataclass(frozen=True, slots=True)
class Note1:
    author: str
    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Note2:
    author: str
    text: str
    value: Any
    words: int
    extra: Any
    due: float | None


@dataclass(frozen=True, slots=True)
class Author:
    name: str


@dataclass(frozen=True, slots=True)
class Old:
    name: str


NOTES_1 = Table("notes", Note1, key=("author",), values=("value",))
NOTES_2 = Table(
    "notes", Note2, key=("author",), indexes={"due": ("due",)}, values=("value", "extra")
)
AUTHORS = Table("authors", Author, key=("name",))
OLD = Table("old", Old, key=("name",))


def to_2(migration: Migration) -> None:
    """Add three columns, an index and a table, compute one of the columns, drop a table."""
    migration.add_column(NOTES_2, "words", 0)
    migration.add_column(NOTES_2, "extra", {"new": (1, float("inf"))})
    migration.add_column(NOTES_2, "due", None)
    migration.create(NOTES_2)
    migration.create(AUTHORS)
    for note in migration.scan(NOTES_2.span()):
        words = len(note.text.split())
        migration.put(
            NOTES_2, Note2(note.author, note.text, note.value, words, note.extra, float(words))
        )
        migration.insert(AUTHORS, Author(note.author))
    migration.drop("old")


def add_zoe(migration: Migration) -> None:
    migration.insert(AUTHORS, Author("zoe"))


VERSION_1 = Schema(tables=(NOTES_1, OLD))
VERSION_2 = Schema(tables=(NOTES_2, AUTHORS), migrations=(to_2,))
VERSION_3 = Schema(tables=(NOTES_2, AUTHORS), migrations=(to_2, add_zoe))

NOTE = Note1("ada", "one two", [1, (2, 3)])
MIGRATED = Note2("ada", "one two", [1, (2, 3)], 2, {"new": (1, float("inf"))}, 2.0)


def a_storage(url: str, schema: Schema) -> Storage:
    return open_storage(url, schema, timeout=10.0)


async def make_version_1(url: str) -> None:
    async with a_storage(url, VERSION_1) as storage:
        await storage.transact(lambda tx: tx.put(NOTES_1, NOTE))
        await storage.transact(lambda tx: tx.put(OLD, Old("x")))


def add_author(tx: Transaction, name: str) -> None:
    tx.put(AUTHORS, Author(name))


async def everything(storage: Storage) -> tuple[list[Note2], list[Author]]:
    return await storage.read(lambda tx: (tx.scan(NOTES_2.span()), tx.scan(AUTHORS.span())))


async def test_an_old_database_is_brought_up_to_date(database_url: str) -> None:
    await make_version_1(database_url)
    async with a_storage(database_url, VERSION_2) as storage:
        assert await everything(storage) == ([MIGRATED], [Author("ada")])
        assert await storage.read(lambda tx: tx.count(NOTES_2.span(by="due", stop=3.0))) == 1
    async with a_storage(database_url, VERSION_3) as storage:
        assert await everything(storage) == ([MIGRATED], [Author("ada"), Author("zoe")])


async def test_several_versions_at_once(database_url: str) -> None:
    await make_version_1(database_url)
    async with a_storage(database_url, VERSION_3) as storage:
        assert await everything(storage) == ([MIGRATED], [Author("ada"), Author("zoe")])


async def test_a_new_database_has_todays_tables_and_runs_no_migration(database_url: str) -> None:
    async with a_storage(database_url, VERSION_3) as storage:
        assert await everything(storage) == ([], [])


async def test_a_migration_that_fails_leaves_the_database_as_it_was(database_url: str) -> None:
    def breaks(migration: Migration) -> None:
        to_2(migration)
        raise ZeroDivisionError("half way")

    await make_version_1(database_url)
    broken = Schema(tables=(NOTES_2, AUTHORS), migrations=(breaks,))
    with pytest.raises(ZeroDivisionError, match="half way"):
        await a_storage(database_url, broken).start()
    async with a_storage(database_url, VERSION_1) as storage:
        assert await storage.read(lambda tx: tx.scan(NOTES_1.span())) == [NOTE]
    async with a_storage(database_url, VERSION_2) as storage:
        assert await everything(storage) == ([MIGRATED], [Author("ada")])


async def test_a_migration_that_names_no_column_is_refused(database_url: str) -> None:
    def adds_nothing(migration: Migration) -> None:
        migration.add_column(NOTES_2, "wrods", 0)

    await make_version_1(database_url)
    schema = Schema(tables=(NOTES_2, AUTHORS), migrations=(adds_nothing,))
    with pytest.raises(ConfigurationError, match="did you mean 'words'"):
        await a_storage(database_url, schema).start()


async def test_a_migration_that_hides_a_failure_is_not_done(database_url: str) -> None:
    def hides(migration: Migration) -> None:
        with contextlib.suppress(Exception):
            migration.count(AUTHORS.span())  # there is no such table yet

    await make_version_1(database_url)
    schema = Schema(tables=(NOTES_1, AUTHORS), migrations=(hides,))
    with pytest.raises(StorageUnavailable):
        await a_storage(database_url, schema).start()
    async with a_storage(database_url, VERSION_1) as storage:
        assert await storage.read(lambda tx: tx.scan(NOTES_1.span())) == [NOTE]


async def test_a_newer_database_is_refused_and_left_as_it_is(database_url: str) -> None:
    await make_version_1(database_url)
    async with a_storage(database_url, VERSION_3):
        pass
    with pytest.raises(ConfigurationError, match="version 3, this program knows 2") as raised:
        await a_storage(database_url, VERSION_2).start()
    assert "install that release" in str(raised.value)
    async with a_storage(database_url, VERSION_3) as storage:
        assert await everything(storage) == ([MIGRATED], [Author("ada"), Author("zoe")])


async def test_a_change_without_a_migration_is_refused(database_url: str) -> None:
    await make_version_1(database_url)
    changed = Schema(tables=(NOTES_2, OLD))
    with pytest.raises(ConfigurationError, match="add a migration"):
        await a_storage(database_url, changed).start()


async def test_hosts_that_start_at_once_migrate_once(database_url: str) -> None:
    await make_version_1(database_url)
    runs: list[int] = []

    def counted(migration: Migration) -> None:
        runs.append(1)
        to_2(migration)

    schema = Schema(tables=(NOTES_2, AUTHORS), migrations=(counted,))
    storages = [a_storage(database_url, schema) for _ in range(4)]
    await asyncio.gather(*(storage.start() for storage in storages))
    try:
        assert await everything(storages[0]) == ([MIGRATED], [Author("ada")])
    finally:
        await asyncio.gather(*(storage.aclose() for storage in storages))
    assert runs == [1]


async def test_hosts_that_start_at_once_on_nothing_make_the_tables_once(database_url: str) -> None:
    storages = [a_storage(database_url, VERSION_2) for _ in range(4)]
    await asyncio.gather(*(storage.start() for storage in storages))
    for number, storage in enumerate(storages):
        await storage.transact(partial(add_author, name=f"a{number}"))
    try:
        for storage in storages:
            assert len((await everything(storage))[1]) == 4
    finally:
        await asyncio.gather(*(storage.aclose() for storage in storages))
