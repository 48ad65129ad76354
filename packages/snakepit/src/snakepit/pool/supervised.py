"""What a pool offers to those who look after it: its workers one by one, and its health."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from snakepit.calls.call_infos import CallInfo, describe_calls
from snakepit.pool.dispatcher import Dispatcher
from snakepit.supervision.autoscaler import Autoscaler
from snakepit.supervision.sizing import Sizing, sizing_of
from snakepit.supervision.workforce import Workforce


class SupervisedPool(ABC):
    """The part of a pool's face that is about its workers rather than its calls."""

    _workforce: Workforce
    _autoscaler: Autoscaler
    _dispatcher: Dispatcher

    @abstractmethod
    def _require_open(self) -> None:
        """Refuse what can be done only to an open pool, in its process and its event loop."""

    @abstractmethod
    def _require_own_process(self) -> None:
        """Refuse what would reach the workers of another process."""

    @abstractmethod
    def _require_own_loop(self) -> None:
        """Refuse what changes the pool at once, anywhere but in its event loop."""

    def resize(self, size: int | Sizing | None) -> None:
        """Have another number of workers from now on; as the pool's option ``size``.

        Returns at once. Missing workers are started in the background, and tried again when that
        fails: ``await_ready`` waits for them. Of those too many the ones with the fewest calls get
        no more of them at once, and end after those they have; the sessions bound to them find
        their worker gone, as when it is recycled. The thread limits of the workers' libraries stay
        as they are until ``reload``.

        Raises:
            ConfigurationError: there can't be so many workers; or called from anywhere but the
                pool's event loop.
            PoolClosed: the pool is not open.
            PoolBroken: it starts no workers any more, or belongs to another process.

        Example::

            pool.resize(8)
            await pool.await_ready(30.0)
        """
        self._require_open()
        self._autoscaler.resize(sizing_of(size, self._workforce.adapter))

    def recycle(self, worker_id: str) -> bool:
        """Have a healthy worker replaced: its successor is started, then it ends after its calls.

        Returns at once. False if there is no such worker (any more), it leaves already, or its
        successor could not be started a moment ago.

        Raises:
            PoolBroken: the pool belongs to another process.
            ConfigurationError: called from anywhere but the pool's event loop.

        Example::

            pool.recycle(pool.workers()[0].worker_id)
        """
        self._require_own_process()
        self._require_own_loop()
        return self._workforce.recycle(worker_id, "it was asked for")

    def reset_restarts(self) -> None:
        """Forget how many workers have failed in a row, and start those that are missing for it.

        For a pool whose workers die of what they are asked to do, and that is to go on all the
        same; or that has given up (PoolBroken), once the cause is corrected.

        Raises: as ``recycle``.

        Example::

            pool.reset_restarts()
        """
        self._require_own_process()
        self._require_own_loop()
        self._workforce.reset_restarts()

    def calls(self) -> tuple[CallInfo, ...]:
        """The calls that the pool has now: those sent to a worker, longest ago first, then those
        that wait, in the order in which they would be served. Times in seconds.

        Calls that travel together are listed each by itself. Costs the event loop some
        microseconds a call.

        Example::

            for call in pool.calls():
                if (call.running_s or 0.0) > 60.0:
                    print(call.command, call.session_id, call.worker_id, call.running_s)
        """
        dispatcher = self._dispatcher
        sent = sorted(dispatcher.running, key=lambda call: call.started_at or 0.0)
        waiting = [*dispatcher.scheduler.waiting(), *dispatcher.batching.gathering]
        return tuple(describe_calls([*sent, *waiting], time.monotonic()))

    async def dump_stacks(self, worker_id: str) -> str:
        """The Python stacks of all threads of a worker, as text, whatever it does: also while it
        runs a command, or C code that holds the interpreter's lock. The worker goes on.

        On Linux. The worker tells them itself, mostly within milliseconds, and with them what the
        tasks of async calls wait for. One that does not answer (1.2 s, more with a concurrency) is
        made to write them by a signal, as where C code holds the lock.

        Raises:
            ConfigurationError: there is no such worker, its adapter has no processes of Python, or
                this is not the pool's event loop.
            WorkerHung: it did not answer, and is stopped or did not react to the signal in 2 s.
            PoolBroken: the pool belongs to another process.

        Example::

            for info in pool.workers():
                print(info.worker_id, await pool.dump_stacks(info.worker_id))
        """
        self._require_own_process()
        self._require_own_loop()
        return await self._workforce.monitor.dump_stacks(worker_id)
