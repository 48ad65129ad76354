"""Which tools there are, and which a session may call."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from snakepit_grpc_bridge.cancelling import UnbrokenWork
from snakepit_grpc_bridge.errors import DuplicateTool, NotAllowed, QuotaExceeded, ToolNotFound
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.sessions.gate import Gate, Taken
from snakepit_grpc_bridge.sessions.rows import UseRow
from snakepit_grpc_bridge.storage import ReadTransaction, Storage, Transaction
from snakepit_grpc_bridge.tools.meanings import Meanings
from snakepit_grpc_bridge.tools.records import TOOLS, Tool, ToolRow
from snakepit_grpc_bridge.tools.schema import Schema, check_tool_name
from snakepit_grpc_bridge.variables.values import moment

__all__ = ["Options", "ToolRegistry"]

#: Tools by path that are kept as they were read.
_MOST_READ: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a tool is registered with; see :class:`Tool`."""

    timeout: float | None = None
    concurrency: int | None = None
    idempotent: bool = False
    allow: tuple[str, ...] = ("*",)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _Stored(NamedTuple):
    own: list[ToolRow]
    shared: list[ToolRow]


class ToolRegistry:
    """The tools of all sessions: functions of this process, which end with it, and tools by path,
    which are stored. For one event loop.
    """

    def __init__(self, storage: Storage, sessions: SessionService) -> None:
        self._storage = storage
        self._sessions = sessions
        self._functions: dict[str, dict[str, Tool]] = {}
        self._read: dict[tuple[str, str], tuple[ToolRow, Tool]] = {}
        self._meanings = Meanings()
        # One registration at a time, until the function is where the next one looks.
        self._registering = asyncio.Lock()
        self._unbroken = UnbrokenWork()
        sessions.on_end(_delete_all)
        sessions.on_close(self._session_closed)

    async def add(self, tool: Tool, *, replace: bool) -> None:
        """Register a tool.

        Raises:
            DuplicateTool: the session has a tool of that name, and it is not to be replaced.
            QuotaExceeded: the session has as many as it may have.
        """
        await self._unbroken.run(self._add(tool, replace))

    async def aclose(self) -> None:
        """Wait for registrations under way. Idempotent."""
        await self._unbroken.aclose()

    async def _add(self, tool: Tool, replace: bool) -> None:
        async with self._registering:
            await self._add_alone(tool, replace)

    async def _add_alone(self, tool: Tool, replace: bool) -> None:
        session_id, name = tool.session_id, tool.name
        functions = self._functions.get(session_id, {})
        gate = self._sessions.gate(session_id, writes=True)

        def work(tx: Transaction) -> str:
            use = gate.enter(tx)
            stored = tx.get(TOOLS, session_id, name)
            if (name in functions or stored is not None) and not replace:
                raise _duplicate(name, session_id)
            if stored is not None:
                tx.delete(TOOLS, session_id, name)
            self._require_room(tx, gate, {*functions, name})
            if tool.kind == "worker":
                tx.put(TOOLS, _row_of(tool))
            difference = (tool.kind == "worker") - (stored is not None)
            gate.change(tx, use, Taken(tools=difference))
            return use.incarnation

        await self._sessions.hold(session_id, await self._storage.transact(work))
        self._functions.get(session_id, {}).pop(name, None)
        if tool.kind == "host":
            self._functions.setdefault(session_id, {})[name] = tool
        self._meanings.forget(session_id)

    def _require_room(self, tx: ReadTransaction, gate: Gate, functions: set[str]) -> None:
        rows = tx.scan(TOOLS.span(gate.session_id))
        count = len(functions | {row.name for row in rows})
        limit = gate.record(tx).limits().tools
        if count > limit:
            raise QuotaExceeded.of(gate.session_id, "tools", wanted=count, limit=limit)

    async def remove(self, name: str, session_id: str) -> bool:
        """Remove a tool of the session itself; whether there was one."""
        gate = self._sessions.gate(session_id, writes=True)

        def work(tx: Transaction) -> bool:
            use = gate.enter(tx)
            was_stored = tx.delete(TOOLS, session_id, name)
            if was_stored or name in self._functions.get(session_id, {}):
                gate.change(tx, use, Taken(tools=-was_stored))
            return was_stored

        was_stored = await self._storage.transact(work)
        function = self._functions.get(session_id, {}).pop(name, None)
        self._meanings.forget(session_id)
        return was_stored or function is not None

    async def visible(self, session_id: str) -> dict[str, Tool]:
        """The tools that a session may call, by name; its own come before global ones."""
        tools = await self._all(session_id)
        return {name: tool for name, tool in tools.items() if tool.allows(session_id)}

    def known(self, name: str, session_id: str) -> Tool | None:
        """What :meth:`find` would return, if that is known without looking; else None."""
        if self._storage.is_shared:
            return None
        incarnation = self._sessions.serving(session_id)
        return None if incarnation is None else self._meanings.get(session_id, incarnation, name)

    async def find(self, name: str, session_id: str) -> Tool:
        """The tool that a session means by a name.

        Raises:
            ValidationFailed: no tool can have that name.
            ToolNotFound: there is none; lists those it can call.
            NotAllowed: it may not call it.
        """
        check_tool_name(name)
        before = self._meanings.changes
        shared = self._functions.get(GLOBAL_SESSION, {}).get(name)
        gate = self._sessions.gate(session_id)
        use, row = await self._storage.read(lambda tx: _look_up(tx, gate, name, shared is None))
        self._sessions.note_use(use)
        tool = shared if row is None else self._shown(row)
        if session_id in self._functions:  # perhaps of a session that another host has ended
            await self._sessions.hold(session_id, use.incarnation)
            tool = self._functions.get(session_id, {}).get(name, tool)
        if tool is None:
            raise ToolNotFound.of(name, session_id, await self.visible(session_id))
        if not tool.allows(session_id):
            raise _refusal(tool, session_id)
        self._meanings.keep(session_id, use.incarnation, tool, since=before)
        return tool

    def _shown(self, row: ToolRow) -> Tool:
        """The tool that a row describes. It is kept, since reading a schema takes a while."""
        key = row.session_id, row.name
        kept = self._read.get(key)
        if kept is None or kept[0] != row:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            kept = self._read[key] = row, _tool_of(row)
        return kept[1]

    async def _all(self, session_id: str) -> dict[str, Tool]:
        gate = self._sessions.gate(session_id)

        def work(tx: ReadTransaction) -> tuple[UseRow, _Stored]:
            use = gate.enter(tx)
            own = tx.scan(TOOLS.span(session_id))
            return use, _Stored(own, tx.scan(TOOLS.span(GLOBAL_SESSION)))

        use, stored = await self._storage.read(work)
        self._sessions.note_use(use)
        if session_id in self._functions:  # perhaps of a session that another host has ended
            await self._sessions.hold(session_id, use.incarnation)
        shared = {row.name: self._shown(row) for row in stored.shared}
        own = {row.name: self._shown(row) for row in stored.own}
        return (
            shared
            | self._functions.get(GLOBAL_SESSION, {})
            | own
            | self._functions.get(session_id, {})
        )

    async def _session_closed(self, session_id: str) -> None:
        self._functions.pop(session_id, None)
        self._meanings.forget(session_id)


