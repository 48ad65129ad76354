"""What an executor runs on: a pool in the event loop of a thread of its own.

Calls come in from any thread and wait here, where they can still be cancelled. The pool gets no
more of them than its workers can take: one each, and some ahead of a function whose calls were
short of late.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Final

from snakepit._logs import steady_logger
from snakepit.calls.look_ahead import CommandTimes
from snakepit.errors import (
    CallTimeout,
    ConfigurationError,
    DecodeError,
    Outcome,
    PoolBroken,
    PoolClosed,
    SnakepitError,
    WorkerError,
    as_typed,
)
from snakepit.executor.errors import also, broken, with_traceback
from snakepit.executor.pickling import Message, Pickler, unpack
from snakepit.executor.runner import RUN
from snakepit.loops.loop_thread import LoopThread
from snakepit.pool.pool import Pool
from snakepit.worker.target import import_is_running

logger = steady_logger("snakepit.executor")


class Task:
    """A submitted call."""

    __slots__ = ("future", "name", "request", "timeout")

    def __init__(
        self, future: Future[Any], name: str, request: Message, timeout: float | None
    ) -> None:
        self.future = future
        self.name = name
        self.request = request
        #: Seconds it may run, or None.
        self.timeout = timeout


class Engine:
    """Runs the calls of one executor. It knows nothing of the executor, which may be collected.

    Args:
        new_pool: makes the pool, which is started at the first call.
        size: the number of its workers.
        ahead: how many short calls a worker may have besides the one it runs.
        pickler: what unpickles the results.
    """

    def __init__(
        self, new_pool: Callable[[], Pool], *, size: int, ahead: int, pickler: Pickler
    ) -> None:
        self._new_pool = new_pool
        self._size = size
        self._most = size * (1 + ahead)
        self._pickler = pickler
        # Guards whether a call is taken. Reentrant: a collection of garbage, which may shut an
        # executor down, happens anywhere.
        self._lock = threading.RLock()
        self._shut = False
        self._error: SnakepitError | None = None
        self._loop: LoopThread | None = None
        self._woken = False
        self._waiting: deque[Task] = deque()
        # The rest belongs to the loop's thread.
        self._pool: Pool | None = None
        self._running: dict[Future[Any], asyncio.Task[None]] = {}
        self._times = CommandTimes()
        self._starting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    # --- from any thread -------------------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """Take a call; raises what ``ProcessPoolExecutor.submit`` raises."""
        self._require_own()
        with self._lock:
            self.require_open()
            loop = self._loop or self._start()
            self._waiting.append(task)
            # One call wakes the loop's thread for all that follow until it looks; if all workers
            # are busy, none does.
            if not self._woken and self._has_room(task):
                self._woken = True
                loop.call_soon(self._feed)

    def _require_own(self) -> None:
        # Before the lock is taken: a thread that is not in this process may have it.
        if self._loop is not None and not self._loop.usable:
            raise broken(PoolBroken(_FORKED))

    def require_open(self) -> None:
        """Raise what ``submit`` would raise now, if calls are not taken any more."""
        if self._error is not None:
            raise broken(self._error)
        if self._shut or _at_exit:
            what = "shutdown" if self._shut else "interpreter shutdown"
            closed = PoolClosed(f"cannot schedule new futures after {what}; make a new executor")
            raise also(RuntimeError, closed)

    def _start(self) -> LoopThread:
        if import_is_running():
            raise ConfigurationError(
                "a worker imports the module that submits this call, which would never end; put "
                "what starts the work below `if __name__ == '__main__':`"
            )
        pool = self._new_pool()
        self._loop = LoopThread("snakepit-executor", owner="executor")
        _finish_at_exit(self)
        self._loop.call_soon(partial(self._open, pool))
        return self._loop

    def stop(self, future: Future[Any]) -> None:
        """See to it that a call ends, also when it runs."""
        if not future.cancel() and self._loop is not None:
            self._loop.call_soon(partial(self._stop, future))

    def shutdown(self, *, wait: bool, cancel: bool = False) -> None:
        """Take no more calls, and end when those there are have ended; ``cancel``: only those that
        run.
        """
        if self._loop is not None and not self._loop.usable:
            return  # it is the parent's
        with self._lock:
            self._shut = True
            loop = self._loop
        if loop is not None:
            if cancel:
                # There, so that the calls for which there was room have been started before.
                loop.call_soon(self._cancel_waiting)
            loop.call_soon(self._feed)
            if wait:
                loop.join()

    def kill(self) -> None:
        """Take no more calls, and end the workers with those that they run."""
        self.shutdown(wait=False, cancel=True)
        if self._loop is not None:
            self._loop.call_soon(partial(self._end, drain=False))

    def stop_all(self) -> None:
        """Take no more calls, cancel those that wait, and stop those that run."""
        self.shutdown(wait=False, cancel=True)
        if self._loop is not None:
            self._loop.call_soon(self._stop_all)

    # --- life, on the loop's thread --------------------------------------------------------------

    def _open(self, pool: Pool) -> None:
        self._pool = pool
        self._starting = asyncio.get_running_loop().create_task(self._start_pool(pool))

    async def _start_pool(self, pool: Pool) -> None:
        try:
            await pool.start()
        except Exception as error:
            self._break(as_typed(error))
        self._starting = None
        self._feed()

    def _break(self, error: SnakepitError) -> None:
        """No worker can be had any more."""
        with self._lock:
            self._error = self._error or error
        while self._waiting:
            future = self._waiting.popleft().future
            if future.set_running_or_notify_cancel():
                _resolve(future.set_exception, broken(error))

    def _cancel_waiting(self) -> None:
        while self._waiting:
            future = self._waiting.popleft().future
            future.cancel()
            future.set_running_or_notify_cancel()

    def _end_if_done(self) -> None:
        finishing = self._shut or self._error is not None
        if finishing and not (self._waiting or self._running or self._starting):
            self._end(drain=True)

    def _end(self, *, drain: bool) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._close(drain))

    async def _close(self, drain: bool) -> None:
        try:
            if self._pool is not None:
                await self._pool.aclose(drain=drain)
            if self._running:
                await asyncio.wait(self._running.values())
        finally:
            _live.discard(self)
            if self._loop is not None:
                self._loop.stop()

    # --- calls, on the loop's thread -------------------------------------------------------------

    def _feed(self) -> None:
        """Start the calls for which there is room."""
        self._woken = False
        while (task := self._next()) is not None:
            serving = asyncio.get_running_loop().create_task(self._serve(task))
            self._running[task.future] = serving
        self._end_if_done()

    def _next(self) -> Task | None:
        """The next call that may start, which can't be cancelled from now on."""
        while self._waiting and self._has_room(self._waiting[0]):
            task = self._waiting.popleft()
            if task.future.set_running_or_notify_cancel():
                return task
        return None

    def _has_room(self, task: Task) -> bool:
        running = len(self._running)
        return running < self._size or (running < self._most and self._times.is_short(task.name))

    async def _serve(self, task: Task | None) -> None:
        """Run one call after the other, as long as there is one."""
        serving = asyncio.current_task()
        assert serving is not None, "it runs as a task"
        while task is not None:
            self._running[task.future] = serving
            await self._run(task)
            # In this order: whoever submits a call meanwhile sees that there is room, or the call
            # is seen here.
            del self._running[task.future]
            task = self._next()
            self._feed()

    async def _run(self, task: Task) -> None:
        """Have the pool run a call, and resolve its future."""
        assert self._pool is not None, "it is there before the first call"
        future = task.future
        try:
            if self._starting is not None:
                await asyncio.wait([self._starting])
            if self._error is not None:
                raise self._error
            reply = await self._pool.execute(
                RUN, {"request": task.request}, run_timeout=task.timeout
            )
        except asyncio.CancelledError:
            _resolve(future.set_exception, CancelledError())
        except SnakepitError as failure:
            _resolve(future.set_exception, self._told(task, failure))
        else:
            self._settle(task, reply)

    def _told(self, task: Task, error: SnakepitError) -> SnakepitError:
        """What became of a call, as the executor's users know it."""
        # Or else the error and the future that has it would keep each other alive.
        error.__traceback__ = None
        if error is self._error:
            return broken(error)
        match error:
            case WorkerError() if self._pool is not None:
                # It is the calls that kill their workers: the executor goes on.
                self._pool.reset_restarts()
                return broken(error)
            case PoolBroken():
                self._break(error)
                return broken(error)
            case PoolClosed() | DecodeError():
                return broken(error)
            case CallTimeout():
                return _renamed(error, task.name)
        return error

    def _settle(self, task: Task, reply: list[Any]) -> None:
        seconds, succeeded, *message = reply
        self._times.record(task.name, seconds)
        try:
            value = unpack(message, self._pickler)
        except BaseException as cause:
            error = DecodeError(
                f"the result of {task.name} can't be unpickled here: "
                f"{type(cause).__name__}: {cause}",
                outcome=Outcome.DONE,
            )
            error.__cause__ = cause
            _resolve(task.future.set_exception, broken(error))
        else:
            if succeeded:
                _resolve(task.future.set_result, value)
            else:
                _resolve(task.future.set_exception, with_traceback(*value))

    def _stop(self, future: Future[Any]) -> None:
        serving = self._running.get(future)
        if serving is not None:
            serving.cancel()

    def _stop_all(self) -> None:
        if self._starting is not None:  # an initializer may take as long as it likes
            self._end(drain=False)
        for serving in set(self._running.values()):
            serving.cancel()


