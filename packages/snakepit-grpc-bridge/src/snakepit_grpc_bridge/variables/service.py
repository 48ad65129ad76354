"""The variables of all sessions, for the host."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar, Unpack

from snakepit.options import whole_number
from snakepit_grpc_bridge.errors import BridgeError, SessionNotFound
from snakepit_grpc_bridge.metadata import read_metadata
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION
from snakepit_grpc_bridge.sessions.gate import Gate
from snakepit_grpc_bridge.settings import time_to_live
from snakepit_grpc_bridge.storage import ReadTransaction
from snakepit_grpc_bridge.telemetry import operation
from snakepit_grpc_bridge.variables.access import VariableAccess, earlier, listed, visible
from snakepit_grpc_bridge.variables.explaining import Explanation, explain
from snakepit_grpc_bridge.variables.rows import (
    HistoryRow,
    Variable,
    VariableOptions,
    VariableRow,
    VariableVersion,
)
from snakepit_grpc_bridge.variables.transactions import VariableTransaction
from snakepit_grpc_bridge.variables.typed import field_names, fields_of, from_fields
from snakepit_grpc_bridge.variables.types import TypeRegistry
from snakepit_grpc_bridge.variables.watching import ChangeCallback, Watch
from snakepit_grpc_bridge.variables.writing import (
    ANY_VERSION,
    HISTORY_LIMIT,
    Options,
    Writing,
    find,
)

__all__ = ["VariableService"]

_T = TypeVar("_T")
_MISSING: Final[Any] = object()


class VariableService:
    """Creates, reads, writes and watches variables. One for each platform; use it on its loop.

    Reading in a session finds its own variable first, then the global one of that name. Writing
    touches the session's own alone. Wherever a method takes a variable's name it takes its id as
    well (but :meth:`create`): that means this very variable, and never a later one of its name;
    VariableNotFound is raised when it is gone, also by :meth:`put`.

    Every method raises SessionNotFound or SessionExpired for a session that is not open, and the
    errors of the storage.

    Every write checks the value against the type and the constraints of the variable. What is
    returned is a copy, or can't be changed (arrays are read-only views).
    """

    def __init__(self, access: VariableAccess) -> None:
        self._access = access
        self._values = access.values

    @property
    def types(self) -> TypeRegistry:
        """The types of variables; ``types.register_type`` adds one."""
        return self._values.types

    # --- creating --------------------------------------------------------------------------------

    @operation("variables")
    async def create(
        self,
        session_id: str,
        name: str,
        type: str,  # noqa: A002 - the word users know it by
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        read_only: bool = False,
        ttl: float | timedelta | None = None,
        overwrite: bool = False,
    ) -> Variable:
        """Declare a variable and return it.

        Args:
            type: one of ``types.supported()``.
            constraints: what its values must keep, by the names of its type.
            metadata: plain data of the caller's, kept with it.
            read_only: it can't be written, only deleted.
            ttl: seconds after its last write when it is gone; None for never.
            overwrite: replace one of that name, with its type and constraints.

        Raises:
            VariableExists: the session has one of that name, and ``overwrite`` is False.
            UnsupportedType: there is no such type.
            ValidationFailed: the name, the value or a constraint is wrong.
            QuotaExceeded: the session holds as much as it may.

        Example::

            await platform.variables.create(
                session.id, "temperature", "float", 0.2, constraints={"min": 0.0, "max": 2.0}
            )
        """
        options = Options(
            constraints=constraints or {},
            metadata=read_metadata(metadata),
            read_only=read_only,
            ttl=None if ttl is None else time_to_live("ttl", ttl),
        )
        row = await self._access.write(
            session_id,
            lambda writing: writing.create(name, type, value, options, overwrite=overwrite),
        )
        return self._values.variable(row)

    async def create_tensor(
        self, session_id: str, name: str, value: Any, **options: Unpack[VariableOptions]
    ) -> Variable:
        """As :meth:`create` with the type "tensor": an array, or what shares its memory."""
        return await self.create(session_id, name, "tensor", value, **options)

    async def create_embedding(
        self, session_id: str, name: str, value: Any, **options: Unpack[VariableOptions]
    ) -> Variable:
        """As :meth:`create` with the type "embedding": a vector of finite numbers."""
        return await self.create(session_id, name, "embedding", value, **options)

    async def create_model(
        self, session_id: str, name: str, value: Any, **options: Unpack[VariableOptions]
    ) -> Variable:
        """As :meth:`create` with the type "model": a ModelHandle, which says where one is."""
        return await self.create(session_id, name, "model", value, **options)

    async def create_dataset(
        self, session_id: str, name: str, value: Any, **options: Unpack[VariableOptions]
    ) -> Variable:
        """As :meth:`create` with the type "dataset": a DatasetHandle, which says where one is."""
        return await self.create(session_id, name, "dataset", value, **options)

    # --- reading ---------------------------------------------------------------------------------

    @operation("variables")
    async def get(self, session_id: str, name: str, default: Any = _MISSING) -> Any:
        """Return a variable's value; if there is none, the default when one is given.

        Raises:
            VariableNotFound: there is none, and no default; names similar ones.
        """
        row = await self._access.read(session_id, lambda tx, gate: visible(tx, gate, name))
        if row is not None:
            return self._values.value_of(row)
        if default is not _MISSING:
            return default
        raise await self._access.missing(session_id, name)

    @operation("variables")
    async def get_variable(self, session_id: str, name: str) -> Variable:
        """Return the whole record of a variable.

        Raises:
            VariableNotFound: there is none.
        """
        row = await self._access.read(session_id, lambda tx, gate: visible(tx, gate, name))
        if row is None:
            raise await self._access.missing(session_id, name)
        return self._values.variable(row)

    @operation("variables")
    async def get_many(
        self, session_id: str, names: Iterable[str], default: Any = _MISSING
    ) -> dict[str, Any]:
        """Return the values of several variables as they were at one moment, by name.

        Those that don't exist are left out, or have the default when one is given.
        """
        wanted = list(dict.fromkeys(names))
        rows = await self._access.read(
            session_id, lambda tx, gate: {name: visible(tx, gate, name) for name in wanted}
        )
        found = {name: self._values.value_of(row) for name, row in rows.items() if row is not None}
        if default is _MISSING:
            return found
        return {name: found.get(name, default) for name in wanted}

    @operation("variables")
    async def exists(self, session_id: str, name: str) -> bool:
        """Say whether reading the variable in the session would find one."""
        row = await self._access.read(session_id, lambda tx, gate: visible(tx, gate, name))
        return row is not None

    @operation("variables")
    async def explain(
        self, session_id: str, name: str, *, call: Mapping[str, Any] | None = None
    ) -> Explanation:
        """Say where the value of a name comes from, and what it hides.

        ``call``: the options of the call in question, which come before the variables.
        """

        def work(tx: ReadTransaction, gate: Gate) -> dict[str, VariableRow | None]:
            own = find(tx, session_id, name, gate.now) if session_id != GLOBAL_SESSION else None
            return {"session": own, "global": find(tx, GLOBAL_SESSION, name, gate.now)}

        rows = await self._access.read(session_id, work)
        found: dict[Any, Any] = {
            scope: self._values.value_of(row) for scope, row in rows.items() if row is not None
        }
        if call is not None and name in call:
            found["call"] = call[name]
        return explain(name, found)

    @operation("variables")
    async def history(
        self, session_id: str, name: str, *, limit: int = HISTORY_LIMIT
    ) -> Sequence[VariableVersion]:
        """Return the earlier states of the session's own variable, the newest first.

        The last 100 are kept, over its deletion for 30 days; values of more than 64 KiB are not.
        With an id, only those of that variable, as long as it is there.

        Raises:
            VariableNotFound: there is no variable of that id.
        """
        whole_number("limit", limit)

        def work(tx: ReadTransaction, gate: Gate) -> Sequence[HistoryRow]:
            return earlier(tx, gate, name, limit)

        return [self._values.version(row) for row in await self._access.read(session_id, work)]

    async def read_as(self, session_id: str, model: type[_T]) -> _T:
        """Return an instance of a dataclass or pydantic model whose fields are variables.

        Raises:
            ValidationFailed: a field without default has no variable, or the class refuses a value.

        Example::

            @dataclass
            class Search:
                query: str = ""
                limit: int = 10

            search = await platform.variables.read_as(session.id, Search)
        """
        names = field_names(model)
        return from_fields(model, await self.get_many(session_id, names))

    @operation("variables")
    async def list(
        self,
        session_id: str,
        *,
        include_global: bool = False,
        type: str | None = None,  # noqa: A002 - the word users know it by
        pattern: str = "*",
    ) -> Sequence[Variable]:
        """Return the session's own variables by name; with ``include_global`` all it can read.

        Args:
            type: only those of this type.
            pattern: only those whose names match, as in ``"ml_*"``.
        """

        work = partial(listed, pattern=pattern, include_global=include_global, type_name=type)
        return [self._values.variable(row) for row in await self._access.read(session_id, work)]

    # --- writing ---------------------------------------------------------------------------------

    @operation("variables")
    async def set(
        self,
        session_id: str,
        name: str,
        value: Any,
        *,
        expected_version: int | None = ANY_VERSION,
        metadata: Mapping[str, Any] | None = None,
    ) -> Variable:
        """Write a variable that the session has itself, and return it.

        Args:
            expected_version: write only if it is in this version (compare-and-set).
            metadata: merged into the variable's.

        Raises:
            VariableNotFound: it has none of that name (a global one does not count).
            VariableConflict: it is in another version.
            ReadOnlyVariable: it can't be written.
            ValidationFailed: the value does not fit the variable's type or constraints.
            QuotaExceeded: the session holds as much as it may.
        """
        more = read_metadata(metadata)
        row = await self._access.write(
            session_id,
            lambda writing: writing.write(
                writing.require(name), value, expected=expected_version, metadata=more
            ),
        )
        return self._values.variable(row)

    @operation("variables")
    async def put(
        self,
        session_id: str,
        name: str,
        value: Any,
        *,
        expected_version: int | None = ANY_VERSION,
        by: str | None = None,
    ) -> Variable:
        """Write a variable, creating it with the type of the value if the session has none.

        Args:
            expected_version: write only if it is in this version; None: only if there is none.
            by: who writes, for the record.

        Raises: as :meth:`set`, but not VariableNotFound, and:
            UnsupportedType: it is new, and no type fits the value.
        """
        row = await self._access.write(
            session_id, lambda writing: writing.put(name, value, expected_version), by
        )
        return self._values.variable(row)

    @operation("variables")
    async def update(
        self,
        session_id: str,
        name: str,
        function: Callable[[Any], Any],
        default: Any = _MISSING,
    ) -> Variable:
        """Replace the value of the session's own variable by ``function`` of it, atomically.

        ``function`` is plain and quick and has no effects of its own: it may be called again, and
        in another thread. With a ``default``, one that is not there is created, with ``function``
        of a copy of that.

        Example::

            await platform.variables.update(session.id, "visits", lambda visits: visits + 1)

        Raises: as :meth:`set`, and what ``function`` raises.
        """

        def work(writing: Writing) -> VariableRow:
            if default is not _MISSING and writing.find(name) is None:
                return writing.put(name, function(copy.deepcopy(default)))
            row = writing.require(name)
            return writing.write(row, function(self._values.value_of(row)))

        return self._values.variable(await self._access.write(session_id, work))

    @operation("variables")
    async def update_many(
        self, session_id: str, values: Mapping[str, Any], *, atomic: bool = True
    ) -> dict[str, Variable | BridgeError]:
        """Write several variables as :meth:`put` does, and return them by name.

        With ``atomic`` all are written or none: the first error is raised. Without, each is written
        by itself, and an error takes the place of its variable.
        """
        if atomic:
            rows = await self._access.write(
                session_id,
                lambda writing: {name: writing.put(name, value) for name, value in values.items()},
            )
            return {name: self._values.variable(row) for name, row in rows.items()}
        written: dict[str, Variable | BridgeError] = {}
        for name, value in values.items():
            try:
                written[name] = await self.put(session_id, name, value)
            except SessionNotFound:
                raise
            except BridgeError as error:
                written[name] = error
        return written

    async def write_from(self, session_id: str, instance: object) -> None:
        """Write the fields of a dataclass or pydantic model as variables, all or none of them."""
        await self.update_many(session_id, fields_of(instance))

    @operation("variables")
    async def delete(
        self, session_id: str, name: str, *, expected_version: int | None = ANY_VERSION
    ) -> bool:
        """Delete a variable of the session itself; say whether there was one.

        Raises:
            VariableConflict: it is not in the expected version.
        """
        return await self._access.write(
            session_id, lambda writing: writing.delete(name, expected_version)
        )

    @operation("variables")
    async def rollback(self, session_id: str, name: str, version: int) -> Variable:
        """Write the session's own variable with the value that it had in an earlier version.

        Raises:
            VariableNotFound: there is no such variable now.
            ValidationFailed: that version is not known any more, or its value was not kept.
        """
        row = await self._access.write(session_id, lambda writing: writing.roll_back(name, version))
        return self._values.variable(row)

    def transaction(self, session_id: str) -> VariableTransaction:
        """Several reads and writes that take effect together, for an ``async with`` block."""
        return VariableTransaction(self, session_id)

    # --- watching --------------------------------------------------------------------------------

    @operation("variables")
    async def watch(
        self,
        session_id: str,
        *names: str,
        initial: bool = True,
        callback: ChangeCallback | None = None,
    ) -> Watch:
        """Watch variables of the session itself; without names all of them.

        The watch is in place before anything is told, so that no change is missed. A write that
        does not change the value is not told. Changes by other hosts are seen within half a second,
        with what the watcher knew as the old value.

        Args:
            initial: what there is already is told first.
            callback: is called with each change on the platform's loop, one after another, until
                the watch is closed or the session ends; a coroutine function is awaited. What it
                raises is logged. Without one, iterate over the watch.

        Example::

            async with await platform.variables.watch(session.id, "temperature") as watch:
                async for change in watch:
                    print(change.kind, change.value)
        """
        watch = await self._access.watch(session_id, names or None, initial=initial)
        if callback is not None:
            self._access.call_back(watch, callback)
        return watch

    # --- for transactions and the platform -------------------------------------------------------

    async def own(self, session_id: str, name: str) -> Variable | None:
        """The session's own variable."""
        row = await self._access.read(
            session_id, lambda tx, gate: find(tx, session_id, name, gate.now)
        )
        return None if row is None else self._values.variable(row)

    @operation("variables")
    async def commit(
        self,
        session_id: str,
        versions: Mapping[str, int | None],
        written: Mapping[str, Any],
        deleted: Iterable[str],
    ) -> None:
        """Write and delete, if the variables read are still in those versions.

        Raises:
            VariableConflict: one is not.
            VariableNotFound: one that is to be written is named by its id, and gone.
        """

        def work(writing: Writing) -> None:
            for name, version in versions.items():
                writing.require_version(name, version)
            for name, value in written.items():
                writing.put(name, value)
            for name in deleted:
                writing.delete(name)

        await self._access.write(session_id, work)
