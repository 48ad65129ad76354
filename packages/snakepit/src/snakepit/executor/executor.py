"""``ProcessPoolExecutor``: what the standard one offers, in workers that are supervised."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from snakepit.calls.look_ahead import DEPTH
from snakepit.errors import ConfigurationError
from snakepit.executor.engine import Engine, Task
from snakepit.executor.errors import also
from snakepit.executor.mapping import MappingExecutor
from snakepit.executor.pickling import DEFAULT_PICKLER, Pickler, pack
from snakepit.executor.runner import run_chunk
from snakepit.executor.starting import Start, TaskAdapter, start_method
from snakepit.options import seconds
from snakepit.pool.pool import Pool
from snakepit.supervision.recycling import RecyclePolicy

P = ParamSpec("P")
T = TypeVar("T")
Timeout = float | timedelta | None
# An initializer may load for as long as it likes, as with the standard executor.
_START_TIMEOUT: Final = timedelta(days=365)
_NO_NAME: Final = (
    "workers find a function by its name, which lambdas and functions inside of functions don't "
    "have: define it at the top of its module, or send its code with "
    "ProcessPoolExecutor(pickler=cloudpickle)"
)


class ProcessPoolExecutor(MappingExecutor):
    """A ``concurrent.futures.Executor`` whose workers are supervised: use it as the standard one.

    A worker's death fails only the call it ran, and the worker is replaced: the executor goes on. A
    call's timeout stops it. Functions, arguments, results and exceptions are pickled, so that
    workers and this process have to trust one another.

    Workers start with the first call, from a template that has imported the main module. (As with
    ``multiprocessing``, what starts the work has to stand below ``if __name__ == "__main__":``.)
    They end with ``shutdown``, with the ``with`` block, when the executor is collected, or when the
    interpreter ends; calls that were submitted before are finished first. A ``with`` block that is
    left by a KeyboardInterrupt stops them instead. What workers print goes to this process's own
    stdout and stderr.

    Args:
        max_workers: number of workers; by default as many as there are processors.
        mp_context: of ``multiprocessing``. "spawn": each worker is started from scratch.
            "forkserver", or None: they are forked from the template.
        initializer, initargs: called in each worker before its first call.
        max_tasks_per_child: calls after which a worker is replaced.
        timeout: seconds each call may run, from the moment that a worker takes it, or None; see
            ``with_timeout`` for some calls only.
        pickler: the module that pickles, with ``dumps`` and ``loads`` like those of ``pickle``;
            with ``cloudpickle`` lambdas can be sent, and functions of a notebook.

    Raises:
        ConfigurationError: an argument is wrong; also a ValueError or TypeError, where the
            standard executor raises that.

    Example::

        with ProcessPoolExecutor(max_workers=4) as executor:
            print(executor.submit(pow, 2, 10).result())
            print(list(executor.map(abs, [-1, -2, -3], chunksize=2)))
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        timeout: Timeout = None,
        pickler: Pickler = DEFAULT_PICKLER,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise also(TypeError, ConfigurationError("initializer must be a callable"))
        # Programs read this name of the standard executor, though it looks private.
        self._max_workers = _count("max_workers", max_workers) or os.cpu_count() or 1
        max_calls = _count("max_tasks_per_child", max_tasks_per_child)
        # A worker must not have calls beyond its last one.
        ahead = DEPTH if max_calls is None else 0
        start = Start(initializer, initargs, _checked(pickler), start_method(mp_context))
        self._timeout = _limit(timeout)
        self._pickler = pickler
        self._engine = Engine(
            partial(_new_pool, start, self._max_workers, ahead, max_calls),
            size=self._max_workers,
            ahead=ahead,
            pickler=pickler,
        )
        finalizer = weakref.finalize(self, self._engine.shutdown, wait=False)
        finalizer.atexit = False  # then the engine ends by itself

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call ``fn(*args, **kwargs)``; the future has its result or exception.

        The call is pickled here and now; when that raises, the future has the error. It can be
        cancelled until a worker takes it. Its callbacks run in a thread of the executor, and hold
        up all other results meanwhile.

        The future's exception is the one that ``fn`` raised, with its traceback as ``__cause__``; a
        RemoteError in its place if it can't be pickled; or one of these, which all but the last two
        are instances of ``concurrent.futures.process.BrokenProcessPool`` too:

        - WorkerLost, WorkerHung, ResourceLimitExceeded: its worker died while it had the call.
        - PoolStartFailed, PoolBroken: workers can't be started; the cause says why.
        - PoolClosed: ``kill_workers`` ended it.
        - DecodeError: the call could not be unpickled in the worker, or its result here.
        - CallTimeout: its time was over.
        - PayloadTooLarge: the call or its result has more than 1 GiB.

        Raises:
            PoolClosed: after ``shutdown``; also a RuntimeError.
            PoolStartFailed, PoolBroken: workers can't be started, or this process is a fork of the
                one that made the executor; also a BrokenProcessPool.
            ConfigurationError: a worker imports the module that makes this call.
        """
        return self._submit(self._timeout, fn, args, kwargs)

    def _submit(
        self,
        timeout: float | None,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[T]:
        future: Future[T] = Future()
        name = _name_of(fn, args)
        try:
            request = pack((fn, args, kwargs), self._pickler)
        except Exception as error:
            self._engine.require_open()
            if "<" in name and self._pickler is DEFAULT_PICKLER:  # <lambda>, <locals>
                error.add_note(_NO_NAME)
            future.set_exception(error)
        else:
            self._engine.submit(Task(future, name, request, timeout))
        return future

    def with_timeout(self, timeout: Timeout) -> MappingExecutor:
        """The same executor for calls that may run that many seconds, or without limit.

        At its end a call's future has a CallTimeout, and the call is stopped: by an exception at an
        arbitrary place, and after a quarter of a second by killing its worker. For a chunk of
        ``map`` the time counts as a whole.

        Example::

            with ProcessPoolExecutor(max_workers=2) as executor:
                print(executor.with_timeout(5.0).submit(pow, 2, 10).result())
        """
        return _Limited(self, _limit(timeout))

    def stop(self, future: Future[Any]) -> None:
        """See to it that a call ends, also one that runs already, which ``future.cancel()`` does
        not; it is stopped as at the end of its time.

        Returns at once. The future's result raises CancelledError then, unless the call ended
        before.
        """
        self._engine.stop(future)

    def kill_workers(self) -> None:
        """Kill the workers at once, with the calls they run, and shut the executor down.

        Calls that wait are cancelled, the others fail with PoolClosed.
        """
        self._engine.kill()

    terminate_workers = kill_workers

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the workers when the calls that were submitted have ended.

        Args:
            wait: return only then. (Not in a future's callback, which would wait for itself.)
            cancel_futures: cancel the calls that no worker has taken.
        """
        self._engine.shutdown(wait=wait, cancel=cancel_futures)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Ctrl-C does not reach workers, and nobody wants to wait for them then.
        if isinstance(error, KeyboardInterrupt):
            self._engine.stop_all()
        super().__exit__(kind, error, traceback)


