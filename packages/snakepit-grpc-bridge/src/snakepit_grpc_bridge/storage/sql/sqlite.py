"""SQLite: one thread writes, others read the last committed state meanwhile (WAL)."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote

from snakepit.errors import ConfigurationError, SnakepitError
from snakepit_grpc_bridge.errors import (
    OutcomeUnknown,
    StorageBusy,
    StorageCorrupt,
    StorageFull,
    StorageUnavailable,
    ValidationFailed,
)
from snakepit_grpc_bridge.storage.interface import FaultPoint, Storage
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.sql.dialects import SQLITE
from snakepit_grpc_bridge.storage.sql.engine import (
    Again,
    Common,
    Engine,
    Job,
    JobKind,
    WorkFailed,
    call_work,
)
from snakepit_grpc_bridge.storage.sql.migrations import prepare
from snakepit_grpc_bridge.storage.sql.place import Place
from snakepit_grpc_bridge.storage.sql.storage import SqlStorage
from snakepit_grpc_bridge.storage.sql.transaction import SqlReader, SqlTransaction
from snakepit_grpc_bridge.storage.urls import SqliteUrl

__all__ = ["sqlite_storage"]

_T = TypeVar("_T")
#: In the header of our files, so that those of other applications are told apart.
_APPLICATION_ID: Final = 0x736E616B
#: Transactions that are committed together at most, when that many wait.
_TOGETHER: Final = 64
_READERS: Final = 2
_OLDEST_LIBRARY: Final = (3, 35)  # RETURNING
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # on macOS, fsync alone stops at the drive's own memory
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)


class _SqliteEngine(Engine):
    """What reading and writing have in common."""

    def __init__(self, common: Common, place: Place) -> None:
        super().__init__(common)
        self._place = place
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _alone(self, job: Job, attempt: Callable[[sqlite3.Connection], Any]) -> None:
        """Do a job by an attempt that may have to be repeated."""
        try:
            job.value = self._persist(attempt)
        except WorkFailed as failed:
            job.error = failed.error
        except BaseException as error:
            job.error = error

    def _persist(self, attempt: Callable[[sqlite3.Connection], _T]) -> _T:
        return self.common.persist(self._attempt, attempt)

    def _attempt(self, attempt: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run an attempt on the connection; what the driver raises becomes an error of ours.

        Raises:
            Again: others are in the way. Nothing is left of the attempt.
        """
        try:
            connection = self._connected()
            try:
                return attempt(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:  # the driver is used wrongly
                raise
            if code & _PRIMARY not in _HARMLESS:
                self.close()
            raise _translated(code, self._place) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._place.claim()
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._place.path))}?mode=rw",
            uri=True,
            timeout=0,  # waiting is done by `persist`: SQLite itself sleeps for up to 100 ms
            isolation_level=None,
            cached_statements=512,
        )
        try:
            self._refuse_foreign(connection)
            for setting in _SETTINGS:
                connection.execute(setting)
            self._refuse_without_log(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_foreign(self, connection: sqlite3.Connection) -> None:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and mark != _APPLICATION_ID:
            raise ConfigurationError(
                f"{self._place.path} is the database of another application, and was left as it "
                "is; choose the name of a new file",
                details={"file": str(self._place.path)},
            )

    def _refuse_without_log(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            raise StorageUnavailable(
                f"the file system of {self._place.path} can't do what SQLite's log needs; use a "
                "local disk",
                retryable=False,
                details={"file": str(self._place.path)},
            )


class SqliteReader(_SqliteEngine):
    """Reads the state that is committed when it begins, whatever is being written."""

    def run(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._alone(job, partial(self._read, job))

    def _read(self, job: Job, connection: sqlite3.Connection) -> Any:
        self._place.check()
        connection.execute("BEGIN")
        return call_work(job, SqlReader(connection.execute, self.common.tables))


class SqliteWriter(_SqliteEngine):
    """Does all that writes, one transaction after the other."""

    at_once = _TOGETHER

    def __init__(self, common: Common, place: Place) -> None:
        super().__init__(common, place)
        self._number = 0

    def run(self, jobs: list[Job]) -> None:
        transactions: list[Job] = []
        for job in jobs:
            if job.kind is JobKind.TRANSACT:
                transactions.append(job)
            else:
                self._alone(job, self._prepare if job.kind is JobKind.PREPARE else self._version)
        if transactions:
            self._transact(transactions)
            self.common.fault_point(FaultPoint.BEFORE_REPLY)

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        self._number += 1
        self._place.forget_log()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        common = self.common
        prepare(connection.execute, common.dialect, common.schema, common.fault_point)
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> str:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        # Another connection counts anew.
        return f"{self._number}:{version}"

    def _transact(self, jobs: list[Job]) -> None:
        """Run transactions and commit them together; one by one, if that fails."""
        try:
            self._persist(partial(self._transaction, jobs))
        except BaseException as error:
            if len(jobs) == 1 or isinstance(error, StorageBusy):
                for job in jobs:
                    job.error = error
            else:
                for job in jobs:
                    self._transact([job])

    def _transaction(self, jobs: list[Job], connection: sqlite3.Connection) -> None:
        self.common.fault_point(FaultPoint.BEFORE_BEGIN)
        connection.execute("BEGIN IMMEDIATE")
        if len(jobs) == 1:
            self._work(jobs[0], connection)
        else:
            for job in jobs:
                self._work_of_several(job, connection)
        self._place.check_with_log()
        if any(job.changes for job in jobs):
            self.common.fault_point(FaultPoint.BEFORE_COMMIT)
            connection.execute("COMMIT")
            self.common.fault_point(FaultPoint.AFTER_COMMIT)

    def _work_of_several(self, job: Job, connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT of_one")
        self._work(job, connection)
        if job.error is not None:
            connection.execute("ROLLBACK TO of_one")
        connection.execute("RELEASE of_one")

    def _work(self, job: Job, connection: sqlite3.Connection) -> None:
        """Run the work of a job; note what it has changed, nothing if it raised."""
        tx = SqlTransaction(connection.execute, self.common.tables, self.common.fault_point)
        job.value = job.error = None
        job.changes = []
        try:
            job.value = call_work(job, tx)
        except WorkFailed as failed:
            job.error = failed.error
        else:
            job.changes = tx.changes


def sqlite_storage(
    url: SqliteUrl, schema: Schema, timeout: float, fault_point: Callable[[FaultPoint], None]
) -> Storage:
    """Return the storage in a SQLite file; see ``open_storage``."""
    if sqlite3.sqlite_version_info < _OLDEST_LIBRARY:
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}; 3.35 or later is needed"
        )
    common = Common.of(schema, SQLITE, timeout, fault_point)
    place = Place(url.path)
    readers = [SqliteReader(common, place) for _ in range(_READERS)]
    return SqlStorage(f"sqlite:///{url.path}", common, [SqliteWriter(common, place)], readers)


# --- errors --------------------------------------------------------------------------------------

_PRIMARY: Final = 0xFF  # the part of a result code without its details
#: After these the connection goes on being good.
_HARMLESS: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG}
_SYNC_FAILED: Final = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
_IN_THE_WAY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_RIGHT: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


def _translated(code: int, place: Place) -> Exception:
    """Return the error for a result code; an :class:`Again` for one that waiting helps with."""
    primary = code & _PRIMARY
    details = {"file": str(place.path), "code": code}
    if primary in _IN_THE_WAY:
        return Again(
            StorageBusy(
                f"another process held the database {place.path} for too long; try again, or look "
                "for one that is stopped in a transaction",
                details=details,
            ),
            soon=True,
        )
    return _final(code, primary, place, details)


def _final(code: int, primary: int, place: Place, details: dict[str, Any]) -> SnakepitError:
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"there is no room for the database {place.path}; nothing was written: free some and "
            "try again",
            details=details,
        )
    if primary in _DAMAGED:
        return StorageCorrupt(
            f"{place.path} is damaged, or no SQLite database; it is left as it is: restore it from "
            "a backup, or choose another file",
            details=details,
        )
    if code in _SYNC_FAILED:
        return OutcomeUnknown(
            f"the disk did not confirm a commit to {place.path}; check the disk, and read before "
            "you write again",
            details=details,
        )
    if primary in _NO_RIGHT:
        return StorageUnavailable(
            f"the database {place.path} can't be written; make the file and its folder writable "
            "for this user",
            retryable=False,
            details=details,
        )
    if primary == sqlite3.SQLITE_TOOBIG:
        return ValidationFailed("a row is larger than SQLite takes (10**9 bytes); divide it")
    return StorageUnavailable(
        f"the database {place.path} can't be used; nothing was written: see the cause",
        retryable=primary == sqlite3.SQLITE_IOERR,
        details=details,
    )
