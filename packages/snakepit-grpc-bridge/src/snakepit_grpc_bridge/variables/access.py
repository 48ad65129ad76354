"""Reading and writing the variables of sessions in transactions, and telling who watches."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from operator import methodcaller
from typing import Any, Final, TypeVar

from snakepit.errors import ConfigurationError, DecodeError
from snakepit_grpc_bridge.cancelling import UnbrokenWork
from snakepit_grpc_bridge.errors import (
    BridgeError,
    NotAllowed,
    OutcomeUnknown,
    SessionNotFound,
    VariableNotFound,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.sessions.gate import Gate
from snakepit_grpc_bridge.sessions.rows import UseRow
from snakepit_grpc_bridge.storage import ReadTransaction, Storage, Transaction
from snakepit_grpc_bridge.variables.call_view import Found, State, look_up, state_of, view
from snakepit_grpc_bridge.variables.comparing import is_same
from snakepit_grpc_bridge.variables.names import check_identifier, is_id, name_of
from snakepit_grpc_bridge.variables.rows import (
    HISTORY,
    VARIABLES,
    HistoryRow,
    VariableChange,
    VariableRow,
    source_of,
)
from snakepit_grpc_bridge.variables.values import Values, moment
from snakepit_grpc_bridge.variables.watching import ChangeCallback, Watch, Watchers, call_back
from snakepit_grpc_bridge.variables.writing import (
    Change,
    Writing,
    find,
    forget_deleted,
    not_found,
)

__all__ = ["VariableAccess", "earlier", "listed", "visible"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Left = tuple[bool, VariableRow | None, State]
#: Seconds between two looks at what other hosts have written, while somebody watches.
_LOOK: Final = 0.5
#: Variables that are deleted at a sweep because their time is over.
_BATCH: Final = 1000


class VariableAccess:
    """The shell around the transactions on variables. For one event loop."""

    def __init__(self, storage: Storage, sessions: SessionService, values: Values) -> None:
        self.values = values
        self._storage = storage
        self._sessions = sessions
        self._watchers = Watchers()
        self._callbacks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        # What others had written when it was last looked at; None to look in any case.
        self._seen: str | None = None
        self._unbroken = UnbrokenWork()
        sessions.on_end(_delete_all)
        sessions.on_close(self._session_closed)
        sessions.on_sweep(self._delete_expired)
        sessions.on_sweep(self._forget_deleted)

    async def read(self, session_id: str, work: Callable[[ReadTransaction, Gate], _T]) -> _T:
        """Read in an open session; that is a use of it."""
        gate = self._sessions.gate(session_id)

        def transaction(tx: ReadTransaction) -> tuple[UseRow, _T]:
            return gate.enter(tx), work(tx, gate)

        use, result = await self._storage.read(transaction)
        self._sessions.note_use(use)
        return result

    async def write(
        self, session_id: str, work: Callable[[Writing], _T], by: str | None = None
    ) -> _T:
        """Write in an open session, all of it or nothing; then tell those who watch."""
        gate = self._sessions.gate(session_id, writes=True)

        def transaction(tx: Transaction) -> tuple[_T, list[Change]]:
            writing = Writing(tx, gate, self.values, by)
            result = work(writing)
            writing.finish()
            return result, writing.changes

        return await self._commit(transaction)

    async def _commit(self, transaction: Callable[[Transaction], tuple[_T, list[Change]]]) -> _T:
        """Write, then tell those who watch."""
        if not self._watchers:
            result, changes = await self._storage.transact(transaction)
            _log_created(changes)
            return result
        # What was written is told, also if the writer has been cancelled meanwhile.
        return await self._unbroken.run(self._commit_and_tell(transaction))

    async def _commit_and_tell(
        self, transaction: Callable[[Transaction], tuple[_T, list[Change]]]
    ) -> _T:
        try:
            result, changes = await self._storage.transact(transaction)
        except OutcomeUnknown:
            self._seen = None  # if it has landed, it is found there
            raise
        _log_created(changes)
        self._tell(changes)
        return result

    async def find_for_worker(self, session_id: str, name: str) -> Found:
        """A variable for a worker that serves a call of the session."""
        gate = self._sessions.gate(session_id)
        row, state, use = await self._storage.read(lambda tx: look_up(tx, gate, name))
        self._sessions.note_use(use)
        return self._found(session_id, row, state)

    async def view_for_call(
        self, session_id: str, names: Iterable[str], prefix: str
    ) -> tuple[State, dict[str, Any], dict[str, Any]]:
        """The state of a session for a call of it, and the values of certain variables of its own
        and of the global ones, by name.
        """
        seen = await self.read(session_id, lambda tx, gate: view(tx, gate, names, prefix))
        own, shared = ({row.name: self.values.value_of(row) for row in rows} for rows in seen[1:])
        return seen.state, own, shared

    async def put_from_worker(
        self, session_id: str, name: str, value: Any, expected: int | None, by: str
    ) -> Found:
        """Write for a worker, as :meth:`Writing.put` does; what the variable is then.

        Raises:
            NotAllowed: it is a secret.
        """
        gate = self._sessions.gate(session_id, writes=True)

        def transaction(tx: Transaction) -> tuple[tuple[VariableRow, State], list[Change]]:
            writing = Writing(tx, gate, self.values, by)
            row = writing.put(name, value, expected)
            self._refuse_private(row)
            writing.finish()
            return (row, state_of(tx, gate.enter(tx))), writing.changes

        row, state = await self._commit(transaction)
        return self._found(session_id, row, state)

    async def delete_from_worker(self, session_id: str, name: str, by: str) -> tuple[bool, Found]:
        """Delete for a worker; whether there was one, and what reading the name finds then.

        Raises:
            NotAllowed: it is a secret.
        """
        gate = self._sessions.gate(session_id, writes=True)

        def transaction(tx: Transaction) -> tuple[_Left, list[Change]]:
            writing = Writing(tx, gate, self.values, by)
            before = writing.find(name)
            if before is not None:
                self._refuse_private(before)
            writing.delete(name)
            writing.finish()
            row, state, _ = look_up(tx, gate, name_of(name))
            return (before is not None, row, state), writing.changes

        deleted, row, state = await self._commit(transaction)
        return deleted, self._found(session_id, row, state)

    def _found(self, session_id: str, row: VariableRow | None, state: State) -> Found:
        if row is None:
            return Found(None, None, None, True, state)
        version = row.version if row.session_id == session_id else None
        if self._is_private(row):
            secret = self.values.value_of(row)
            plain = None if secret is None else secret.reveal()
            # Whatever its type is called, which a worker would not know.
            return Found("secret", plain, version, False, state)
        self.values.check_stored(row)
        return Found(row.type, row.value, version, row.expires is None, state)

    def _refuse_private(self, row: VariableRow) -> None:
        if self._is_private(row):
            raise NotAllowed(
                f"the secret {row.name!r} is written by the host only; register a tool that does it"
            )

    def _is_private(self, row: VariableRow) -> bool:
        return self.values.types.stored(row.type).type.private

    async def missing(self, session_id: str, identifier: str) -> VariableNotFound:
        """The error for a variable that reading did not find."""
        check_identifier(identifier)
        return await self.read(
            session_id, lambda tx, _: not_found(tx, identifier, session_id, GLOBAL_SESSION)
        )

    async def _delete_expired(self) -> None:
        """Delete the variables whose time is over; until then nobody sees them either."""
        stop = math.nextafter(self._sessions.now(), math.inf)
        span = VARIABLES.span(by="expiry", stop=stop)
        for row in await self._storage.read(lambda tx: tx.scan(span, limit=_BATCH)):
            delete = methodcaller("delete_expired", row.name)
            with contextlib.suppress(SessionNotFound):  # it went with its session
                await self.write(row.session_id, delete)

    async def _forget_deleted(self) -> None:
        """Forget the history of variables that were deleted long ago."""
        forget = partial(forget_deleted, now=self._sessions.now())
        count = await self._storage.transact(forget)
        while count:
            await asyncio.sleep(0)  # others' turn, also where a transaction never waits
            count = await self._storage.transact(forget)

    async def aclose(self) -> None:
        """End all watches; a callback that runs is cancelled. Idempotent."""
        self._watchers.end_all()
        looking, self._looking = self._looking, None
        tasks = {*self._callbacks, *([] if looking is None else [looking])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._unbroken.aclose()

    # --- watching --------------------------------------------------------------------------------

    async def watch(
        self, session_id: str, identifiers: Iterable[str] | None, *, initial: bool
    ) -> Watch:
        """Begin to watch, then tell of what there is: so no change falls in between."""
        watch = self._watchers.add(session_id, identifiers)
        try:
            rows = await self._watched_rows(watch)
        except BaseException:
            watch.close()
            raise
        for row in rows:
            if initial:
                watch.push(self._initial(row))
            else:
                watch.note(self._initial(row))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_others())
        return watch

    def call_back(self, watch: Watch, callback: ChangeCallback) -> None:
        """Tell a callback of the changes, one after another, until the watch ends."""
        task = asyncio.create_task(call_back(watch, callback))
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

    def _initial(self, row: VariableRow) -> VariableChange:
        value = self.values.value_of(row)
        return VariableChange(
            session_id=row.session_id,
            id=row.id,
            name=row.name,
            type=row.type,
            kind="initial",
            value=value,
            old_value=None,
            version=row.version,
            updated_at=moment(row.updated_at),
            updated_by=row.updated_by,
            source=source_of(row),
        )

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            before, after = change.before, change.after
            row = after or before
            if row is None or not self._watchers.of(row.session_id):
                continue
            if before is not None and after is not None and self._is_same(before, after):
                continue  # nothing that a watcher could see
            self._watchers.publish(self._change(change, row))

    def _is_same(self, before: VariableRow, after: VariableRow) -> bool:
        if _is_new(before, after):
            return False
        if self._is_private(before) and self._is_private(after):
            # The same secret is sealed in other bytes each time.
            return is_same(self._old_value(before), self.values.value_of(after))
        return is_same(before.value, after.value)

    def _old_value(self, row: VariableRow) -> Any:
        """What was overwritten; None if its key is gone: that the write has landed is told all the
        same.
        """
        with contextlib.suppress(DecodeError, ConfigurationError):
            return self.values.value_of(row)
        return None

    def _change(self, change: Change, row: VariableRow) -> VariableChange:
        before, after, written = change
        return VariableChange(
            session_id=row.session_id,
            id=row.id,
            name=row.name,
            type=row.type,
            kind="created" if before is None else "deleted" if after is None else "updated",
            value=None if after is None else self.values.value_of(after),
            old_value=None if before is None else self._old_value(before),
            version=written.version,
            updated_at=moment(written.updated_at),
            updated_by=written.updated_by,
            source=source_of(written),
        )

    async def _look_for_others(self) -> None:
        """Tell of what other hosts have written."""
        while self._watchers:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(BridgeError):  # to be tried again
                version = await self._storage.foreign_version()
                if version != self._seen:
                    self._seen = version
                    await self._look_at_all()
        self._looking = None

    async def _look_at_all(self) -> None:
        try:
            for session_id in self._watchers.sessions():
                await self._look_at(session_id)
        except BridgeError:
            self._seen = None
            raise

    async def _look_at(self, session_id: str) -> None:
        for watch in self._watchers.of(session_id):
            try:
                rows = await self._watched_rows(watch)
                watch.catch_up(map(self._initial, rows), moment(self._sessions.now()))
            except SessionNotFound:
                self._watchers.end(session_id)
                return
            except DecodeError as error:  # for ever: the others must not wait for it
                _log.warning("a watch of session %r sees nothing new: %s", session_id, error)

    async def _watched_rows(self, watch: Watch) -> list[VariableRow]:
        # No use of the session: or being watched would keep it alive whenever others write.
        gate = self._sessions.gate(watch.session_id)

        def work(tx: ReadTransaction) -> list[VariableRow]:
            gate.enter(tx)
            return _watched(tx, gate, watch)

        return await self._storage.read(work)

    async def _session_closed(self, session_id: str) -> None:
        self._watchers.end(session_id)


def visible(tx: ReadTransaction, gate: Gate, identifier: str) -> VariableRow | None:
    """What reading a name or an id in a session finds: its own variable, else the global one."""
    own = find(tx, gate.session_id, identifier, gate.now)
    if own is not None or gate.session_id == GLOBAL_SESSION:
        return own
    return find(tx, GLOBAL_SESSION, identifier, gate.now)


def listed(
    tx: ReadTransaction,
    gate: Gate,
    *,
    pattern: str,
    include_global: bool,
    type_name: str | None = None,
) -> list[VariableRow]:
    """The variables of a session by name, of a type and with names that match a pattern; with
    ``include_global`` all that it can read.
    """
    scopes = (GLOBAL_SESSION, gate.session_id) if include_global else (gate.session_id,)
    rows = (row for scope in scopes for row in tx.scan(VARIABLES.span(scope)))
    found = {row.name: row for row in rows if row.expires is None or row.expires > gate.now}
    return [
        found[name]
        for name in sorted(found)
        if fnmatch.fnmatchcase(name, pattern) and type_name in (None, found[name].type)
    ]


def earlier(tx: ReadTransaction, gate: Gate, identifier: str, limit: int) -> list[HistoryRow]:
    """What the session's own variables of that name were before, or the one with that id, the
    newest first.
    """
    session_id = gate.session_id
    if not is_id(identifier):
        return tx.scan(HISTORY.span(session_id, identifier), limit=limit, reverse=True)
    row = find(tx, session_id, identifier, gate.now)
    if row is None:
        raise not_found(tx, identifier, session_id)
    span = HISTORY.span(session_id, row.name, start=row.born)
    return tx.scan(span, limit=limit, reverse=True)


def _log_created(changes: Iterable[Change]) -> None:
    if not _log.isEnabledFor(logging.DEBUG):
        return
    for before, after, _ in changes:
        if after is not None and _is_new(before, after):
            _log.debug(
                "variable %r of type %r created in session %r",
                *(after.name, after.type, after.session_id),
            )


def _is_new(before: VariableRow | None, after: VariableRow) -> bool:
    """Whether a variable was created, perhaps over the one before."""
    return before is None or before.born != after.born


def _watched(tx: ReadTransaction, gate: Gate, watch: Watch) -> list[VariableRow]:
    wanted = watch.identifiers
    if wanted is None:
        rows = tx.scan(VARIABLES.span(gate.session_id))
        return [row for row in rows if row.expires is None or row.expires > gate.now]
    found = (find(tx, gate.session_id, each, gate.now) for each in sorted(wanted))
    return [row for row in found if row is not None]


def _delete_all(tx: Transaction, session_id: str) -> None:
    tx.delete_span(VARIABLES.span(session_id))
    tx.delete_span(HISTORY.span(session_id))
