"""The pool: an event-loop shell around the scheduler. It decides nothing itself but when to ask.

Callers, workers, timers and starts all meet here; which call runs where is the scheduler's, when a
worker is replaced the restart budget's, and which calls are late the deadlines' decision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, get_args

from snakepit.adapter import Adapter, require_valid
from snakepit.calls import Call, CallEvent, CallState, StreamBuffer
from snakepit.deadlines import Deadlines
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    Outcome,
    PoolBroken,
    PoolClosed,
    as_typed,
)
from snakepit.link.host_calls import HostFunction
from snakepit.nesting import current_chain, earliest_deadline, find_lender, require_depth
from snakepit.options import USE_DEFAULT, Timeout, seconds, whole_number
from snakepit.scheduler import Scheduler
from snakepit.session import Session, generate_session_id
from snakepit.stats import Counters, PoolStats, WorkerInfo
from snakepit.supervision.workforce import Workforce
from snakepit.worker.target import import_is_running

Affinity = Literal["hint", "strict_queue"]


class Pool:
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
        cancel_grace: seconds a call has to stop, once it is told to, before its worker is killed.
        start_timeout: seconds a worker may take to become ready, its imports included.
        host_functions: functions that worker code may call with ``current_call().call_host(name,
            args)``. Each is called as ``function(call, **args)`` with a :class:`HostCall`; sync
            ones in a thread.

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
        cancel_grace: float | timedelta = 0.25,
        start_timeout: float | timedelta = 60.0,
        host_functions: Mapping[str, HostFunction] | None = None,
    ) -> None:
        require_valid(adapter)
        self.name = name
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._grace = seconds("cancel_grace", cancel_grace)
        self._scheduler = Scheduler(whole_number("queue_limit", queue_limit, least=0))
        self._deadlines = Deadlines()
        self._counters = Counters()
        self._workforce = Workforce(
            adapter,
            name=name,
            size=whole_number("size", size),
            concurrency=whole_number("concurrency", concurrency),
            start_timeout=seconds("start_timeout", start_timeout),
            host_functions=dict(host_functions or {}),
        )
        self._running: set[Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner_pid = 0
        self._closed = False

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
        if self._loop is not None:
            raise PoolClosed(f"pool {self.name!r} has been started before; create a new one")
        if import_is_running():
            raise ConfigurationError(
                f"pool {self.name!r} is started while a worker imports the module that starts it, "
                "which would never end; put the start below `if __name__ == '__main__':`, "
                "or the worker's class into a module of its own"
            )
        _be_quiet_by_default()
        self._loop = asyncio.get_running_loop()
        self._owner_pid = os.getpid()
        self._idle = asyncio.Event()
        await self._workforce.start(self)

    async def aclose(self, *, drain: bool = True, timeout: float | timedelta = 10.0) -> None:
        """Refuse new calls, let those in flight finish for up to ``timeout`` seconds, then end
        everything.

        ``drain=False`` ends at once. Calls that did not finish end with PoolClosed. Closing twice
        does nothing.
        """
        if self._closed or self._loop is None:
            self._closed = True
            return
        self._closed = True
        limit = seconds("timeout", timeout)
        if drain and self._idle is not None and not self._is_idle():
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), limit)
        for call in [*self._scheduler.waiting(), *self._running]:
            call.fail(PoolClosed(f"pool {self.name!r} was closed before the call had ended"))
            self._give_up(call)
        await self._workforce.stop("closed", grace=min(limit, 2.0) if drain else 0.0)
        if self._timer is not None:
            self._timer.cancel()

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
        self._submit(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            call.cancel()
            self._give_up(call)
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
    ) -> AsyncGenerator[Any]:
        """Iterate over the items a command yields. Leaving the loop early stops the producer.

        The producer is never more than 32 items ahead. An error of the command arrives after the
        items before it. To be sure that an early end is noticed at once, close the iterator
        (``contextlib.aclosing``).

        Raises: as ``execute``.
        """
        buffer = StreamBuffer()
        call = self._new_call(command, args, session_id, timeout, idempotent, buffer, affinity)
        self._submit(call)
        try:
            while True:
                try:
                    item = await buffer.next()
                except StopAsyncIteration:
                    return
                yield item
                self._grant(call, buffer.credit_due())
        finally:
            call.cancel()
            self._give_up(call)

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
        self._start_waiting()
        return known

    # --- looking -----------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's gauges and counters now."""
        stopping = sum(call.state is CallState.STOPPING for call in self._running)
        return PoolStats(
            size=self._workforce.size,
            ready=len(self._workforce.workers),
            starting=self._workforce.starting,
            queued=self._scheduler.queued,
            running=len(self._running) - stopping,
            stopping=stopping,
            workers_started=self._workforce.started,
            workers_lost=self._workforce.lost,
            session_hits=self._scheduler.session_hits,
            session_misses=self._scheduler.session_misses,
            **asdict(self._counters),
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
        if affinity not in get_args(Affinity):
            raise ConfigurationError(
                f"affinity is {affinity!r}; it has to be one of {get_args(Affinity)}"
            )
        if args is not None and not isinstance(args, Mapping):
            raise ConfigurationError(
                f"args is a {type(args).__name__}; pass a mapping of argument names to values"
            )
        loop = self._usable_loop()
        limit = self._timeout if timeout is USE_DEFAULT else timeout
        chain = current_chain()
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

    def _usable_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if self._closed or loop is None:
            state = "closed" if self._closed else "not started; enter it with `async with`"
            raise PoolClosed(f"pool {self.name!r} is {state}")
        if os.getpid() != self._owner_pid:
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

    def _submit(self, call: Call) -> None:
        """Start a call or queue it; errors of the caller's making are raised here."""
        lender = find_lender(call, self._running, self._scheduler)
        if lender is None:
            worker_id = self._scheduler.submit(call)
        else:
            worker_id, call.parent_id = lender.worker_id, lender.call_id
            self._scheduler.borrowed(call, worker_id)
        self._counters.submitted += 1
        if call.deadline is not None and self._deadlines.add(call, call.deadline):
            self._arm(call.deadline)
        if worker_id is None:
            call.apply(CallEvent.QUEUE)
        else:
            self._start(call, worker_id)

    def _start(self, call: Call, worker_id: str) -> None:
        call.apply(CallEvent.START)
        call.started_at = time.monotonic()
        call.worker_id = worker_id
        self._running.add(call)
        try:
            self._workforce.workers[worker_id].start_call(call)
        except BaseException as error:
            # What could not be sent holds no slot, whatever the reason.
            call.fail(as_typed(error))
            self.call_ended(call)

    def _start_waiting(self) -> None:
        while (assignment := self._scheduler.next()) is not None:
            self._start(*assignment)

    def _grant(self, call: Call, items: int) -> None:
        worker = self._workforce.workers.get(call.worker_id or "")
        if items and worker is not None:
            worker.grant(call, items)

    # --- the end of a call ---------------------------------------------------------------------

    def call_ended(self, call: Call) -> None:
        """The worker has ended a call and its slot is free. (WorkforceOwner)"""
        self._running.discard(call)
        if call.parent_id is None and call.worker_id is not None:
            self._scheduler.release(call.worker_id)
        self._close(call)
        self._start_waiting()

    def _close(self, call: Call) -> None:
        """Count a call that holds nothing any more."""
        call.apply(CallEvent.END)
        self._deadlines.discard(call)
        if call.outcome is not None:
            self._counters.count(call.outcome)
        if self._idle is not None and self._is_idle():
            self._idle.set()

    def _is_idle(self) -> bool:
        return not self._running and not self._scheduler.queued

    def _give_up(self, call: Call) -> None:
        """The caller has its answer, or went away; see to it that the work stops."""
        self._deadlines.discard(call)
        if call.state is CallState.QUEUED:
            self._scheduler.withdraw(call)
            self._close(call)
        elif call.state is CallState.RUNNING:
            call.apply(CallEvent.STOP)
            worker = self._workforce.workers.get(call.worker_id or "")
            if worker is not None and self._loop is not None:
                worker.stop_call(call)
                self._loop.call_later(self._grace, self._end_stuck_call, call)

    def _end_stuck_call(self, call: Call) -> None:
        if call.state is CallState.STOPPING and call.worker_id is not None:
            self._workforce.retire(
                call.worker_id,
                f"its call of {call.command!r} did not stop within {self._grace:g} s",
            )

    # --- deadlines -----------------------------------------------------------------------------

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None:
            delay = max(0.0, deadline - time.monotonic())
            self._timer = self._loop.call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        now = time.monotonic()
        due, next_deadline = self._deadlines.due(now)
        for call in due:
            call.fail(_timeout_error(call, now))
            self._give_up(call)
        if next_deadline is not None:
            self._arm(next_deadline)

    # --- WorkforceOwner --------------------------------------------------------------------------

    def worker_ready(self, worker_id: str) -> None:
        """A worker may be given calls."""
        self._scheduler.add_worker(worker_id, self._workforce.concurrency)
        self._start_waiting()

    def worker_leaving(self, worker_id: str) -> None:
        """A worker must not be given calls any more; those that wait for it may go elsewhere."""
        self._scheduler.close_worker(worker_id)
        self._start_waiting()

    def worker_gone(self, worker_id: str) -> None:
        """A worker is dead."""
        self._scheduler.remove_worker(worker_id)
        self._start_waiting()

    def workforce_broken(self, error: Exception) -> None:
        """No worker will be started any more: whoever waits for one waits in vain."""
        if not self._workforce.workers:
            for call in list(self._scheduler.waiting()):
                broken = PoolBroken(f"pool {self.name!r}: its workers keep dying: {error}")
                broken.__cause__ = error
                call.fail(broken)
                self._give_up(call)


def _be_quiet_by_default() -> None:
    """Keep log records off a program's stderr unless it asks for them; errors are raised anyway."""
    library = logging.getLogger("snakepit")
    if not library.handlers:
        library.addHandler(logging.NullHandler())


def _timeout_error(call: Call, now: float) -> CallTimeout:
    started = now if call.started_at is None else call.started_at
    error = CallTimeout.of(
        call.command,
        limit="total",
        timeout_s=(call.deadline or now) - call.submitted_at,
        queued_s=started - call.submitted_at,
        ran_s=now - started,
    )
    error.retryable = call.idempotent
    if call.started_at is None:
        error.outcome, error.retryable = Outcome.NONE, True
    return error
