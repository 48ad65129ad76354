"""The sessions of a platform: started, found, closed, and ended when nobody uses them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any, Final, Literal, Unpack

from snakepit.errors import DecodeError, SnakepitError
from snakepit.options import USE_DEFAULT, Affinity, UseDefault, affinity_option, whole_number
from snakepit.pool.session import generate_session_id
from snakepit.telemetry import bus
from snakepit_grpc_bridge.cancelling import UnbrokenWork
from snakepit_grpc_bridge.errors import BridgeError, OutcomeUnknown, SessionNotFound
from snakepit_grpc_bridge.metadata import read_metadata
from snakepit_grpc_bridge.sessions.activity import Activity
from snakepit_grpc_bridge.sessions.gate import Gate, Temporary, write_uses
from snakepit_grpc_bridge.sessions.rows import (
    GLOBAL_SESSION,
    SESSION_USE,
    SESSIONS,
    Isolation,
    Quotas,
    Session,
    SessionOptions,
    SessionRow,
    UseRow,
    check_session_id,
    ended_use,
    isolation_option,
    new_use,
    plain_quotas,
    session_of,
)
from snakepit_grpc_bridge.sessions.starting import (
    create,
    create_global,
    generate_temp_session_id,
    new_temporary,
)
from snakepit_grpc_bridge.sessions.turns import Turns, answer_by, left_until
from snakepit_grpc_bridge.settings import DEFAULT_TTL, MAX_SESSIONS, time_to_live
from snakepit_grpc_bridge.storage import ReadTransaction, Storage, Transaction
from snakepit_grpc_bridge.telemetry import operation, session_ended

__all__ = ["SessionService", "generate_temp_session_id"]

_log = logging.getLogger(__name__)

#: How long it is known that a session has expired, in seconds.
_MEMORY: Final = 86_400.0
#: Sessions that are ended in one transaction: a few milliseconds of work.
_BATCH: Final = 20
#: Sessions whose uses are written down in one transaction: about as much work.
_USES: Final = 200
#: Seconds between what has a sweep begin sooner, and the sweep: so others come along.
_GATHERING: Final = 0.05
# Its own constructor takes twice as long, for whatever is done in a session.
_new_gate: Final = tuple.__new__

CloseHook = Callable[[str], Awaitable[None]]
Cleaner = Callable[[Transaction, str], object]


class SessionService:
    """Starts, finds and ends sessions. One for each platform; use it on the platform's loop.

    What belongs to sessions is kept by other services: they register what ends it. Sessions are
    kept in ``storage``, so a durable one goes on after a restart of the host, and may be used by
    several hosts.

    Args:
        storage: where they are kept; entered before the service is used.
        default_ttl: seconds without use after which a session expires, if it does not say.
        max_sessions: how many may be open at a time.
        clock: tells the time in seconds since the epoch.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        default_ttl: float | None = DEFAULT_TTL,
        max_sessions: int = MAX_SESSIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._default_ttl = default_ttl
        self._max_sessions = max_sessions
        self._clock = clock
        self._activity = Activity()
        self._temporary: dict[str, Temporary] = {}
        self._perhaps_stored: set[str] = set()  # of these
        self._hooks: list[CloseHook] = []
        self._cleaners: list[Cleaner] = []
        self._sweepers: list[Callable[[], Awaitable[object]]] = []
        self._turns = Turns()
        self._unbroken = UnbrokenWork()
        # The sessions that something in this process belongs to, and what the storage was like when
        # they were last looked at.
        self._held: dict[str, str] = {}
        self._looked_at: str | None = None
        self._sweeping: asyncio.Task[None] | None = None
        # When the sweep goes on, and what has it go on sooner.
        self._sweeps_at = 0.0
        self._sooner = asyncio.Event()

    # --- life --------------------------------------------------------------------------------

    async def open_global(self) -> None:
        """Make sure that there is the global session."""
        now = self._clock()
        await self._storage.transact(lambda tx: create_global(tx, now))

    def start_sweeping(self) -> None:
        """End expired sessions from now on."""
        self._sweeping = asyncio.create_task(self._sweep_for_ever())

    async def aclose(self) -> None:
        """Write down when sessions were last used, and end no more. Idempotent."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait([sweeping])
        await self._unbroken.aclose()
        with contextlib.suppress(BridgeError):  # of a storage that is lost nobody expects it
            await self._write_uses()

    # --- sessions ----------------------------------------------------------------------------

    @property
    def global_id(self) -> str:
        """The id of the application-wide session, which is always open."""
        return GLOBAL_SESSION

    @operation("sessions")
    async def start(
        self,
        session_id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | timedelta | Literal[UseDefault.USE_DEFAULT] | None = USE_DEFAULT,
        affinity: Affinity = "hint",
        concurrency: int = 1,
        isolation: Isolation = "shared",
        quotas: Quotas | None = None,
    ) -> Session:
        """Start a session and return its record.

        Args:
            session_id: its id; a random one by default.
            metadata: plain data of the caller's, kept with it.
            ttl: seconds without use after which it expires with all it holds; None for never.
            affinity: how its calls are bound to the worker that served it before.
            concurrency: how many of its calls run at a time.
            isolation: "session" gives it a worker process of its own: nothing that its code does to
                its process is seen by another session. Costs a process.
            quotas: how much it may hold.

        Raises:
            ValidationFailed: the id is no valid one, a session of that id is open, or the metadata
                are no plain data or too large.
            QuotaExceeded: there are as many sessions as there may be.
            ConfigurationError: an option has an impossible value.

        Example::

            session = await platform.sessions.start(metadata={"user": "ada"}, ttl=600)
            await platform.variables.put(session.id, "temperature", 0.2)
            await platform.sessions.close(session.id)
        """
        row = SessionRow(
            id=generate_session_id() if session_id is None else check_session_id(session_id),
            created=self._clock(),
            affinity=affinity_option(affinity),
            concurrency=whole_number("concurrency", concurrency),
            isolation=isolation_option(isolation),
            quotas=plain_quotas(quotas or Quotas()),
            metadata=read_metadata(metadata),
        )
        use = new_use(row, self._ttl(ttl))
        most = self._max_sessions
        await self._storage.transact(lambda tx: create(tx, row, use, most))
        return session_of(row, use)

    @asynccontextmanager
    async def open(
        self, session_id: str | None = None, **options: Unpack[SessionOptions]
    ) -> AsyncIterator[Session]:
        """Start a session for an ``async with`` block, and close it when the block is left.

        The options are those of :meth:`start`.
        """
        session = await self.start(session_id, **options)
        try:
            yield session
        except BaseException:
            # That it can't be closed must not hide why the block was left. It expires instead.
            await self._try_to_close(session.id)
            raise
        await self.close(session.id)

    @asynccontextmanager
    async def open_temporary(self) -> AsyncIterator[str]:
        """A session for an ``async with`` block that nobody else knows: its id. It is stored only
        when it comes to hold something.
        """
        temporary = new_temporary(self._clock())
        session_id = temporary.row.id
        self._temporary[session_id] = temporary
        try:
            yield session_id
        finally:
            await self._try_to_close(session_id)  # what was done in it is done all the same

    @operation("sessions")
    async def close(self, session_id: str) -> bool:
        """Close a session with all that belongs to it; say whether it was open.

        Its variables and tools are gone when this returns, and its instances in workers are
        released. The global session is emptied and stays open.
        """
        return await self._unbroken.run(self._close(check_session_id(session_id)))

    async def _close(self, session_id: str) -> bool:
        temporary = self._temporary.pop(session_id, None)
        stored = False
        try:
            if temporary is None or session_id in self._perhaps_stored:
                stored = await self._storage.transact(lambda tx: self._end(tx, session_id, None))
        except OutcomeUnknown:
            self._looked_at = None  # so that the next sweep finds out
            raise
        finally:
            self._perhaps_stored.discard(session_id)
            if stored or temporary is not None:
                await self._release(session_id, "closed")
        return stored or temporary is not None

    async def _try_to_close(self, session_id: str) -> None:
        try:
            await self.close(session_id)
        except BridgeError as error:
            _log.warning("session %r was not closed, and will expire: %s", session_id, error)

    async def clear_global(self) -> None:
        """Remove all global variables, tools and instances; watches of it end."""
        await self.close(GLOBAL_SESSION)

    @operation("sessions")
    async def get(self, session_id: str) -> Session:
        """Return the record of an open session. This is a use of it.

        Raises:
            SessionNotFound: it was never started or is closed.
            SessionExpired: it was not used for too long.
        """
        row, use = await self._enter(session_id)
        return session_of(row, use)

    @operation("sessions")
    async def exists(self, session_id: str) -> bool:
        """Say whether the session is open. This is no use of it."""
        try:
            await self._storage.read(self.gate(session_id).enter)
        except SessionNotFound:
            return False
        return True

    @operation("sessions")
    async def list(self) -> list[Session]:
        """Return the records of all open sessions, by id; the global one included."""

        def work(tx: ReadTransaction) -> Sequence[tuple[SessionRow, UseRow | None]]:
            return [(row, tx.get(SESSION_USE, row.id)) for row in tx.scan(SESSIONS.span())]

        found = dict(self._temporary) | {
            row.id: (row, use) for row, use in await self._storage.read(work)
        }
        return [
            session_of(row, use)
            for session_id, (row, use) in sorted(found.items())
            if use is not None and not self.gate(session_id).has_expired(use)
        ]

    # --- for the platform's other services ---------------------------------------------------

    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self._clock()

    def gate(self, session_id: str, *, writes: bool = False) -> Gate:
        """The way into a session, for a transaction that starts now, and perhaps ``writes``."""
        activity = self._activity
        serves = type(session_id) is str and session_id in activity.calls
        # While it serves calls it does not expire, and its id was checked with the first of them.
        last_used = None if serves else activity.last_used(check_session_id(session_id))
        temporary = self._temporary.get(session_id) if self._temporary else None
        if writes and temporary is not None:
            self._perhaps_stored.add(session_id)
        return _new_gate(Gate, (session_id, self._clock(), last_used, serves, temporary))

    def serving(self, session_id: str) -> str | None:
        """The incarnation of a session that serves a call here, and that nobody here has ended."""
        return self._held.get(session_id) if session_id in self._activity.calls else None

    def note_use(self, use: UseRow) -> None:
        """Something was done in a session, so that it lives on."""
        if use.ttl is not None:
            self._note(use.session_id, use.ttl)

    async def hold(self, session_id: str, incarnation: str) -> None:
        """Something in this process belongs to a session from now on: the close hooks are called
        when it has ended, also if another host ends it. What is left of an earlier one goes first.
        """
        if session_id == GLOBAL_SESSION:
            return  # it does not end
        if self._held.get(session_id, incarnation) != incarnation:
            await self._release(session_id, "another host")
        self._held[session_id] = incarnation

    @asynccontextmanager
    async def turn(self, session_id: str, timeout: float | None = None) -> AsyncIterator[Session]:
        """Run a call of a session, when it is its turn; while it runs the session does not expire.

        Raises:
            SessionNotFound, SessionExpired: it is not open, or has been closed while the call
                waited.
            QueueTimeout: its turn did not come within ``timeout`` seconds, or the storage did not
                answer.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        row, use = await self._enter_by(deadline, session_id)
        self._activity.enter(session_id)
        self._note(session_id, use.ttl)  # a sweep may have been since that
        try:
            left = left_until(deadline)
            async with self._turns.take(session_id, row.concurrency, left) as waited:
                if waited:
                    row, use = await self._enter_by(deadline, session_id)
                await self.hold(session_id, use.incarnation)
                yield session_of(row, use)
        finally:
            self._activity.leave(session_id)
            self._note(session_id, use.ttl)

    def on_close(self, hook: CloseHook) -> None:
        """Call ``hook(session_id)`` whenever a session has ended, in the order of registration."""
        self._hooks.append(hook)

    def on_end(self, cleaner: Cleaner) -> None:
        """Have ``cleaner(tx, session_id)`` delete what is stored of a session, in the transaction
        that ends it.
        """
        self._cleaners.append(cleaner)

    def on_sweep(self, sweeper: Callable[[], Awaitable[object]]) -> None:
        """Await ``sweeper()`` at each sweep, for what expires besides sessions."""
        self._sweepers.append(sweeper)

    # --- expiry ------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """End the sessions that have expired; return how many there were.

        A platform does so by itself. It is done in small transactions, so that nobody waits long.
        """
        await self._write_uses()
        swept = 0
        while ended := await self._end_some():
            swept += len(ended)
            for session_id in ended:
                await self._release(session_id, "expired")
            await asyncio.sleep(0)
            await self._write_uses()  # of sessions that would expire while others are ended
        await self._release_ended_elsewhere()
        await self._storage.prune(SESSION_USE.span(by="ended", stop=self._clock() - _MEMORY))
        for sweep in self._sweepers:
            try:
                await sweep()
            except DecodeError as error:
                # That row stays as it is, and must not keep the others from being swept.
                _log.warning("not everything that has expired could be deleted: %s", error)
        return swept

    async def _end_some(self) -> Sequence[str]:
        try:
            return await self._storage.transact(self._end_expired)
        except OutcomeUnknown:
            self._looked_at = None  # so that the next sweep finds out
            raise

    def _end_expired(self, tx: Transaction) -> Sequence[str]:
        now = self._clock()
        due = tx.scan(
            SESSION_USE.span(by="expiry", stop=math.nextafter(now, math.inf)), limit=_BATCH
        )
        # One that was used since its uses were written down is left to the next sweep.
        expired = [use for use in due if self.gate(use.session_id).has_expired(use)]
        for use in expired:
            self._end(tx, use.session_id, now)
        return [use.session_id for use in expired]

    async def _write_uses(self) -> None:
        """Write down when sessions were last used, in small transactions."""
        uses = iter(self._activity.to_write(self._clock()).items())
        while group := list(islice(uses, _USES)):
            await self._storage.transact(partial(write_uses, group))
            self._activity.written(group)
            await asyncio.sleep(0)

    def _note(self, session_id: str, ttl: float | None) -> None:
        due = self._activity.note(session_id, ttl, self._clock())
        if due is not None and due < self._sweeps_at:
            self._sooner.set()

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except SnakepitError as error:
                _log.warning("expired sessions could not be ended, to be tried again: %s", error)
            await self._pause()

    async def _pause(self) -> None:
        """Until uses have to be written down, or so long."""
        now = self._clock()
        pause = self._activity.pause(now)
        self._sweeps_at = now + pause
        self._sooner.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._sooner.wait()
                await asyncio.sleep(_GATHERING)

    # --- transactions --------------------------------------------------------------------------

    def _end(self, tx: Transaction, session_id: str, expired: float | None) -> bool:
        """Delete a session with all it holds; one that ``expired`` is remembered for a while."""
        use = tx.get(SESSION_USE, session_id)
        if use is None or use.ended is not None:
            return False
        for clean in self._cleaners:
            clean(tx, session_id)
        tx.delete(SESSIONS, session_id)
        if expired is None:
            tx.delete(SESSION_USE, session_id)
        else:
            tx.put(SESSION_USE, ended_use(use, expired))
        if session_id == GLOBAL_SESSION:
            create_global(tx, self._clock())  # it is never missing, not even for a moment
        return True

    async def _enter(self, session_id: str) -> tuple[SessionRow, UseRow]:
        """The rows of an open session; this is a use of it."""
        gate = self.gate(session_id)
        # In this order: of one that was swept there is a use that says so, and no record.
        use, row = await self._storage.read(lambda tx: (gate.enter(tx), gate.record(tx)))
        self.note_use(use)
        return row, use.used(gate.now)

    async def _enter_by(self, deadline: float, session_id: str) -> tuple[SessionRow, UseRow]:
        return await answer_by(deadline, session_id, self._enter(session_id))

    async def _release_ended_elsewhere(self) -> None:
        version = await self._storage.foreign_version()
        if version == self._looked_at:
            return
        for session_id, incarnation in tuple(self._held.items()):
            use = await self._storage.read(methodcaller("get", SESSION_USE, session_id))
            is_open = use is not None and use.ended is None and use.incarnation == incarnation
            if not is_open and session_id not in self._temporary:
                await self._release(session_id, "another host")
        self._looked_at = version

    async def _release(self, session_id: str, reason: str) -> None:
        if bus.listening:
            session_ended(session_id, reason)
        self._held.pop(session_id, None)
        self._activity.forget(session_id)
        for hook in self._hooks:
            try:
                await hook(session_id)
            except Exception:
                # The others must run all the same: a failing one leaves only its own behind.
                _log.exception("a part of session %r could not be released", session_id)

    def _ttl(self, ttl: float | timedelta | UseDefault | None) -> float | None:
        if isinstance(ttl, UseDefault):
            return self._default_ttl
        return None if ttl is None else time_to_live("ttl", ttl)
