"""One event loop in one thread, for callers that have none: what synchronous faces run on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from snakepit.errors import ConfigurationError, PoolClosed, PoolStartFailed
from snakepit.loops.doorbell import Doorbell
from snakepit.loops.foreign_loops import END, Crossing, Steps

P = ParamSpec("P")
T = TypeVar("T")
# Seconds. A signal that comes just before a thread begins to wait is seen only when it has waited,
# so Ctrl-C may take this long.
_INTERRUPTIBLE = 0.5


class LoopThread:
    """An event loop that runs in a daemon thread of its own until ``stop()``.

    The thread is a daemon because the interpreter joins other threads *before* it runs the exit
    handlers, and it is such a handler that closes a forgotten owner.

    Args:
        name: the thread's name.
        owner: what the owner is called in errors, such as "client".

    Raises:
        PoolStartFailed: the system gives no more threads or descriptors.

    Example: a pool for a program without an event loop::

        with LoopThread("pool", owner="pool") as loop:
            with loop.entered(Pool(PythonAdapter("greeter:Greeter"), size=2)) as pool:
                print(loop.run(pool.execute("greet", {"name": "Ada"})))
    """

    def __init__(self, name: str, *, owner: str) -> None:
        self._owner = owner
        self._pid = os.getpid()
        # No lock guards these. A handler of a signal, or a collection of garbage, may ask for
        # anything here in the middle of anything, and it must not wait for what it interrupts.
        self._arrivals: deque[Callable[[], object]] = deque()
        self._bell: Doorbell | None = None  # none: nobody is let in
        self._leaving = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            self._loop = asyncio.new_event_loop()
            self._start()
        except (OSError, RuntimeError) as error:
            raise PoolStartFailed(
                f"the {owner} can't have an event loop of its own: {error}; let this process have "
                "more threads and open files, or have fewer of them open"
            ) from error

    def _start(self) -> None:
        try:
            self._bell = Doorbell()
            self._loop.add_reader(self._bell.fileno(), self._hear)
            self._thread.start()
        except BaseException:
            self._bell = None
            self._loop.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop and wait for its result; an interrupt of the wait cancels it.

        The context variables of the caller hold inside ``work``, so that a call made by a host
        function is known as a part of the call that it serves. What ``work`` raises is raised
        here, also when it exits: the loop goes on with that of others.

        Raises:
            ConfigurationError: called on the loop's own thread, or in a forked child; ``work`` is
                no coroutine.
            PoolClosed: the loop has stopped.
        """
        if not asyncio.iscoroutine(work):
            raise ConfigurationError(_no_coroutine(work))
        try:
            self._refuse_misuse()
        except BaseException:
            work.close()
            raise
        answer: _Answer[T] = _Answer()
        crossing = Crossing(self._call, work, answer, self._owner)
        try:
            # An interrupt may come in the middle of this, too: it is the call that is cancelled,
            # whether or not it has begun.
            crossing.begin()
            return answer.wait()
        finally:
            if not answer.is_there:
                crossing.give_up()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a plain, quick function on the loop and wait for its result: for what belongs to
        the loop and is not awaited, such as ``pool.explain``.

        Raises: as ``run``.
        """

        async def called() -> T:
            return function(*args, **kwargs)

        return self.run(called())

    @contextlib.contextmanager
    def entered(
        self, managed: contextlib.AbstractAsyncContextManager[T, bool | None]
    ) -> Iterator[T]:
        """``async with managed`` for a ``with`` block: a pool, or a session of one.

        Raises: as ``run``.
        """

        async def enter() -> T:
            return await managed.__aenter__()

        async def leave(error: BaseException | None) -> bool | None:
            if error is None:
                return await managed.__aexit__(None, None, None)
            return await managed.__aexit__(type(error), error, error.__traceback__)

        value = self.run(enter())
        try:
            yield value
        except BaseException as error:
            if not self.run(leave(error)):
                raise
        else:
            self.run(leave(None))

    def iterate(self, stream: AsyncIterator[T]) -> Generator[T]:
        """``async for`` over a stream for a ``for`` loop. One that is left early ends the stream.

        Raises: as ``run``, and what the stream raises.
        """
        steps = Steps(stream)
        try:
            while (item := self.run(steps.next())) is not END:
                yield item
        finally:
            self._end(steps)

    def _end(self, steps: Steps[Any]) -> None:
        if self.is_current:  # collected as garbage here, where it can't wait
            self.start_soon(steps.close())
        elif self.usable:
            with contextlib.suppress(PoolClosed):  # a loop that stops ends its streams
                self.run(steps.close())

    def start_soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Run ``work`` without waiting for it; for finalizers, which may run on any thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` soon on the loop, in a context of its own; from any thread. Not when the
        loop has stopped.
        """
        with contextlib.suppress(RuntimeError):
            self._call(partial(Context().run, callback))

    def stop(self) -> None:
        """Stop the loop; waits for the thread unless it is the one that calls. Idempotent."""
        if not self.usable:
            return
        with contextlib.suppress(RuntimeError):  # it has stopped, and is closed
            self._loop.call_soon_threadsafe(self._leave)
        self.join()

    def join(self) -> None:
        """Wait until the loop has stopped, unless it is the loop's own thread that calls."""
        if not self.is_current:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def usable(self) -> bool:
        """Whether this is the process that made the loop: threads do not survive a fork."""
        return os.getpid() == self._pid

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.current_thread() is self._thread

    def _refuse_misuse(self) -> None:
        if not self.usable:
            raise ConfigurationError(
                f"this {self._owner} was made before a fork and its threads are not in this "
                "process; make a new one in the child"
            )
        if self.is_current:
            raise ConfigurationError(
                f"a synchronous call from the {self._owner}'s own event loop would wait for "
                "itself; await the asynchronous one there, or call from a plain function"
            )
        if self._loop.is_closed() or not self._thread.is_alive():
            raise PoolClosed(f"the {self._owner} is closed; make a new one")

    def _call(self, callback: Callable[[], object]) -> None:
        """Have the loop call something; from any thread.

        Raises:
            RuntimeError: it has stopped.
        """
        self._arrivals.append(callback)
        bell = self._bell  # stays open as long as somebody has it
        if bell is not None:
            bell.ring()
            return
        try:
            self._arrivals.remove(callback)
        except ValueError:
            return  # it was let in at the last moment
        raise RuntimeError("the loop has stopped")

    def _hear(self) -> None:
        if self._bell is not None:  # it is taken away by this thread only
            self._bell.wait()
        self._let_in()

    def _let_in(self) -> None:
        while self._arrivals:
            callback = self._arrivals.popleft()
            try:
                callback()
            except BaseException as error:  # it must not keep those behind it from being called
                message = "a callback for an event loop failed"
                self._loop.call_exception_handler({"message": message, "exception": error})

    def _leave(self) -> None:
        self._leaving = True
        if self._bell is not None:  # else it ends its tasks, and is not to stop before it has
            self._loop.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._leaving:
                # Work that exits does so where it is waited for, and ends nobody else's.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    self._loop.run_forever()
        finally:
            bell, self._bell = self._bell, None
            if bell is not None:
                self._loop.remove_reader(bell.fileno())
            del bell
            self._finish()

    def _finish(self) -> None:
        ending = self._loop.create_task(self._end_tasks())
        try:
            while not ending.done():
                # A task that exits must not keep others from being ended.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    self._loop.run_until_complete(ending)
        finally:
            self._loop.close()

    async def _end_tasks(self) -> None:
        """Cancel what still runs, so that no other thread waits for it for ever."""
        self._let_in()  # what came before the bell was taken away is to be ended, too
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _no_coroutine(work: object) -> str:
    kind = type(work).__name__
    if isinstance(work, AsyncIterator):
        return f"run() takes a coroutine, not a stream ({kind}); iterate() is for its items"
    return f"run() takes a coroutine, not {kind}; call() calls a plain function on the loop"


class _Answer(Generic[T]):
    """How a call ended, for the one thread that waits for it. (A future of ``concurrent.futures``
    does the same for many, and takes four times as long.)
    """

    __slots__ = ("_error", "_gate", "_value", "is_there")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._value: Any = None
        self._error: BaseException | None = None
        self.is_there = False

    def set_result(self, result: T) -> None:
        self._value = result
        self._come()

    def set_exception(self, exception: BaseException) -> None:
        self._error = exception
        self._come()

    def _come(self) -> None:
        self.is_there = True
        self._gate.release()

    def wait(self) -> T:
        """Wait for it, and let interrupts through meanwhile; raise it if it is an error."""
        while not self.is_there:
            self._gate.acquire(timeout=_INTERRUPTIBLE)
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback would keep this frame, and this frame keeps it
        value: T = self._value
        return value