def _resolve(resolve: Callable[[Any], None], value: object) -> None:
    """Give a future its result or error; what its callbacks raise must not end the thread."""
    try:
        resolve(value)
    except BaseException:  # that of an Exception is logged by the future itself
        logger.warning("a future could not be resolved, or its callback left", exc_info=True)


def _renamed(error: CallTimeout, name: str) -> CallTimeout:
    details = error.details
    return CallTimeout.of(
        name,
        limit=details["limit"],
        timeout_s=details["timeout_s"],
        queued_s=details["queued_s"],
        ran_s=details["ran_s"],
    )


# --- the end of the interpreter ------------------------------------------------------------------

_FORKED: Final = (
    "this executor was made before a fork, and its workers are not those of this process; make a "
    "new one in the child"
)
# Those that have a thread. They finish what they have when the interpreter ends.
_live: set[Engine] = set()
_at_exit = False


def _finish_at_exit(engine: Engine) -> None:
    if not _live:
        atexit.unregister(_finish_all)
        # After the handlers that the program registered before its first call.
        atexit.register(_finish_all)
    _live.add(engine)


def _finish_all() -> None:
    global _at_exit  # noqa: PLW0603  # it is about the process
    _at_exit = True
    for engine in tuple(_live):
        engine.shutdown(wait=True)
