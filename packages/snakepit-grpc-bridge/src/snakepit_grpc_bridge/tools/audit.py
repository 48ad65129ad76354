"""The records of calls of tools: gathered, and written down a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from snakepit_grpc_bridge.errors import BridgeError
from snakepit_grpc_bridge.storage import ReadTransaction, Span, Storage, Transaction
from snakepit_grpc_bridge.tools.records import TOOL_CALLS, ToolCall, ToolCallRow
from snakepit_grpc_bridge.variables.values import moment

__all__ = ["AuditLog"]

_log = logging.getLogger(__name__)
#: Seconds until records are written down, and how many make it sooner.
_PAUSE: Final = 0.2
_MOST_GATHERED: Final = 200
#: Records that wait for a storage that is away, at most.
_MOST_WAITING: Final = 10_000
#: Seconds that records are kept.
RETENTION: Final = 30 * 86_400.0


#: A call that has ended: its session, tool and caller, when that was, how long it took and how it
#: ended.
_Noted = tuple[str, str, str | None, float, float, str]


class AuditLog:
    """What tools were called when, by whom, and how it ended. For one event loop.

    A record is written down within a fraction of a second after the call; those of the last moment
    are lost when the host is killed. When the storage is away they wait for it, until the next call
    or the end.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._gathered: list[_Noted] = []
        # What is being written, or could not be.
        self._rows: list[ToolCallRow] = []
        self._one_at_a_time = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._closed = False
        self._full = asyncio.Event()
        # Of several hosts, none has the numbers of another: they begin with the time.
        self._numbers = itertools.count(time.time_ns())

    def note(
        self, tool: str, session_id: str, caller: str | None, duration: float, outcome: str
    ) -> None:
        """A call has ended."""
        if self._closed:
            return  # a stream that is ended with its loop
        # Rows are made of them when they are written: that takes longer than the rest of this.
        self._gathered.append((session_id, tool, caller, time.time(), duration, outcome))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        elif len(self._gathered) >= _MOST_GATHERED:
            self._full.set()

    async def calls(self, session_id: str | None = None, *, limit: int = 100) -> Sequence[ToolCall]:
        """The last calls, of one session or of all, the newest first."""
        await self.flush()
        span: Span[ToolCallRow] = (
            TOOL_CALLS.span(by="time") if session_id is None else TOOL_CALLS.span(session_id)
        )

        def work(tx: ReadTransaction) -> list[ToolCallRow]:
            return tx.scan(span, limit=limit, reverse=True)

        return [_shown(row) for row in await self._storage.read(work)]

    async def flush(self) -> None:
        """Write down what was gathered, and what waits; all of it waits if that fails."""
        async with self._one_at_a_time:
            rows = [*self._rows, *map(_row, self._numbers, self._gathered)]
            self._rows, self._gathered = rows, []

            def work(tx: Transaction) -> None:
                for row in rows:
                    tx.put(TOOL_CALLS, row)

            if rows:
                await self._storage.transact(work)
                self._rows = []

    async def prune(self) -> None:
        """Forget records that are old."""
        await self._storage.prune(TOOL_CALLS.span(by="time", stop=time.time() - RETENTION))

    async def aclose(self) -> None:
        """Write down what is left, and nothing any more. Idempotent."""
        self._closed = True
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing])
        try:
            await self.flush()
        except BridgeError as error:
            _log.warning("%d records of calls of tools are lost: %s", len(self._rows), error)
            self._rows = []

    async def _write(self) -> None:
        try:
            while self._gathered:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE):
                        await self._full.wait()
                self._full.clear()
                try:
                    await self.flush()
                except BridgeError as error:
                    self._let_wait(error)
        finally:
            self._writing = None

    def _let_wait(self, error: BridgeError) -> None:
        lost = max(0, len(self._rows) - _MOST_WAITING)
        del self._rows[:lost]
        _log.warning(
            "%d records of calls of tools wait for the storage, and %d are lost: %s",
            *(len(self._rows), lost, error),
        )


def _row(number: int, noted: _Noted) -> ToolCallRow:
    session_id, tool, caller, ended, duration, outcome = noted
    return ToolCallRow(session_id, number, tool, caller, ended - duration, duration, outcome)


def _shown(row: ToolCallRow) -> ToolCall:
    fields: dict[str, Any] = {
        "tool": row.tool,
        "session_id": row.session_id,
        "caller": row.caller,
        "duration": row.duration,
        "outcome": row.outcome,
    }
    return ToolCall(started=moment(row.started), **fields)
