"""The ways to call a pool."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from snakepit.calls.call import NORMAL_PRIORITY, Call, Priority
from snakepit.calls.nesting import Chain, current_chain, earliest_deadline, require_depth
from snakepit.calls.scheduler import Scheduler
from snakepit.calls.streams import StreamBuffer
from snakepit.errors import ConfigurationError
from snakepit.loops.foreign_loops import CalledElsewhere, StreamElsewhere, run_there
from snakepit.loops.wakeups import WakeUps
from snakepit.options import (
    USE_DEFAULT,
    Affinity,
    CallDefaults,
    Timeout,
    affinity_option,
    idempotency_key_option,
    priority_option,
    seconds,
)
from snakepit.pool.dispatcher import Dispatcher
from snakepit.pool.explain import Explanation
from snakepit.pool.session import Session, generate_session_id


class CallingPool(ABC):
    """The part of a pool's face that is about its calls and sessions."""

    name: str
    _defaults: CallDefaults
    _dispatcher: Dispatcher
    _scheduler: Scheduler

    _wakeups: WakeUps

    @abstractmethod
    def _require_usable(self, chain: Chain) -> None:
        """Refuse a call made on behalf of ``chain``, unless the pool takes it here and now.

        Raises:
            CalledElsewhere: the pool would take it in its own loop.
            SnakepitError: it takes none.
        """

    @abstractmethod
    def _require_own_process(self) -> None:
        """Refuse what would reach the workers of another process."""

    @abstractmethod
    def loop_elsewhere(self) -> asyncio.AbstractEventLoop | None:
        """The pool's loop, if the caller is in another one, and it runs."""

    @abstractmethod
    def _require_own_loop(self) -> None:
        """Refuse what changes the pool at once, anywhere but in its event loop."""

    async def execute(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = USE_DEFAULT,
        queue_timeout: Timeout = USE_DEFAULT,
        run_timeout: float | timedelta | None = None,
        affinity: Affinity | None = None,
        priority: Priority = "normal",
        idempotent: bool = False,
        idempotency_key: str | None = None,
    ) -> Any:
        """Run a command on a worker and return its result.

        Args:
            command, args: the command's name, and its keyword arguments.
            session_id: calls of one session prefer the worker that served it before.
            timeout: seconds it may take in all, or None for no limit; the pool's by default.
            queue_timeout, run_timeout: seconds of these that it may wait for a worker, and run.
            affinity: "hint": run elsewhere when the session's worker is busy, and bind the session
                to that one. "strict_queue": wait for it. "strict_fail_fast": fail if it is busy.
            priority: "high", "normal" or "low": a lower one waits while a higher one could run.
            idempotent: running it twice does no harm: its errors say that it may be retried.
            idempotency_key: your own name for it, 1 to 255 visible ASCII characters: the quarantine
                knows it by that, not by its arguments, and ``current_call().idempotency_key`` has
                it for a provider that takes such keys. Calls with equal keys each run.

        Raises:
            PoolSaturated: the queue is full.
            QueueTimeout: it waited too long, and never ran.
            WorkerBusy: with strict_fail_fast: the session's worker has no free slot.
            SessionWorkerUnavailable: with a strict affinity: the session's worker has left.
            CallTimeout: the time is over; says how long it queued and ran.
            WorkerLost: its worker died; says how.
            UnknownCommand, StreamingNotSupported: there is no such command, or it streams.
            EncodeError, PayloadTooLarge: an argument or the result can't travel; says which.
            RemoteError: the command raised; it is a builtin exception, too, if that was one.
            PoolClosed, PoolBroken: the pool takes no calls.
            CallDepthExceeded: workers and host functions call each other without end.
        """
        try:
            call = self._new_call(
                command, args, None, session_id, timeout, queue_timeout, affinity, priority,
                idempotent, run_timeout, idempotency_key,
            )  # fmt: skip
        except CalledElsewhere as elsewhere:
            home, options = elsewhere.home, elsewhere.options
        else:
            batching = self._dispatcher.batching
            taker = batching.taker_of(call) if batching.batchers else self._dispatcher
            taker.submit(call)
            try:
                return await call
            except asyncio.CancelledError:
                call.cancel()
                taker.give_up(call)
                raise
        return await run_there(home, self.execute(command, args, **options))

    async def execute_stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = USE_DEFAULT,
        queue_timeout: Timeout = USE_DEFAULT,
        run_timeout: float | timedelta | None = None,
        idle_timeout: Timeout = USE_DEFAULT,
        affinity: Affinity | None = None,
        priority: Priority = "normal",
        idempotent: bool = False,
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[Any]:
        """Iterate over the items a command yields. Leaving the loop early stops the producer.

        The call is made at the first step. Its producer is never more than 64 items and 1 MiB ahead
        (one item may be larger). An error of the command arrives after the items before it. To be
        sure that an early end is noticed at once, close the iterator (``contextlib.aclosing``).

        Args:
            idle_timeout: seconds to wait for an item while the command runs, or None for no limit;
                the pool's ``stream_idle_timeout`` by default. Between items, the time in which the
                consumer does something else does not count.

        The other arguments are those of ``execute``.

        Raises: as ``execute``, but StreamBroken when its worker died, caused by the WorkerLost.
        """
        buffer = StreamBuffer(self._defaults.idle_limit(idle_timeout))
        try:
            call = self._new_call(
                command, args, buffer, session_id, timeout, queue_timeout, affinity, priority,
                idempotent, run_timeout, idempotency_key,
            )  # fmt: skip
        except CalledElsewhere as elsewhere:
            home, options = elsewhere.home, elsewhere.options
        else:
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
            return
        there = self.execute_stream(command, args, idle_timeout=idle_timeout, **options)
        async with aclosing(StreamElsewhere(home, there)) as found:
            async for item in found:
                yield item

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
        """Forget which worker a session is bound to; whether it was bound to one.

        Its next call binds it anew, also when it is strict and the old worker has left.

        Raises:
            PoolBroken: the pool belongs to another process.
            ConfigurationError: called from anywhere but the pool's event loop, while that runs.
        """
        self._require_own_process()
        home = self._wakeups.loop
        if home is not None and home.is_running():  # or nobody is disturbed
            self._require_own_loop()
        known = self._scheduler.release_session(session_id)
        self._dispatcher.start_waiting()
        return known

    @property
    def default_timeout(self) -> float | None:
        """Seconds that a call may take which does not say otherwise; None for no limit."""
        return self._defaults.timeout

    # --- looking -----------------------------------------------------------------------------

    def explain(
        self,
        command: str,
        session_id: str | None = None,
        *,
        affinity: Affinity | None = None,
        priority: Priority = "normal",
    ) -> Explanation:
        """What would become of such a call now: where it would run and why, or what it would wait
        for, behind how many others. Nothing is called.

        Raises:
            PoolClosed, PoolBroken: the pool takes no calls.
            ConfigurationError: called from anywhere but the pool's event loop.

        Example::

            print(pool.explain("greet", session_id="ada").reason)
        """
        self._require_own_loop()
        call = self._new_call(
            command, None, None, session_id, None, None, affinity, priority, False
        )
        return self._dispatcher.explain(call, affinity or self._defaults.affinity)

    def worker_of_session(self, session_id: str) -> str | None:
        """The id of the worker that a session prefers, if it has one."""
        return self._scheduler.worker_of(session_id)

    # --- one call ----------------------------------------------------------------------------

    def _new_call(
        self,
        command: str,
        args: Mapping[str, Any] | None,
        stream: StreamBuffer | None,
        session_id: str | None,
        timeout: Timeout,
        queue_timeout: Timeout,
        affinity: Affinity | None,
        priority: Priority,
        idempotent: bool,
        run_timeout: float | timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Call:
        if args is not None and type(args) is not dict and not isinstance(args, Mapping):
            raise ConfigurationError(
                f"args is a {type(args).__name__}; pass a mapping of argument names to values"
            )
        defaults = self._defaults
        affinity = defaults.affinity if affinity is None else affinity_option(affinity)
        rank = NORMAL_PRIORITY if priority == "normal" else priority_option(priority)
        chain = current_chain()
        try:
            self._require_usable(chain)
        except CalledElsewhere as elsewhere:
            elsewhere.options = {
                "session_id": session_id, "timeout": timeout, "queue_timeout": queue_timeout,
                "run_timeout": run_timeout, "affinity": affinity, "priority": priority,
                "idempotent": idempotent, "idempotency_key": idempotency_key,
            }  # fmt: skip
            raise
        now = time.monotonic()
        deadline = queue_deadline = None
        if not defaults.leaves_unlimited(timeout, queue_timeout):
            deadline = defaults.deadline(now, timeout)
            queue_deadline = defaults.queue_deadline(now, queue_timeout)
        if chain:
            require_depth(command, chain)
            deadline = earliest_deadline(deadline, chain)
        run_limit = None if run_timeout is None else seconds("run_timeout", run_timeout)
        call = Call(
            command, args or {}, self._wakeups, now, deadline, session_id, stream, idempotent,
            queue_deadline, affinity != "hint", affinity == "strict_fail_fast", rank, chain,
            run_limit,
        )  # fmt: skip
        if idempotency_key is not None:
            call.name_by(idempotency_key_option(idempotency_key))
        return call
