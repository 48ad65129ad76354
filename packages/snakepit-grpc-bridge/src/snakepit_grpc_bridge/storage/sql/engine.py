"""One connection to a database, and how work is done over it. Lives in one thread.

The databases' own parts are in ``sqlite.py`` and ``postgres.py``.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Self, TypeVar

from snakepit.errors import SnakepitError
from snakepit.loops.waiting import Waiting
from snakepit_grpc_bridge.storage.interface import Change, FaultPoint, refuse_coroutine
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.sql.dialects import Dialect
from snakepit_grpc_bridge.storage.sql.statements import TableStatements
from snakepit_grpc_bridge.storage.sql.transaction import SqlReader, Tables

__all__ = ["Again", "Common", "Engine", "Job", "JobKind", "WorkFailed", "call_work"]

_T = TypeVar("_T")
_A = TypeVar("_A")
# Seconds. The pauses between attempts double, and each is a random part of that.
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.005
_LONGEST_PAUSE_AWAY: Final = 0.05


class JobKind(Enum):
    """What is to be done."""

    PREPARE = "prepare"
    """Create or migrate the tables."""
    TRANSACT = "transact"
    READ = "read"
    VERSION = "version"
    """Ask for the version of what others have committed."""


class Job(Waiting):
    """Something that is to be done, and how it ended. Awaiting it, in the event loop, only tells
    that it has ended.
    """

    __slots__ = ("changes", "error", "given_up", "kind", "submitted", "value", "work")

    def __init__(self, kind: JobKind, work: Callable[[Any], Any]) -> None:
        super().__init__()
        self.kind = kind
        self.work = work
        self.submitted = time.monotonic()
        self.value: Any = None
        self.error: BaseException | None = None
        #: What the caller is told instead, whatever a thread still makes of the job.
        self.given_up: SnakepitError | None = None
        self.changes: list[Change] = []


class Again(Exception):
    """An attempt failed, and nothing is left of it: another one may succeed.

    ``error`` is what the caller is told if there is no time for another; ``soon`` whether to wait
    for a transaction to end, rather than for a server to come back.
    """

    def __init__(self, error: SnakepitError, *, soon: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.soon = soon
        self.longest_pause = _LONGEST_PAUSE if soon else _LONGEST_PAUSE_AWAY


class WorkFailed(Exception):
    """``work`` raised ``error`` of its own accord: the database is all right."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


def call_work(job: Job, tx: SqlReader) -> Any:
    """Run the work of a job, and end the transaction object; return the result.

    Raises:
        WorkFailed: it raised.
        Exception: the driver's, whatever ``work`` made of it.
    """
    result: Any = None
    raised: BaseException | None = None
    try:
        result = job.work(tx)
        refuse_coroutine(result)
    except BaseException as error:
        raised = error
    tx.end()
    if tx.failure is not None:
        raise tx.failure
    if raised is not None:
        raise WorkFailed(raised)
    return result


@dataclass(frozen=True, slots=True)
class Common:
    """What all engines of a storage share.

    Attributes:
        schema: the tables.
        dialect: the database's.
        tables: their statements.
        timeout: seconds that a transaction may wait for others, or for a lost server.
        fault_point: told of the places that a transaction passes.
        closing: set when the storage is closed: nothing is attempted again.
    """

    schema: Schema
    dialect: Dialect
    tables: Tables
    timeout: float
    fault_point: Callable[[FaultPoint], None]
    closing: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(
        cls,
        schema: Schema,
        dialect: Dialect,
        timeout: float,
        fault_point: Callable[[FaultPoint], None],
    ) -> Self:
        """Return it for a schema, with all statements compiled that don't depend on a span."""
        tables = {table: TableStatements(table, dialect) for table in schema.tables}
        return cls(schema, dialect, tables, timeout, fault_point)

    def persist(self, attempt: Callable[[_A], _T], what: _A, *, since: float | None = None) -> _T:
        """Call ``attempt(what)`` until it succeeds, or fails for good, or time is over.

        A server is waited for from ``since`` on, or from now: for those in line behind others, too,
        it has been away meanwhile.

        Raises:
            SnakepitError: that of the last :class:`Again`, with its cause.
        """
        start = time.monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                return attempt(what)
            except Again as again:
                waits_since = start if again.soon or since is None else since
                left = waits_since + self.timeout - time.monotonic()
                # Random, so that those who were in each other's way don't meet again.
                if left <= 0 or self.closing.wait(min(left, random.uniform(0, pause))):
                    raise again.error from again.__cause__
                pause = min(2 * pause, again.longest_pause)


class Engine(ABC):
    """A connection and the work over it. Opened by the first job, in the thread that runs jobs."""

    #: Jobs that it takes at once.
    at_once: int = 1

    def __init__(self, common: Common) -> None:
        self.common = common

    @abstractmethod
    def run(self, jobs: list[Job]) -> None:
        """Do jobs; give each its result or its error. Raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, if it is open. Raises nothing."""
