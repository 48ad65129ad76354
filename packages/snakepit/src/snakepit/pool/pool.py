"""The pool as its users see it: its options, its life, and what it tells.

What becomes of a call once it is submitted is the dispatcher's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Final

from snakepit import forks
from snakepit._logs import be_quiet_by_default
from snakepit.adapters.adapter import Adapter, require_valid
from snakepit.calls.call import CallState
from snakepit.calls.look_ahead import DEPTH
from snakepit.calls.nesting import Chain
from snakepit.calls.scheduler import SESSION_LIMIT, Scheduler
from snakepit.calls.stats import PoolStats, WorkerInfo
from snakepit.control.server import ControlServer, start_control
from snakepit.errors import (
    ConfigurationError,
    PoolBroken,
    PoolClosed,
    PoolNotReady,
)
from snakepit.link.host_calls import HostFunction
from snakepit.loops.foreign_loops import (
    CalledElsewhere,
    require_running,
    run_there,
    running_elsewhere,
)
from snakepit.loops.spin import DEFAULT_SPIN
from snakepit.loops.wakeups import WakeUps
from snakepit.options import Affinity, CallDefaults, instance_or_none, seconds, whole_number
from snakepit.pool import pool_events
from snakepit.pool.calling import CallingPool
from snakepit.pool.dispatcher import Dispatcher
from snakepit.pool.names import claim_name, give_back_name
from snakepit.pool.state import WHY_CLOSED, PoolState
from snakepit.pool.supervised import SupervisedPool
from snakepit.supervision.autoscaler import Autoscaler
from snakepit.supervision.health import Health, HealthFacts, judge
from snakepit.supervision.heartbeat import Heartbeat
from snakepit.supervision.launcher import Launcher
from snakepit.supervision.quarantine import DEFAULT_LIMIT, Quarantine
from snakepit.supervision.recycling import RecyclePolicy
from snakepit.supervision.sizing import Sizing, sizing_of
from snakepit.supervision.workforce import Workforce
from snakepit.telemetry import bus
from snakepit.worker.target import import_is_running

_DEFAULT_HEARTBEAT: Final = Heartbeat()
# Reading an enumeration's member takes ten times as long as reading a name.
_OPEN: Final = PoolState.OPEN


class Pool(CallingPool, SupervisedPool):
    """A pool of supervised workers. Use it in ``async with``; it belongs to the event loop it is
    entered in.

    A worker's death fails only the calls it had, and it is replaced. At its deadline a call's
    caller has its error at once; the worker is asked to stop it, and killed and replaced when it
    does not within ``cancel_grace``.

    Args:
        adapter: what runs the commands; usually a :class:`PythonAdapter`.
        size: number of workers, at least 1; or a :class:`Sizing`, for a number that follows the
            calls. By default as many as there are processors for this process, by its affinity mask
            and the CPU quota of its container; fewer where the memory limit of the container does
            not allow for so many workers with the adapter's limit each; as many as the adapter has
            devices for, if it assigns devices.
        concurrency: calls a worker serves at a time. 1: on its main thread. More: async commands on
            its event loop, sync ones in threads.
        name: the pool's name in worker ids, logs and errors. While another pool of the process has
            it, a number is put behind it.
        queue_limit: calls that may wait for a worker; more are refused with PoolSaturated.
        session_limit: sessions whose worker is remembered; beyond it the one used longest ago is
            forgotten, and bound anew by its next call.
        timeout: seconds a call may take in all, queueing included, unless it says otherwise; None
            for no limit.
        queue_timeout: seconds a call may wait for a worker, unless it says otherwise.
        affinity: how calls are bound to their session's worker, unless they say otherwise; see
            ``execute``.
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
        quarantine_after: after how many crashes of workers that ran it a call, known by its command
            and arguments, is refused with PoisonCall for ten minutes; None for never.

    Raises:
        ConfigurationError: an option has an impossible value, or the adapter can't have so many
            workers.
        AdapterInvalid: the adapter does not satisfy the contract; lists everything that is wrong.

    Example::

        async with Pool(PythonAdapter("my_worker:Worker"), size=2) as pool:
            print(await pool.execute("greet", {"name": "Ada"}, timeout=5.0))
    """

    _control: ControlServer | None = None
    _patient = False  # whether closing waits for the calls in flight

    def __init__(
        self,
        adapter: Adapter,
        *,
        size: int | Sizing | None = None,
        concurrency: int = 1,
        name: str = "default",
        queue_limit: int = 1000,
        session_limit: int = SESSION_LIMIT,
        timeout: float | timedelta | None = None,
        queue_timeout: float | timedelta | None = None,
        affinity: Affinity = "hint",
        stream_idle_timeout: float | timedelta | None = None,
        cancel_grace: float | timedelta = 0.25,
        start_timeout: float | timedelta = 60.0,
        look_ahead: int = DEPTH,
        spin: float | timedelta = DEFAULT_SPIN,
        host_functions: Mapping[str, HostFunction] | None = None,
        recycle: RecyclePolicy | None = None,
        heartbeat: Heartbeat | None = _DEFAULT_HEARTBEAT,
        quarantine_after: int | None = DEFAULT_LIMIT,
    ) -> None:
        require_valid(adapter)
        self.name = name
        self._defaults = CallDefaults.of(
            timeout=timeout,
            queue_timeout=queue_timeout,
            stream_idle_timeout=stream_idle_timeout,
            affinity=affinity,
        )
        whole_number("queue_limit", queue_limit, least=0)
        self._scheduler = Scheduler(queue_limit, whole_number("session_limit", session_limit))
        self._wakeups = WakeUps()
        self._workforce = Workforce(
            Launcher(
                adapter=adapter,
                concurrency=whole_number("concurrency", concurrency),
                spin=seconds("spin", spin, zero=True),
                start_timeout=seconds("start_timeout", start_timeout),
                cancel_grace=seconds("cancel_grace", cancel_grace),
                host_functions=dict(host_functions or {}),
            ),
            name=name,
            sizing=sizing_of(size, adapter),
            wakeups=self._wakeups,
            recycle=instance_or_none("recycle", recycle, RecyclePolicy),
            heartbeat=instance_or_none("heartbeat", heartbeat, Heartbeat),
        )
        self._dispatcher = Dispatcher(
            name,
            self._workforce,
            self._scheduler,
            look_ahead=whole_number("look_ahead", look_ahead, least=0),
            quarantine=Quarantine(quarantine_after),
        )
        self._autoscaler = Autoscaler(self._workforce, self._scheduler)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home = forks.here()
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
        be_quiet_by_default()
        self._state = PoolState.STARTING
        self._loop = self._wakeups.loop = asyncio.get_running_loop()
        self._home = forks.here()
        self.name = self._workforce.name = self._dispatcher.name = claim_name(self.name)
        self._workforce.monitor.on_look = self._tell_status
        began_at = time.monotonic()
        if bus.listening:
            pool_events.starting(self.name, self._workforce.size)
        try:
            await self._workforce.start(self._dispatcher)
        except BaseException as error:
            self._enter(PoolState.CLOSED)
            if bus.listening:
                pool_events.started(self.name, 0, began_at, error)
            raise
        if self._closing is not None:
            await asyncio.shield(self._closing)
            raise PoolClosed(f"pool {self.name!r} was closed while it started")
        self._enter(PoolState.OPEN)
        self._autoscaler.start()
        self._control = start_control(self, self._workforce, self._dispatcher)
        if bus.listening:
            pool_events.started(self.name, len(self._workforce.workers), began_at)

    async def await_ready(
        self, timeout: float | timedelta | None = None, *, workers: int | None = None
    ) -> None:
        """Wait until all workers can take calls, or as many as ``workers`` says.

        ``start`` returns with the first; later ones may fail at first, or die and be replaced.

        Args:
            timeout: seconds to wait, or None for no limit.
            workers: how many are enough, at most as many as the pool is to have now.

        Raises:
            PoolNotReady: the time is over; says how many are ready and how many are starting.
            PoolBroken: workers keep dying, so that no more will come; or the pool belongs to
                another process.
            PoolClosed: the pool is not started, or was closed meanwhile.
            ConfigurationError: the pool belongs to another event loop, which does not run.

        Example::

            async with Pool(adapter, size=8) as pool:
                await pool.await_ready(30.0, workers=6)
        """
        self._require_own_process()
        home = self.loop_elsewhere()
        if home is not None:
            await run_there(home, self.await_ready(timeout, workers=workers))
            return
        size = self._workforce.size
        wanted = size if workers is None else whole_number("workers", workers)
        if wanted > size:
            raise ConfigurationError(f"workers is {wanted}; the pool has only {size}")
        limit = None if timeout is None else seconds("timeout", timeout)
        if await self._dispatcher.readiness.wait(lambda: self._is_ready(wanted), limit):
            return
        raise PoolNotReady(
            f"pool {self.name!r}: {self._scheduler.open_workers} of {wanted} workers are ready "
            f"after {limit:g} s, {self._workforce.starting} are starting; wait longer, or see the "
            "log for why they don't start",
            details={
                "ready": self._scheduler.open_workers,
                "wanted": wanted,
                "starting": self._workforce.starting,
            },
        )

    def _is_ready(self, wanted: int) -> bool:
        """Whether enough workers take calls. Raises when they never will."""
        if self._state not in (PoolState.STARTING, PoolState.OPEN):
            raise PoolClosed(f"pool {self.name!r} {WHY_CLOSED[self._state]}")
        if self._scheduler.open_workers >= wanted:
            return True
        self._require_unbroken()
        self._require_own_loop()
        return False

    def _enter(self, state: PoolState) -> None:
        self._state = state
        if state is PoolState.CLOSED:
            give_back_name(self.name)
        self._dispatcher.readiness.changed()

    async def reload(self) -> None:
        """Have the workers run the code as it is now, for instance after an edit.

        A new template imports it first; then every worker is replaced, its successor first, and
        ends after the calls it has. No call fails, but strict ones that wait for a leaving worker.
        Returns when all successors are ready. Calls refused for killing workers are taken again.

        Raises:
            WorkerStartFailed: the new code can't be imported or constructed; its cause says why.
                The workers that are up serve on with the code they have.
            PoolClosed: the pool is not open.
            PoolBroken: it starts no workers any more, or belongs to another process.

        Example::

            await pool.reload()
        """
        self._require_open()
        began_at = time.monotonic()
        try:
            await self._workforce.reload()
        except Exception as error:
            if bus.listening:
                pool_events.reloaded(self.name, self._scheduler.open_workers, began_at, error)
            raise
        self._dispatcher.quarantine.clear()
        if bus.listening:
            pool_events.reloaded(self.name, self._scheduler.open_workers, began_at)

    async def aclose(self, *, drain: bool = True, timeout: float | timedelta = 10.0) -> None:
        """Refuse new calls, let those in flight finish for up to ``timeout`` seconds, then end
        everything.

        ``drain=False`` ends at once, also what an earlier call waits for. Calls that did not finish
        end with PoolClosed. Any other second call waits for the first.
        """
        limit = seconds("timeout", timeout)
        if self._loop is None or self._is_foreign_process() or self._failed_to_start():
            self._state = PoolState.CLOSED
            return
        home = self.loop_elsewhere()
        if home is not None:
            await run_there(home, self.aclose(drain=drain, timeout=timeout))
            return
        self._require_own_loop()
        if self._closing is None or self._closing.cancelled():
            # A task of its own: whoever waits may be cancelled, or be a host function that ends.
            self._patient = drain
            self._closing = self._loop.create_task(self._close_all(limit))
        elif self._patient and not drain:
            self._patient = False
            if self._state in (PoolState.CLOSING, PoolState.CLOSED):  # or it has not begun to wait
                self._closing.cancel()
        await asyncio.shield(self._closing)

    def _is_foreign_process(self) -> bool:
        """Whether this is a fork of the process that started the pool, and that still uses it."""
        return self._home.forks != forks.count

    def _failed_to_start(self) -> bool:
        return self._state is PoolState.CLOSED and self._closing is None

    async def _close_all(self, limit: float) -> None:
        self._enter(PoolState.CLOSING)
        self._autoscaler.stop()
        began_at = time.monotonic()
        try:
            if self._patient:
                await self._dispatcher.drain(limit)
            await self._end_all(grace=min(limit, 2.0) if self._patient else 0.0)
        except asyncio.CancelledError:
            # By a second call, or as all tasks are when a program ends. Nothing is waited for any
            # more, but what was begun is brought to its end: nobody else does it.
            await self._end_all(grace=0.0)
        self._enter(PoolState.CLOSED)
        if bus.listening:
            pool_events.closed(self.name, began_at)

    async def _end_all(self, *, grace: float) -> None:
        """End calls and workers. May be called again when it was cut off."""
        self._state = PoolState.CLOSED
        self._dispatcher.end_all(
            lambda: PoolClosed(f"pool {self.name!r} was closed before the call had ended")
        )
        control, self._control = self._control, None
        if control is not None:
            await control.close()
        await self._workforce.stop("closed", grace=grace)
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

    # --- looking -----------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's gauges and counters now."""
        stopping = sum(call.state is CallState.STOPPING for call in self._dispatcher.running)
        return PoolStats(
            size=self._workforce.size,
            ready=len(self._workforce.workers) - self._workforce.roster.spares,
            spares=self._workforce.roster.spares,
            starting=self._workforce.starting,
            running=len(self._dispatcher.running) - stopping,
            stopping=stopping,
            workers_started=self._workforce.started,
            workers_lost=self._workforce.lost,
            workers_recycled=self._workforce.recycled,
            **self._scheduler.gauges(),
            **asdict(self._dispatcher.counters),
        )

    def _tell_status(self) -> None:
        pool_events.status(self.name, self.stats())

    def health(self) -> Health:
        """Whether the pool lives and takes calls; for the probes of what runs this process.

        Example::

            health = pool.health()
            status = 200 if health.ready else 503
        """
        workforce = self._workforce
        facts = HealthFacts(
            takes_calls=self._state is PoolState.OPEN,
            may_take_calls=self._state in (PoolState.NEW, PoolState.STARTING),
            why_not=WHY_CLOSED.get(self._state, ""),
            is_foreign=self._loop is not None and self._is_foreign_process(),
            broken=workforce.broken,
            failures=workforce.budget.failures,
            is_looping=workforce.budget.is_looping(time.monotonic()),
            open_workers=self._scheduler.open_workers,
            starting=workforce.starting,
        )
        return judge(facts)

    def workers(self) -> list[WorkerInfo]:
        """The workers that are ready, oldest first."""
        return self._workforce.infos()

    # --- taking calls ------------------------------------------------------------------------

    def _require_usable(self, chain: Chain) -> None:
        loop = self._loop
        if (
            self._state is _OPEN
            and self._home.forks == forks.count
            and loop is asyncio.get_running_loop()
            and self._workforce.broken is None
        ):
            return
        home = self.loop_elsewhere()
        if home is not None:
            raise CalledElsewhere(home)
        if loop is None or (self._state is not _OPEN and not self._takes_calls(chain)):
            raise PoolClosed(f"pool {self.name!r} {WHY_CLOSED[self._state]}")
        self._require_own_process()
        self._require_own_loop()
        self._require_unbroken()

    def _require_open(self) -> None:
        if self._state is not PoolState.OPEN:
            raise PoolClosed(f"pool {self.name!r} {WHY_CLOSED[self._state]}")
        self._require_own_process()
        self._require_own_loop()
        self._require_unbroken()

    def _require_own_process(self) -> None:
        if self._loop is not None and self._is_foreign_process():
            raise PoolBroken(
                f"pool {self.name!r} was started by process {self._home.pid} and does not survive "
                "a fork; create it in the process that uses it"
            )

    def _require_own_loop(self) -> None:
        if self._loop is not None:  # or it has nothing yet that could be disturbed
            require_running(self._loop, f"pool {self.name!r}")

    def loop_elsewhere(self) -> asyncio.AbstractEventLoop | None:
        if self._loop is None or self._is_foreign_process():  # in a fork it seems to run
            return None
        return running_elsewhere(self._loop)

    def _require_unbroken(self) -> None:
        if self._workforce.broken is not None:
            raise PoolBroken(
                f"pool {self.name!r}: its workers keep dying; the cause is the last failure. "
                "Correct it and create a new pool"
            ) from self._workforce.broken

    def _takes_calls(self, chain: Chain) -> bool:
        if self._state is PoolState.CLOSING:
            # A call in flight may finish, and so may those it is made of.
            return any(host_call.parent in self._dispatcher.running for host_call in chain)
        return self._state is PoolState.OPEN
