"""Who is told of changes. Watchers live on the platform's event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from snakepit_grpc_bridge.cancelling import is_cancelled
from snakepit_grpc_bridge.variables.comparing import is_same
from snakepit_grpc_bridge.variables.rows import HISTORY_RETENTION, Kind, VariableChange

__all__ = ["ChangeCallback", "Watch", "Watchers", "call_back"]

_log = logging.getLogger(__name__)

#: Between a deletion and what comes after it was forgotten, whatever the clocks of hosts say.
_LONG_AGO: Final = timedelta(seconds=HISTORY_RETENTION / 2)

ChangeCallback = Callable[[VariableChange], object]
"""Is told of a change; a coroutine function is awaited."""


class Watch:
    """Iterates over the changes of variables of one session, from the moment it was made.

    ``async for`` ends when the session does, or after :meth:`close`. A consumer that is slower than
    the writers gets the newest state of each variable: changes that wait for it are joined, and
    ``missed`` says how many were. So what waits is bounded, and nobody waits for a consumer.

    Example::

        async with await platform.variables.watch(session.id, "temperature") as watch:
            async for change in watch:
                print(change.name, change.value)
    """

    def __init__(
        self,
        session_id: str,
        identifiers: Iterable[str] | None,
        on_close: Callable[[Watch], object],
    ) -> None:
        self.session_id = session_id
        #: What is watched, by names or ids; None for all.
        self.identifiers = None if identifiers is None else frozenset(identifiers)
        self._on_close = on_close
        self._pending: dict[str, VariableChange] = {}
        # What the consumer was told of last, or is going to be.
        self._known: dict[str, VariableChange] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def tell(self, change: VariableChange) -> None:
        """Tell of a change of any variable of the session, if it is one of those that are watched.

        When one that is watched by its id gives way to another one of its name, it was deleted.
        """
        wanted = self.identifiers
        if wanted is None or change.name in wanted or change.id in wanted:
            self.push(change)
            return
        known = self._known.get(change.name)
        if known is not None and known.kind != "deleted" and self._is_news(change):
            self.push(_deletion(known, change.updated_at))

    def push(self, change: VariableChange) -> None:
        """Tell of a change, unless a later one was told of."""
        if self._closed or not self._is_news(change):
            return
        self._known[change.name] = change
        before = self._pending.pop(change.name, None)
        joined = change if before is None else _joined(before, change)
        if joined is not None:
            self._pending[change.name] = joined
            self._changed.set()

    def note(self, change: VariableChange) -> None:
        """Take a variable as known without telling of it."""
        if self._is_news(change):
            self._known[change.name] = change

    def catch_up(self, present: Iterable[VariableChange], now: datetime) -> None:
        """Tell of what others have changed: ``present`` is what there is, each as "initial"."""
        found = {change.name: change for change in present}
        for name, change in found.items():
            before = self._known.get(name)
            existed = before is not None and before.kind != "deleted"
            if existed and before is not None and _is_same(before, change):
                self.note(change)
            else:
                old = before.value if existed and before is not None else None
                kind: Kind = "updated" if existed else "created"
                self.push(dataclasses.replace(change, kind=kind, old_value=old))
        for name, before in tuple(self._known.items()):
            if name not in found and before.kind != "deleted":
                self.push(_deletion(before, now))

    def _is_news(self, change: VariableChange) -> bool:
        known = self._known.get(change.name)
        if known is None or change.version > known.version:
            return True
        # Of a name that was forgotten, versions begin anew.
        return known.kind == "deleted" and change.updated_at - known.updated_at > _LONG_AGO

    def end(self) -> None:
        """Let the consumer come to an end, after what it has not read."""
        self._closed = True
        self._changed.set()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._pending.clear()
        self.end()
        self._on_close(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> VariableChange:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._pending.pop(next(iter(self._pending)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def call_back(watch: Watch, callback: ChangeCallback) -> None:
    """Tell a callback of the changes that a watch sees, until it ends."""
    async for change in watch:
        try:
            told = callback(change)
            if inspect.isawaitable(told):
                await told
        except (Exception, asyncio.CancelledError):
            if is_cancelled():
                raise
            # It must not keep later changes from being told.
            _log.exception("the callback of a watch on variable %r failed", change.name)


def _is_same(before: VariableChange, after: VariableChange) -> bool:
    return before.id == after.id and is_same(before.value, after.value)


def _deletion(before: VariableChange, now: datetime) -> VariableChange:
    return dataclasses.replace(
        before,
        kind="deleted",
        value=None,
        old_value=before.value,
        version=before.version + 1,
        updated_at=now,
        updated_by=None,
        source="host",
        missed=0,
    )


def _joined(before: VariableChange, after: VariableChange) -> VariableChange | None:
    """One change for two; None if together they change nothing."""
    kind: Kind = after.kind
    if before.kind in ("created", "initial"):
        if kind == "deleted":
            return None
        kind = before.kind
    elif before.kind == "deleted" and kind == "created":
        kind = "updated"
    return dataclasses.replace(
        after, kind=kind, old_value=before.old_value, missed=before.missed + after.missed + 1
    )


class Watchers:
    """All watches of a platform."""

    def __init__(self) -> None:
        self._sessions: dict[str, set[Watch]] = {}

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def add(self, session_id: str, identifiers: Iterable[str] | None) -> Watch:
        """Begin a watch."""
        watch = Watch(session_id, identifiers, self._remove)
        self._sessions.setdefault(session_id, set()).add(watch)
        return watch

    def of(self, session_id: str) -> tuple[Watch, ...]:
        """The watches of a session."""
        return tuple(self._sessions.get(session_id, ()))

    def sessions(self) -> tuple[str, ...]:
        """The sessions that are watched."""
        return tuple(self._sessions)

    def publish(self, change: VariableChange) -> None:
        """Tell those who watch the variable."""
        for watch in self.of(change.session_id):
            watch.tell(change)

    def end(self, session_id: str) -> None:
        """The session has ended, and with it the watches."""
        for watch in self._sessions.pop(session_id, ()):
            watch.end()

    def end_all(self) -> None:
        """The platform ends."""
        for session_id in self.sessions():
            self.end(session_id)

    def _remove(self, watch: Watch) -> None:
        watches: set[Any] = self._sessions.get(watch.session_id, set())
        watches.discard(watch)
        if not watches:
            self._sessions.pop(watch.session_id, None)
