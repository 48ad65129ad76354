"""The pool as its users see it: its options, its life, the ways to call, and what it tells.

What becomes of a call once it is submitted is the dispatcher's business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from datetime import timedelta
from enum import Enum
from types import TracebackType
from typing import Any, Final, Literal, get_args

from snakepit.adapter import Adapter, require_valid
from snakepit.calls import Call, CallState
from snakepit.dispatcher import Dispatcher
from snakepit.errors import (
    ConfigurationError,
    PoolBroken,
    PoolClosed,
)
from snakepit.link.host_calls import HostFunction
from snakepit.look_ahead import DEPTH
from snakepit.nesting import Chain, current_chain, earliest_deadline, require_depth
from snakepit.options import USE_DEFAULT, Timeout, instance_or_none, seconds, whole_number
from snakepit.scheduler import Scheduler
from snakepit.session import Session, generate_session_id
from snakepit.spin import DEFAULT_SPIN
from snakepit.stats import PoolStats, WorkerInfo
from snakepit.streams import StreamBuffer
from snakepit.supervision.face import SupervisedPool
from snakepit.supervision.heartbeat import Heartbeat
from snakepit.supervision.recycling import RecyclePolicy
from snakepit.supervision.workforce import Workforce
from snakepit.worker.target import import_is_running

Affinity = Literal["hint", "strict_queue"]
_AFFINITIES: Final = get_args(Affinity)
_DEFAULT_HEARTBEAT: Final = Heartbeat()


class PoolState(Enum):
    """A pool's life, in order."""

    NEW = "new"
    STARTING = "starting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_WHY_CLOSED: Final = {
    PoolState.NEW: "is not started; enter it with `async with`",
    PoolState.STARTING: "is still starting; wait for `async with` to enter",
    PoolState.CLOSING: "is closing",
    PoolState.CLOSED: "is closed",
}


