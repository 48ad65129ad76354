"""What can happen to a SQLite file, and to those who use it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from full_disks import can_mount
from storage_hosts import result_of
from storage_tables import ITEMS, SCHEMA, Item

from snakepit.errors import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    SnakepitError,
)
from snakepit_grpc_bridge.errors import (
    OutcomeUnknown,
    StorageCorrupt,
    StorageFull,
    StorageUnavailable,
    ValidationFailed,
)
from snakepit_grpc_bridge.storage import ReadTransaction, Transaction, open_storage
from snakepit_grpc_bridge.storage.sql import dialects, sqlite
from snakepit_grpc_bridge.storage.sql.engine import Again
from snakepit_grpc_bridge.storage.sql.place import Place

SOME = 500_000


def put(number: int, value: Any = None) -> Any:
    return lambda tx: tx.put(ITEMS, Item("g", number, value=value))


def numbers(tx: ReadTransaction) -> list[int]:
    return [item.number for item in tx.scan(ITEMS.span())]


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


# (Small, and not async: async functions are checked for blocking calls on paths.)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def move(source: Path, target: Path) -> None:
    source.rename(target)


def make_readable(path: Path, mode: int) -> None:
    """Let others reach a file, in a folder with a mode."""
    path.parent.chmod(mode)
    for above in path.parents:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    if path.exists():
        path.chmod(0o644)


def files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def integrity(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        answer: str = database.execute("PRAGMA integrity_check").fetchone()[0]
        return answer
    finally:
        database.close()


# --- the file ------------------------------------------------------------------------------------


async def test_its_files_are_the_owners_alone(sqlite_url: str, path: Path) -> None:
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1))
        await storage.read(numbers)
        assert files(path) == ["state.db", "state.db-shm", "state.db-wal"]
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == {0o600}
    assert files(path) == ["state.db"]
    assert integrity(path) == "ok"


async def test_names_with_odd_characters(tmp_path: Path) -> None:
    odd = folder(tmp_path / "a b%20#1&\u00e9")
    for name in ("state.db", "%2e.db", "a#b"):
        async with open_storage(f"sqlite:///{odd}/{name}", SCHEMA) as storage:
            await storage.transact(put(1))
    assert files(odd / "state.db") == ["%2e.db", "a#b", "state.db"]


async def test_a_link_to_a_file(tmp_path: Path) -> None:
    there = folder(tmp_path / "there") / "state.db"
    link(tmp_path / "link.db", there)
    async with open_storage(f"sqlite:///{tmp_path}/link.db", SCHEMA) as storage:
        await storage.transact(put(1))
        assert files(there) == ["state.db", "state.db-shm", "state.db-wal"]


@pytest.mark.parametrize("name", ["none/state.db", ".", "file/state.db"])
async def test_a_place_where_no_file_can_be(tmp_path: Path, name: str) -> None:
    write(tmp_path / "file", b"")
    with pytest.raises(StorageUnavailable) as raised:
        await open_storage(f"sqlite:///{tmp_path}/{name}", SCHEMA).start()
    assert not raised.value.retryable
    assert str(tmp_path) in str(raised.value)
    assert raised.value.__cause__ is not None


async def test_the_database_of_another_application_is_left_alone(
    sqlite_url: str, path: Path
) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE items (x)")
    database.close()
    before = content(path)
    with pytest.raises(ConfigurationError, match="another application"):
        await open_storage(sqlite_url, SCHEMA).start()
    assert content(path) == before
    assert files(path) == ["state.db"]


async def test_a_file_that_is_no_database_is_left_alone(sqlite_url: str, path: Path) -> None:
    write(path, b"Dear diary,\n" * 100)
    with pytest.raises(StorageCorrupt) as raised:
        await open_storage(sqlite_url, SCHEMA).start()
    assert str(path) in str(raised.value)
    assert content(path) == b"Dear diary,\n" * 100


async def test_an_empty_file_becomes_a_database(sqlite_url: str, path: Path) -> None:
    write(path, b"")
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1))


async def test_a_damaged_page_is_told_and_nothing_deleted(sqlite_url: str, path: Path) -> None:
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await asyncio.gather(*(storage.transact(put(number)) for number in range(2000)))
    pages = bytearray(content(path))
    half = len(pages) // 2 // 4096 * 4096
    pages[half:] = b"\xa5" * len(pages[half:])
    write(path, bytes(pages))
    async with open_storage(sqlite_url, SCHEMA) as storage:
        for attempt in (storage.read, storage.transact):
            with pytest.raises(StorageCorrupt) as raised:
                await attempt(numbers)
            assert str(path) in str(raised.value)
            assert not raised.value.retryable
            assert isinstance(raised.value.__cause__, sqlite3.DatabaseError)
    assert len(content(path)) == len(pages)


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_file_deleted_while_it_is_open_is_noticed(
    sqlite_url: str, path: Path, tmp_path: Path, suffix: str
) -> None:
    victim = Path(f"{path}{suffix}")
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1))
        move(victim, tmp_path / "elsewhere")
        with pytest.raises(StorageUnavailable, match="deleted or replaced") as raised:
            await storage.transact(put(2))
        assert str(victim) in str(raised.value)
        assert not raised.value.retryable
        if not suffix:
            with pytest.raises(StorageUnavailable, match="deleted or replaced"):
                await storage.read(numbers)
        assert victim.name not in files(path)
        move(tmp_path / "elsewhere", victim)
        await storage.transact(put(3))
        assert await storage.read(numbers) == [1, 3]
    assert integrity(path) == "ok"


async def test_a_file_replaced_while_it_is_open_is_noticed(sqlite_url: str, path: Path) -> None:
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1))
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        move(copy, path)
        with pytest.raises(StorageUnavailable, match="deleted or replaced"):
            await storage.transact(put(2))


# --- no room, no right ---------------------------------------------------------------------------


async def test_when_the_file_may_not_grow_nothing_is_lost(
    sqlite_url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*sqlite._SETTINGS, "PRAGMA max_page_count = 100")
    monkeypatch.setattr(sqlite, "_SETTINGS", settings)
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1, b"x"))
        with pytest.raises(StorageFull) as raised:
            await storage.transact(put(2, bytes(SOME)))
        assert isinstance(raised.value.__cause__, sqlite3.Error)
        assert not raised.value.retryable
        # Of those that would be committed together, only the large one fails.
        ends = await asyncio.gather(
            *(storage.transact(put(n, bytes(SOME if n == 15 else 10))) for n in range(10, 20)),
            return_exceptions=True,
        )
        assert [type(end) for end in ends if end is not None] == [StorageFull]
        good = [1, *(n for n in range(10, 20) if n != 15)]
        assert await storage.read(numbers) == good
        assert await storage.transact(lambda tx: tx.delete(ITEMS, "g", 1))
        await storage.transact(put(3, b"y"))
    assert integrity(path) == "ok"


async def test_work_that_hides_a_failure_of_the_database_is_not_committed(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(tx: Transaction) -> str:
        tx.put(ITEMS, Item("g", 1))
        try:
            tx.put(ITEMS, Item("g", 2, value=bytes(SOME)))
        except Exception:
            tx.put(ITEMS, Item("g", 3))
        return "all is well"

    settings = (*sqlite._SETTINGS, "PRAGMA max_page_count = 100")
    monkeypatch.setattr(sqlite, "_SETTINGS", settings)
    async with open_storage(sqlite_url, SCHEMA) as storage:
        with pytest.raises(StorageFull):
            await storage.transact(work)
        assert await storage.read(numbers) == []


@pytest.mark.slow
async def test_a_limit_on_the_size_of_files(sqlite_url: str, path: Path) -> None:
    (said,) = await result_of("limited", sqlite_url, "3000000")
    assert said["ends"].count("ok") > 3
    assert set(said["ends"]) == {"ok", "storage_unavailable"}
    assert said["full"] == ["storage_unavailable"] * 3
    assert said["kept"]
    assert said["again"] == "ok"
    assert integrity(path) == "ok"


@pytest.mark.slow
async def test_a_full_disk(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("a small disk can't be mounted here (unshare --mount)")
    disk = f"mount -t tmpfs -o size=4m none {tmp_path} && head -c 1000000 /dev/zero"
    script = f'{disk} > {tmp_path}/ballast && exec "$@"'
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    (said,) = await result_of(
        "fill", f"sqlite:///{tmp_path}/state.db", str(tmp_path), prefix=prefix
    )
    assert said["ends"].count("ok") > 3
    assert set(said["ends"]) == {"ok", "storage_full"}
    assert said["full"] == ["storage_full"] * 3
    assert said["kept"]
    assert said["again"] == "ok"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize(("mode", "there"), [(0o755, True), (0o755, False), (0o777, True)])
async def test_without_the_right_to_write(
    sqlite_url: str, path: Path, mode: int, there: bool
) -> None:
    if there:
        async with open_storage(sqlite_url, SCHEMA):
            pass
    make_readable(path, mode)
    (said,) = await result_of("unprivileged", sqlite_url)
    assert said["end"] == "storage_unavailable"
    if "message" in said:
        assert not said["retryable"]
        assert str(path) in said["message"]


# --- values --------------------------------------------------------------------------------------


async def test_a_value_that_does_not_travel_is_refused_by_its_path(sqlite_url: str) -> None:
    def work(tx: Transaction) -> None:
        tx.put(ITEMS, Item("g", 1))
        tx.put(ITEMS, Item("g", 2, value={"a": [object()]}))

    async with open_storage(sqlite_url, SCHEMA) as storage:
        with pytest.raises(EncodeError) as raised:
            await storage.transact(work)
        assert raised.value.path == "value.a[0]"
        with pytest.raises(EncodeError):
            await storage.transact(put(3, "\ud800"))
        assert await storage.read(numbers) == []


async def test_a_value_that_is_too_large_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, "MAX_VALUE_BYTES", 1000)
    async with open_storage(sqlite_url, SCHEMA) as storage:
        with pytest.raises(PayloadTooLarge):
            await storage.transact(put(1, bytes(1001)))
        assert await storage.read(numbers) == []


async def test_a_value_that_can_not_be_read_names_its_column(sqlite_url: str, path: Path) -> None:
    async with open_storage(sqlite_url, SCHEMA) as storage:
        await storage.transact(put(1, "good"))
        await storage.transact(put(2, "good"))
    database = sqlite3.connect(path)
    database.execute("UPDATE items SET value = x'c1' WHERE number = 2")
    database.commit()
    database.close()
    async with open_storage(sqlite_url, SCHEMA) as storage:
        with pytest.raises(DecodeError, match="column 'value' of table 'items'"):
            await storage.read(lambda tx: tx.get(ITEMS, "g", 2))
        found = await storage.read(lambda tx: tx.get(ITEMS, "g", 1))
        assert found is not None
        assert found.value == "good"
        assert await storage.transact(lambda tx: tx.delete(ITEMS, "g", 2))


# --- processes and loops -------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_forked_child_is_refused_and_harms_nothing(sqlite_url: str, path: Path) -> None:
    *in_child, in_parent = await result_of("fork", sqlite_url)
    assert in_child == [{"end": "storage_unavailable"}] * 2
    assert in_parent == {"status": 0, "end": "ok", "numbers": [1, 2]}
    assert integrity(path) == "ok"


def test_another_event_loop_is_refused(sqlite_url: str) -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        storage = open_storage(sqlite_url, SCHEMA)
        first.run(storage.start())
        with pytest.raises(ConfigurationError, match="event loop"):
            second.run(storage.transact(put(1)))
        first.run(storage.transact(put(1)))
        first.run(storage.aclose())


@pytest.mark.parametrize(
    ("number", "kind", "retryable", "advice"),
    [
        (errno.ENOSPC, StorageFull, False, "No space left on device; free some"),
        (errno.EMFILE, StorageUnavailable, True, "Too many open files; let this process have more"),
        (errno.EROFS, StorageUnavailable, False, "Read-only file system; make its folder"),
    ],
)
async def test_a_file_that_cant_be_created_is_told_with_what_helps(
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[SnakepitError],
    retryable: bool,
    advice: str,
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("snakepit_grpc_bridge.storage.sql.place._create", refuse)
    with pytest.raises(kind, match=advice) as raised:
        await open_storage(sqlite_url, SCHEMA).start()
    assert raised.value.retryable is retryable


def test_result_codes_that_no_test_can_provoke(path: Path) -> None:
    def meaning(code: int) -> Exception:
        return sqlite._translated(code, Place(path))

    # What a commit has written may be there after a crash, though the disk did not confirm it.
    assert isinstance(meaning(sqlite3.SQLITE_IOERR_FSYNC), OutcomeUnknown)
    assert isinstance(meaning(sqlite3.SQLITE_IOERR_WRITE), StorageUnavailable)
    # These say that waiting helps; a snapshot that is too old needs a new transaction.
    for code in (sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_LOCKED):
        assert isinstance(meaning(code), Again)
    assert isinstance(meaning(sqlite3.SQLITE_TOOBIG), ValidationFailed)
