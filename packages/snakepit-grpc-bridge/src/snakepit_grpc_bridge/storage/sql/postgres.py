"""PostgreSQL: a few threads with a connection each, serializable transactions, several hosts."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg import conninfo, pq
from psycopg.types.numeric import Int8BinaryDumper

from snakepit.errors import ConfigurationError, SnakepitError
from snakepit_grpc_bridge.errors import OutcomeUnknown
from snakepit_grpc_bridge.storage.interface import FaultPoint, Storage
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.sql.dialects import POSTGRESQL
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
from snakepit_grpc_bridge.storage.sql.outage import Outage
from snakepit_grpc_bridge.storage.sql.postgres_connection import Connection
from snakepit_grpc_bridge.storage.sql.postgres_errors import lost, translated
from snakepit_grpc_bridge.storage.sql.storage import SqlStorage
from snakepit_grpc_bridge.storage.sql.transaction import Cursor, Execute, SqlReader, SqlTransaction
from snakepit_grpc_bridge.storage.urls import PostgresqlUrl

__all__ = ["postgresql_storage"]

_T = TypeVar("_T")
#: Threads, and connections, of one storage.
_CONNECTIONS: Final = 4
_OLDEST_SERVER: Final = 13
#: Whoever makes or migrates the tables holds this advisory lock.
_PREPARING: Final = 0x736E616B65706974
#: Transactions that met others hold this one while they try again: they would only meet each other.
_LINING_UP: Final = _PREPARING + 1
#: A server that says nothing for so many times the timeout is given up, and for at least so many
#: seconds. More than once: waiting for a lock may take the timeout, a large value longer.
_SILENCE: Final = 3
_LEAST_SILENCE: Final = 2.0
#: Seconds until the record of a connection counts as left behind.
_FORGOTTEN: Final = 7 * 24 * 3600.0

_SETTINGS: Final = """
    SET search_path TO snakepit;
    -- Reading a small table as a whole would be quicker, and conflict with all who write to it.
    SET enable_seqscan TO off;
    SET plan_cache_mode TO force_generic_plan;
    SET jit TO off;
    SET lock_timeout TO {lock_timeout};
    -- A host that is stopped in a transaction must not hold its locks for ever.
    SET idle_in_transaction_session_timeout TO '30s';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off';