class _Limited(MappingExecutor):
    """An executor whose calls have another timeout than those of the one behind it."""

    def __init__(self, behind: ProcessPoolExecutor, timeout: float | None) -> None:
        self._behind = behind
        self._timeout = timeout

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._behind._submit(self._timeout, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._behind.shutdown(wait, cancel_futures=cancel_futures)


def _new_pool(start: Start, size: int, ahead: int, max_calls: int | None) -> Pool:
    return Pool(
        TaskAdapter(start),
        size=size,
        name="executor",
        # The engine gives it no more than that.
        queue_limit=size * (1 + ahead),
        start_timeout=_START_TIMEOUT,
        look_ahead=ahead,
        recycle=None if max_calls is None else RecyclePolicy(max_calls=max_calls, exact=True),
        # Whoever submits the same call again wants it to run again.
        quarantine_after=None,
    )


def _name_of(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    if function is run_chunk:
        function = args[0]
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int):
        raise also(TypeError, ConfigurationError(f"{name} must be an integer, not {value!r}"))
    if value <= 0:
        raise also(ValueError, ConfigurationError(f"{name} must be greater than 0, not {value}"))
    return value


def _limit(timeout: Timeout) -> float | None:
    return None if timeout is None else seconds("timeout", timeout)


def _checked(pickler: Pickler) -> Pickler:
    functions = [getattr(pickler, name, None) for name in ("dumps", "loads")]
    name = getattr(pickler, "__name__", None)
    if not all(map(callable, functions)) or sys.modules.get(str(name)) is not pickler:
        raise ConfigurationError(
            f"pickler is {pickler!r}; it has to be a module with the functions dumps and loads, "
            "which workers can import, such as cloudpickle"
        )
    return pickler
