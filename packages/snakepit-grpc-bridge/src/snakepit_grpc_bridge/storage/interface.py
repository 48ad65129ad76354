"""What every storage does: transactions on tables of records. The backends are beside this file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import StrEnum
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import StorageUnavailable
from snakepit_grpc_bridge.storage.columns import Values
from snakepit_grpc_bridge.storage.tables import Span, Table

__all__ = ["Change", "FaultPoint", "Listener", "ReadTransaction", "Storage", "Transaction"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Row = TypeVar("_Row")

#: Rows that :meth:`Storage.prune` deletes in one transaction: a few milliseconds of work.
PRUNE_BATCH = 200


class Change(NamedTuple):
    """A row that a committed transaction wrote or deleted."""

    table: Table[Any]
    key: Values


Listener = Callable[[Sequence[Change]], None]


class FaultPoint(StrEnum):
    """The places in a transaction of a database at which a test can strike."""

    BEFORE_BEGIN = "before_begin"
    AFTER_WRITE = "after_write"
    """One statement of several has been executed."""
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_REPLY = "before_reply"
    """All is durable, and the event loop knows nothing of it."""


class ReadTransaction(Protocol):
    """What a read sees: the committed state of one moment. Valid only while ``work`` runs."""

    def get(self, table: Table[_Row], *key: Any) -> _Row | None:
        """Return the row of a key, or None."""
        ...

    def scan(
        self,
        span: Span[_Row],
        *,
        after: _Row | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[_Row]:
        """Return the rows of a span in its order; with ``reverse`` from its end.

        ``after`` is a row, which need not exist any more, behind which to go on: the last one of
        the page before.
        """
        ...

    def count(self, span: Span[Any]) -> int:
        """Return how many rows a span has."""
        ...


class Transaction(ReadTransaction, Protocol):
    """What a transaction can do. It sees its own writes. Valid only while ``work`` runs."""

    def put(self, table: Table[_Row], row: _Row) -> None:
        """Write a row in place of the one with its key, if there is one.

        Raises:
            ValidationFailed: a column can't hold its value.
            EncodeError: on databases: a value is of a kind that can't be encoded.
            PayloadTooLarge: on databases: a value has more than 256 MiB.
        """
        ...

    def insert(self, table: Table[_Row], row: _Row) -> bool:
        """Write a row if none has its key; say whether it did. Raises as :meth:`put`."""
        ...

    def delete(self, table: Table[Any], *key: Any) -> bool:
        """Delete the row of a key; say whether there was one."""
        ...

    def delete_span(self, span: Span[Any], *, limit: int | None = None) -> int:
        """Delete the rows of a span, or the first ``limit`` of them; return how many these were."""
        ...


class Storage(ABC):
    """Tables of records behind atomic, serializable transactions. Made by :func:`open_storage`.

    It belongs to the event loop it is entered in (``async with``) and to its process. Any method
    raises StorageUnavailable before it is entered, after it is closed and in a forked child.
    """

    #: Whether others than this process may write to it.
    is_shared: ClassVar[bool] = True

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @abstractmethod
    async def start(self) -> None:
        """Open it; what ``async with`` does on entering.

        Raises:
            StorageUnavailable: the file or the server can't be reached or opened.
            StorageCorrupt: the file is damaged, or no database.
            ConfigurationError: it holds the tables of another application or of a newer version, or
                the declared tables were changed without a migration.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Run what was submitted, then close it. Idempotent."""

    @abstractmethod
    async def transact(self, work: Callable[[Transaction], _T]) -> _T:
        """Run ``work(tx)`` as one transaction and return its result, once that is durable.

        ``work`` is a plain function. If it raises, nothing is written. It may be run more than
        once, when others got in between or a server was lost, and in a thread of the storage: it
        must not do or change anything but through ``tx``. When the caller is cancelled meanwhile,
        the transaction takes effect wholly or not at all.

        Raises:
            StorageBusy: others were in the way for too long; nothing was written.
            StorageFull: there is no room left; nothing was written.
            StorageUnavailable: the file or the server can't be used; nothing was written.
            StorageCorrupt: the database is damaged; nothing was written.
            OutcomeUnknown: the server was lost during the commit and did not come back in time.

        Example::

            def withdraw(tx: Transaction) -> float:
                account = tx.get(ACCOUNTS, "ada")
                rest = account.balance - 10.0
                tx.put(ACCOUNTS, dataclasses.replace(account, balance=rest))
                return rest

            rest = await storage.transact(withdraw)
        """

    @abstractmethod
    async def read(self, work: Callable[[ReadTransaction], _T]) -> _T:
        """Run ``work(tx)`` on the committed state of one moment and return its result.

        Never waits for a transaction that writes. The same rules for ``work``, and the same errors,
        as :meth:`transact`.
        """

    @abstractmethod
    async def foreign_version(self) -> str:
        """Return a text that is another one after each commit of another storage on the same data.

        Commits of this storage do not change it. Compare it with the one before: equal means that
        no other host has written in between.
        """

    async def prune(self, span: Span[Any]) -> int:
        """Delete the rows of a span, batch by batch, and return how many these were.

        Each batch is a transaction of its own, so that nobody waits for long, and rows that were
        deleted stay so if a later batch fails.

        Example::

            await storage.prune(SESSIONS.span(by="expiry", stop=time.time()))
        """
        total = 0
        while True:
            count = await self.transact(lambda tx: tx.delete_span(span, limit=PRUNE_BATCH))
            total += count
            if count < PRUNE_BATCH:
                return total
            await asyncio.sleep(0)  # others' turn, also where a transaction never waits

    def on_commit(self, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` called with the changes of each commit of this storage, until the
        returned function is called.

        It is called on the event loop, before the caller of :meth:`transact` gets its result, and
        in the order of the commits (on PostgreSQL, transactions that ran at the same time may be
        told in either order: read the row, don't count the changes).
        """
        self._listeners.append(listener)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    def _tell(self, changes: Sequence[Change]) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(changes)
            except Exception:
                # What is committed is committed, whatever the listener thinks of it.
                _log.exception("a listener of the storage's commits failed")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def not_open(forked: bool) -> StorageUnavailable:
    """Return the error for a storage that can't be used here and now."""
    if forked:
        return StorageUnavailable(
            "this process was forked after the storage was opened, and its connections stay with "
            "the parent; open another storage here",
            retryable=False,
        )
    return StorageUnavailable(
        "the storage is not open; use it, or the platform or client that it belongs to, inside its "
        "`async with` block, or between start and aclose",
        retryable=False,
    )


def unknown_table(table: object) -> ConfigurationError:
    """Return the error for a table that the storage was not opened with."""
    return ConfigurationError(
        f"this storage has no {table!r}; pass it to open_storage with the other tables"
    )


def ended_transaction() -> ConfigurationError:
    """Return the error for a transaction object that was kept."""
    return ConfigurationError(
        "the transaction is over; use what `work` is given only while it runs"
    )


def refuse_coroutine(result: object) -> None:
    """Refuse the result of a ``work`` that is no plain function."""
    if isinstance(result, CoroutineType):
        result.close()
        raise ConfigurationError(
            "the work of a transaction has to be a plain function, not an async one: it may be run "
            "again, and must not wait for anything else"
        )