"""
_BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITE: Final = "BEGIN ISOLATION LEVEL SERIALIZABLE; EXECUTE number_commit ({number})"
_FORGET: Final = (
    "DELETE FROM commits WHERE connection IN "
    "(SELECT connection FROM commits WHERE since < %s FOR UPDATE SKIP LOCKED)"
)
_ENROL: Final = "INSERT INTO commits (connection, storage, number, since) VALUES (%s, %s, 0, %s)"
_NUMBER: Final = (
    "PREPARE number_commit (bigint) AS UPDATE commits SET number = $1 WHERE connection = '{name}'"
)
# Waits for a transaction that still holds the row, so that the answer is final.
_ASK: Final = "SELECT number FROM commits WHERE connection = %s FOR UPDATE"
_LEAVE: Final = "DELETE FROM commits WHERE connection = %s"
_OTHERS: Final = (
    "SELECT md5(string_agg(connection || ' ' || number, ',' ORDER BY connection)) "
    "FROM commits WHERE storage <> %s"
)


class PostgresEngine(Engine):
    """One connection, made anew when it was lost.

    Each connection has a row in the table ``commits``. Each transaction that writes also sets its
    number there. So when a connection breaks during COMMIT, the row tells whether that landed: a
    number that was reported by the server, such as a transaction id, may be given out again after a
    crash of it.
    """

    def __init__(self, common: Common, url: PostgresqlUrl, storage: str, outage: Outage) -> None:
        super().__init__(common)
        self._url = url
        self._outage = outage
        self._parameters = _with_defaults(url, common.timeout)
        self._patience = max(_LEAST_SILENCE, _SILENCE * common.timeout)
        self._storage = storage
        self._connection: Connection | None = None
        self._name: str | None = None  # of the connection, once it has its row
        self._number = 0
        self._contended = False  # whether the job's last attempt met another transaction
        self._lined_up = False

    def run(self, jobs: list[Job]) -> None:
        steps = {
            JobKind.PREPARE: self._prepare,
            JobKind.TRANSACT: self._transact,
            JobKind.READ: self._read,
            JobKind.VERSION: self._version,
        }
        for job in jobs:
            self._contended = False
            try:
                self._refuse_late(job)
                job.value = self._persist(partial(steps[job.kind], job), job.submitted)
            except WorkFailed as failed:
                job.error = failed.error
            except BaseException as error:
                job.error = error
            if job.kind is JobKind.TRANSACT:
                self.common.fault_point(FaultPoint.BEFORE_REPLY)

    def close(self) -> None:
        connection, name = self._connection, self._name
        if connection is not None and name is not None and not connection.closed:
            with contextlib.suppress(psycopg.Error):
                connection.execute(_LEAVE, (name,))
        self._drop()

    # --- jobs --------------------------------------------------------------------------------

    def _refuse_late(self, job: Job) -> None:
        """Attempt nothing for a job whose time went by in line, if the server is away: where it
        does not even refuse, each attempt takes as long again.
        """
        cause = self._outage.seen_since(job.submitted)
        if cause is not None and time.monotonic() > job.submitted + self.common.timeout:
            raise lost(self._url.label) from cause

    def _prepare(self, _: Job, connection: Connection) -> None:
        _refuse_unfit(connection)
        connection.patience = math.inf  # a migration takes its time
        connection.execute("BEGIN")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PREPARING,))
        # Asked first: IF NOT EXISTS takes the right to make schemas also where there is one.
        found = connection.execute("SELECT to_regnamespace('snakepit')").fetchone()
        if found is None or found[0] is None:
            connection.execute("CREATE SCHEMA snakepit")
        common = self.common

        def execute(text: str, values: Any) -> Cursor:
            return connection.execute(text, values or None)

        prepare(execute, common.dialect, common.schema, common.fault_point)
        connection.execute("COMMIT")
        connection.patience = self._patience

    def _read(self, job: Job, connection: Connection) -> Any:
        connection.execute(_BEGIN_READ)
        return call_work(job, SqlReader(_executing(connection), self.common.tables))

    def _version(self, _: Job, connection: Connection) -> str:
        found = connection.execute(_OTHERS, (self._storage,)).fetchone()
        return str(found[0] or "") if found else ""

    def _transact(self, job: Job, connection: Connection) -> Any:
        fault_point = self.common.fault_point
        fault_point(FaultPoint.BEFORE_BEGIN)
        if self._contended:
            # Before the transaction, whose view of the data begins with its first statement.
            connection.execute("SELECT pg_advisory_lock(%s)", (_LINING_UP,))
            self._lined_up = True
        self._begin(connection)
        tx = SqlTransaction(_executing(connection), self.common.tables, fault_point)
        result = call_work(job, tx)
        if tx.changes:
            fault_point(FaultPoint.BEFORE_COMMIT)
            self._commit(connection)
            fault_point(FaultPoint.AFTER_COMMIT)
            job.changes = tx.changes
        return result

    def _begin(self, connection: Connection) -> None:
        """Begin a transaction that commits under the next number; one round trip."""
        if self._name is None:
            self._enrol(connection)
        self._number += 1
        cursor = connection.execute(_BEGIN_WRITE.format(number=self._number))
        cursor.nextset()
        if cursor.rowcount != 1:  # it did nothing for so long that its row was cleared away
            self._drop()
            raise Again(lost(self._url.label))

    def _commit(self, connection: Connection) -> None:
        """Commit; find out what has happened if the connection breaks meanwhile.

        Raises:
            Again: it was not committed, and never will be.
            OutcomeUnknown: the server did not come back in time to be asked.
        """
        try:
            connection.execute("COMMIT")
        except psycopg.Error as error:
            if not connection.closed:
                raise
            name, number = self._name, self._number
            self._drop()
            if self._ask(name, error) != number:
                raise Again(lost(self._url.label)) from error

    def _ask(self, name: str | None, cause: psycopg.Error) -> int:
        def ask(connection: Connection) -> Any:
            return connection.execute(_ASK, (name,)).fetchone()

        try:
            found = self._persist(ask)
        except SnakepitError:
            found = None
        if found is None:
            raise OutcomeUnknown(
                f"the connection to {self._url.label} broke during a commit, and the server could "
                "not be asked whether that landed; read before you write again",
                details={"storage": self._url.label},
            ) from cause
        return int(found[0])

    # --- the connection ----------------------------------------------------------------------

    def _persist(self, step: Callable[[Connection], _T], since: float | None = None) -> _T:
        return self.common.persist(self._attempt, step, since=since)

    def _attempt(self, step: Callable[[Connection], _T]) -> _T:
        """Run a step; what the driver raises becomes an error of ours. Leaves no transaction open.

        Raises:
            Again: others are in the way, or the connection is lost. Nothing is left of the step.
        """
        try:
            if self._connection is None:
                self._connection = self._connect()
            try:
                return step(self._connection)
            finally:
                self._roll_back()
        except psycopg.Error as error:
            problem = translated(error, self._url.label)
            self._contended = isinstance(problem, Again) and problem.soon
            if isinstance(problem, Again) and not problem.soon:
                self._outage.notice(error)
            raise problem from error

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if not connection.closed and connection.pgconn.transaction_status != _IDLE:
            connection.clear_up(b"ROLLBACK")
        if not connection.closed and self._lined_up:
            connection.clear_up(b"SELECT pg_advisory_unlock_all()")
            self._lined_up = False
        if connection.closed or connection.pgconn.transaction_status != _IDLE:
            self._drop()

    def _connect(self) -> Connection:
        parameters = conninfo.make_conninfo(**self._parameters)
        try:
            connection = Connection.connect(parameters, autocommit=True)
        except psycopg.Error as error:
            # Its traceback holds what the driver has tried, and so the socket of an attempt that
            # took too long: for as long as a caller, or a log, keeps the error.
            raise error.with_traceback(None) from None
        self._outage.is_over()
        try:
            connection.patience = self._patience
            settings = _SETTINGS.format(lock_timeout=math.ceil(self.common.timeout * 1000))
            connection.execute(settings)
            connection.prepared_max = 1000
            # One type for all integers: each combination would be a prepared statement of its own.
            connection.adapters.register_dumper(int, Int8BinaryDumper)
        except BaseException:
            connection.close()
            raise
        return connection

    def _enrol(self, connection: Connection) -> None:
        """Give the connection its row in ``commits``, and clear away those that were left."""
        name = uuid.uuid4().hex
        connection.execute(_FORGET, (time.time() - _FORGOTTEN,))
        connection.execute(_ENROL, (name, self._storage, time.time()))
        connection.execute(_NUMBER.format(name=name))
        self._name = name

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._name, self._lined_up = None, False
        if connection is not None:
            connection.close()


_IDLE: Final = pq.TransactionStatus.IDLE


def postgresql_storage(
    url: PostgresqlUrl, schema: Schema, timeout: float, fault_point: Callable[[FaultPoint], None]
) -> Storage:
    """Return the storage in a PostgreSQL database; see ``open_storage``."""
    common = Common.of(schema, POSTGRESQL, timeout, fault_point)
    name = uuid.uuid4().hex
    outage = Outage()
    engines = [PostgresEngine(common, url, name, outage) for _ in range(_CONNECTIONS)]
    return SqlStorage(url.label, common, engines)


def _executing(connection: Connection) -> Execute:
    """Return what runs the statements of one transaction."""
    cursor = connection.cursor(binary=True)

    def execute(text: str, values: Any) -> Cursor:
        # No text of a statement holds anything that a user has given.
        return cursor.execute(text, values, prepare=True)

    return execute


def _with_defaults(url: PostgresqlUrl, timeout: float) -> dict[str, Any]:
    """Return the parameters of a URL, with ours where it says nothing."""
    try:
        given = conninfo.conninfo_to_dict(url.conninfo)
    except psycopg.Error:
        # Its text, and so its cause, may repeat parts of the URL.
        raise ConfigurationError(
            f"the URL of {url.label} can't be read; see the documentation of PostgreSQL for the "
            "parameters that it takes"
        ) from None
    return {
        "application_name": "snakepit",
        "connect_timeout": max(2, math.ceil(timeout)),
        # A peer that is gone without a word is noticed within half a minute, not after two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        **given,
        "client_encoding": "utf8",
    }


def _refuse_unfit(connection: Connection) -> None:
    version = connection.info.server_version // 10_000
    if version < _OLDEST_SERVER:
        raise ConfigurationError(
            f"the server is PostgreSQL {version}; version {_OLDEST_SERVER} or later is needed"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {encoding}; create one with ENCODING 'UTF8'"
        )