class Pool(SupervisedPool):
    """A pool of supervised workers. Use it in ``async with``; it belongs to the event loop it is
    entered in.

    A worker's death fails only the calls it had, and it is replaced. At its deadline a call's
    caller has its error at once; the worker is asked to stop it, and killed and replaced when it
    does not within ``cancel_grace``.

    Args:
        adapter: what runs the commands; usually a :class:`PythonAdapter`.
        size: number of workers, at least 1.
        concurrency: calls a worker serves at a time. 1: on its main thread. More: async commands on
            its event loop, sync ones in threads.
        name: the pool's name in worker ids, logs and errors.
        queue_limit: calls that may wait for a worker; more are refused with PoolSaturated.
        timeout: seconds a call may take in all, queueing included, unless it says otherwise; None
            for no limit.
        stream_idle_timeout: seconds a stream's consumer waits for an item, unless the stream says
            otherwise; None for no limit.
        cancel_grace: seconds a call has to stop, once it is told to, before its worker is killed.
        start_timeout: seconds a worker may take to become ready, its imports included.
        look_ahead: calls that a worker with ``concurrency`` 1 may be sent beyond the one it runs,
            if their command was short of late; they are called back when that one is slow.
        spin: seconds that host and worker look for an answer, or the next call, before they sleep;
            0 for never. It shortens short calls a lot where there is more than one processor, and
            gives itself up where it does not help.
        host_functions: functions that worker code may call with ``current_call().call_host(name,
            args)``. Each is called as ``function(call, **args)`` with a :class:`HostCall`; sync
            ones in a thread.
        recycle: when to replace workers that are healthy; by default never.
        heartbeat: how frozen and deadlocked workers are found; None to look for none.

    Raises:
        ConfigurationError: an option has an impossible value.
        AdapterInvalid: the adapter does not satisfy the contract; lists everything that is wrong.

    Example::

        async with Pool(PythonAdapter("my_worker:Worker"), size=2) as pool:
            print(await pool.execute("greet", {"name": "Ada"}, timeout=5.0))
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        size: int = 2,
        concurrency: int = 1,
        name: str = "default",
        queue_limit: int = 1000,
        timeout: float | timedelta | None = None,
        stream_idle_timeout: float | timedelta | None = None,
        cancel_grace: float | timedelta = 0.25,
        start_timeout: float | timedelta = 60.0,
        look_ahead: int = DEPTH,
        spin: float | timedelta = DEFAULT_SPIN,
        host_functions: Mapping[str, HostFunction] | None = None,
        recycle: RecyclePolicy | None = None,
        heartbeat: Heartbeat | None = _DEFAULT_HEARTBEAT,
    ) -> None:
        require_valid(adapter)
        self.name = name
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._stream_idle_timeout = (
            None
            if stream_idle_timeout is None
            else seconds("stream_idle_timeout", stream_idle_timeout)
        )
        self._scheduler = Scheduler(whole_number("queue_limit", queue_limit, least=0))
        self._workforce = Workforce(
            adapter,
            name=name,
            size=whole_number("size", size),
            concurrency=whole_number("concurrency", concurrency),
            spin=seconds("spin", spin, zero=True),
            start_timeout=seconds("start_timeout", start_timeout),
            cancel_grace=seconds("cancel_grace", cancel_grace),
            host_functions=dict(host_functions or {}),
            recycle=instance_or_none("recycle", recycle, RecyclePolicy),
            heartbeat=instance_or_none("heartbeat", heartbeat, Heartbeat),
        )
        self._dispatcher = Dispatcher(
            name,
            self._workforce,
            self._scheduler,
            cancel_grace=seconds("cancel_grace", cancel_grace),
            look_ahead=whole_number("look_ahead", look_ahead, least=0),
            spin=seconds("spin", spin, zero=True),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner_pid = 0
        self._state = PoolState.NEW
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Pool {self.name!r} ready={stats.ready}/{stats.size} "
            f"running={stats.running} queued={stats.queued}>"
        )

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers; return when at least one is ready.

        Raises:
            AdapterInitFailed: the adapter's ``init`` raised.
            PoolStartFailed: no worker came up; its cause is the first worker's error. Nothing is
                left running.
        """
        if self._state is not PoolState.NEW:
            raise PoolClosed(f"pool {self.name!r} has been started before; create a new one")
        if import_is_running():
            raise ConfigurationError(
                f"pool {self.name!r} is started while a worker imports the module that starts it, "
                "which would never end; put the start below `if __name__ == '__main__':`, "
                "or the worker's class into a module of its own"
            )
        _be_quiet_by_default()
        self._state = PoolState.STARTING
        self._loop = asyncio.get_running_loop()
        self._owner_pid = os.getpid()
        try:
            await self._workforce.start(self._dispatcher)
        except BaseException:
            self._state = PoolState.CLOSED
            raise
        if self._closing is not None:
            await asyncio.shield(self._closing)
            raise PoolClosed(f"pool {self.name!r} was closed while it started")
        self._state = PoolState.OPEN

    async def aclose(self, *, drain: bool = True, timeout: float | timedelta = 10.0) -> None:
        """Refuse new calls, let those in flight finish for up to ``timeout`` seconds, then end
        everything.

        ``drain=False`` ends at once. Calls that did not finish end with PoolClosed. A second call
        waits for the first.
        """
        limit = seconds("timeout", timeout)
        if self._loop is None or self._is_foreign_process() or self._failed_to_start():
            self._state = PoolState.CLOSED
            return
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError(
                f"pool {self.name!r} belongs to another event loop; close it there"
            )
        if self._closing is None:
            # A task of its own: whoever waits may be cancelled, or be a host function that ends.
            self._closing = self._loop.create_task(self._close_all(drain=drain, limit=limit))
        await asyncio.shield(self._closing)

    def _is_foreign_process(self) -> bool:
        """Whether this is a fork of the process that started the pool, and that still uses it."""
        return os.getpid() != self._owner_pid

    def _failed_to_start(self) -> bool:
        return self._state is PoolState.CLOSED and self._closing is None

    async def _close_all(self, *, drain: bool, limit: float) -> None:
        self._state = PoolState.CLOSING
        if drain:
            await self._dispatcher.drain(limit)
        self._state = PoolState.CLOSED
        self._dispatcher.end_all(
            lambda: PoolClosed(f"pool {self.name!r} was closed before the call had ended")
        )
        await self._workforce.stop("closed", grace=min(limit, 2.0) if drain else 0.0)
        self._dispatcher.close()

    async def __aenter__(self) -> Pool:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose(drain=exc_type is None)

    # --- calling -----------------------------------------------------------------------------

    async def execute(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = USE_DEFAULT,
        affinity: Affinity = "hint",
        idempotent: bool = False,
    ) -> Any:
        """Run a command on a worker and return its result.

        Args:
            command: the command's name.
            args: its keyword arguments.
            session_id: calls of one session prefer the worker that served it before.
            timeout: seconds it may take in all, or None for no limit; the pool's by default.
            affinity: "hint": run where there is room when the session's worker is busy.
                "strict_queue": wait for that worker, for commands that need what it keeps of the
                session; when it has ended, another takes its place.
            idempotent: running it twice does no harm, so a WorkerLost or CallTimeout of it says
                that it may be retried. The pool itself retries nothing.

        Raises:
            PoolSaturated: the queue is full.
            CallTimeout: the time is over; says how long it queued and ran.
            WorkerLost: its worker died; says how.
            UnknownCommand, StreamingNotSupported: there is no such command, or it streams.
            EncodeError, PayloadTooLarge: an argument or the result can't travel; the path says
                which.
            RemoteError: the command raised; also an instance of the builtin exception it stands
                for.
            PoolClosed, PoolBroken: the pool takes no calls.
            CallDepthExceeded: workers and host functions call each other without end.
        """
        call = self._new_call(command, args, session_id, timeout, idempotent, None, affinity)
        self._dispatcher.submit(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            call.cancel()
            self._dispatcher.give_up(call)
            raise

    async def execute_stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = USE_DEFAULT,
        affinity: Affinity = "hint",
        idempotent: bool = False,
        idle_timeout: Timeout = USE_DEFAULT,
    ) -> AsyncGenerator[Any]:
        """Iterate over the items a command yields. Leaving the loop early stops the producer.

        The call is made at the first step. Its producer is never more than 64 items and 1 MiB ahead
        (one item may be larger). An error of the command arrives after the items before it. To be
        sure that an early end is noticed at once, close the iterator (``contextlib.aclosing``).

        Args:
            idle_timeout: seconds to wait for an item while the command runs, or None for no limit;
                the pool's ``stream_idle_timeout`` by default. Between items, the time in which the
                consumer does something else does not count.

        Raises: as ``execute``, but StreamBroken when its worker died, caused by the WorkerLost.
        """
        limit = self._stream_idle_timeout if idle_timeout is USE_DEFAULT else idle_timeout
        buffer = StreamBuffer(None if limit is None else seconds("idle_timeout", limit))
        call = self._new_call(command, args, session_id, timeout, idempotent, buffer, affinity)
        self._dispatcher.submit(call)
        try:
            while items := await buffer.next_items():
                for item in items:
                    yield item
                credit = buffer.consumed()
                if credit is not None:
                    self._dispatcher.grant(call, credit)
        finally:
            call.cancel()
            self._dispatcher.give_up(call)

    async def execute_in_session(
        self, session_id: str, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """As ``execute`` with ``session_id``."""
        return await self.execute(command, args, session_id=session_id, **options)

    def execute_in_session_stream(
        self, session_id: str, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncGenerator[Any]:
        """As ``execute_stream`` with ``session_id``."""
        return self.execute_stream(command, args, session_id=session_id, **options)

    def session(self, session_id: str | None = None) -> Session:
        """A handle whose calls belong to one session; a new one unless an id is given."""
        return Session(self, session_id or generate_session_id())

    def release_session(self, session_id: str) -> bool:
        """Forget which worker a session prefers; whether one was known."""
        known = self._scheduler.release_session(session_id)
        self._dispatcher.start_waiting()
        return known

    # --- looking -----------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's gauges and counters now."""
        stopping = sum(call.state is CallState.STOPPING for call in self._dispatcher.running)
        return PoolStats(
            size=self._workforce.size,
            ready=len(self._workforce.workers),
            starting=self._workforce.starting,
            queued=self._scheduler.queued,
            running=len(self._dispatcher.running) - stopping,
            stopping=stopping,
            workers_started=self._workforce.started,
            workers_lost=self._workforce.lost,
            workers_recycled=self._workforce.recycled,
            session_hits=self._scheduler.session_hits,
            session_misses=self._scheduler.session_misses,
            **asdict(self._dispatcher.counters),
        )

    def workers(self) -> list[WorkerInfo]:
        """The workers that are ready, oldest first."""
        return self._workforce.infos()

    def worker_of_session(self, session_id: str) -> str | None:
        """The id of the worker that a session prefers, if it has one."""
        return self._scheduler.worker_of(session_id)

    # --- one call ----------------------------------------------------------------------------

    def _new_call(
        self,
        command: str,
        args: Mapping[str, Any] | None,
        session_id: str | None,
        timeout: Timeout,
        idempotent: bool,
        stream: StreamBuffer | None,
        affinity: Affinity,
    ) -> Call:
        if affinity not in _AFFINITIES:
            raise ConfigurationError(f"affinity is {affinity!r}; it has to be one of {_AFFINITIES}")
        if args is not None and type(args) is not dict and not isinstance(args, Mapping):
            raise ConfigurationError(
                f"args is a {type(args).__name__}; pass a mapping of argument names to values"
            )
        chain = current_chain()
        loop = self._usable_loop(chain)
        limit = self._timeout if timeout is USE_DEFAULT else timeout
        require_depth(command, chain)
        now = time.monotonic()
        own_deadline = None if limit is None else now + seconds("timeout", limit)
        return Call(
            command,
            args or {},
            answer=loop.create_future(),
            submitted_at=now,
            session_id=session_id,
            deadline=earliest_deadline(own_deadline, chain),
            idempotent=idempotent,
            stream=stream,
            strict=affinity == "strict_queue",
            chain=chain,
        )

    def _usable_loop(self, chain: Chain) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None or (self._state is not PoolState.OPEN and not self._takes_calls(chain)):
            raise PoolClosed(f"pool {self.name!r} {_WHY_CLOSED[self._state]}")
        if self._is_foreign_process():
            raise PoolBroken(
                f"pool {self.name!r} was started by process {self._owner_pid} and does not survive "
                "a fork; create it in the process that uses it"
            )
        if asyncio.get_running_loop() is not loop:
            raise ConfigurationError(
                f"pool {self.name!r} belongs to another event loop; create one in this loop"
            )
        if self._workforce.broken is not None:
            raise PoolBroken(
                f"pool {self.name!r}: its workers keep dying; the cause is the last failure. "
                "Correct it and create a new pool"
            ) from self._workforce.broken
        return loop

    def _takes_calls(self, chain: Chain) -> bool:
        if self._state is PoolState.CLOSING:
            # A call in flight may finish, and so may those it is made of.
            return any(host_call.parent in self._dispatcher.running for host_call in chain)
        return self._state is PoolState.OPEN


def _be_quiet_by_default() -> None:
    """Keep log records off a program's stderr unless it asks for them; errors are raised anyway."""
    library = logging.getLogger("snakepit")
    if not library.handlers:
        library.addHandler(logging.NullHandler())