def _duplicate(name: str, session_id: str) -> DuplicateTool:
    return DuplicateTool(
        f"there is a tool {name!r} in session {session_id!r} already; pass replace=True to "
        "replace it",
        details={"name": name, "session_id": session_id},
    )


def _look_up(
    tx: ReadTransaction, gate: Gate, name: str, is_shared_wanted: bool
) -> tuple[UseRow, ToolRow | None]:
    """The use of a session, and the stored tool that it means by a name: a call reads no others."""
    use = gate.enter(tx)
    # Most sessions have no tools that are stored.
    row = tx.get(TOOLS, gate.session_id, name) if use.tools else None
    if row is None and is_shared_wanted:
        row = tx.get(TOOLS, GLOBAL_SESSION, name)
    return use, row


def _refusal(tool: Tool, session_id: str) -> NotAllowed:
    return NotAllowed(
        f"session {session_id!r} may not call the tool {tool.name!r}; it was registered for "
        f"{', '.join(tool.allow)}",
        details={"tool": tool.name, "session_id": session_id},
    )


def _row_of(tool: Tool) -> ToolRow:
    return ToolRow(
        session_id=tool.session_id,
        name=tool.name,
        path=str(tool.path),
        timeout=tool.timeout,
        concurrency=tool.concurrency,
        idempotent=tool.idempotent,
        registered_at=tool.registered_at.timestamp(),
        allow=list(tool.allow),
        schema=tool.schema.describe(),
        metadata=dict(tool.metadata),
    )


def _tool_of(row: ToolRow) -> Tool:
    return Tool(
        name=row.name,
        session_id=row.session_id,
        kind="worker",
        path=row.path,
        schema=Schema.from_description(row.schema),
        timeout=row.timeout,
        concurrency=row.concurrency,
        idempotent=row.idempotent,
        allow=tuple(row.allow),
        metadata=dict(row.metadata),
        registered_at=moment(row.registered_at),
    )


def _delete_all(tx: Transaction, session_id: str) -> None:
    tx.delete_span(TOOLS.span(session_id))
