"""One event loop in one thread, for callers that have none: what synchronous faces run on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from snakepit.doorbell import Doorbell
from snakepit.errors import ConfigurationError, PoolClosed
from snakepit.foreign_loops import Crossing

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

    Example: a pool for a program without an event loop::

        loop = LoopThread("pool", owner="pool")
        pool = Pool(PythonAdapter("greeter:Greeter"), size=2)
        loop.run(pool.start())
        try:
            print(loop.run(pool.execute("greet", {"name": "Ada"})))
        finally:
            loop.run(pool.aclose())
            loop.stop()
    """

    def __init__(self, name: str, *, owner: str) -> None:
        self._owner = owner
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._arrivals: deque[Callable[[], object]] = deque()
        self._bell = Doorbell()
        self._loop.add_reader(self._bell.fileno(), self._hear)
        # Reentrant: a collection of garbage, which may ask for something here, happens anywhere.
        self._door = threading.RLock()
        self._is_open = True
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop and wait for its result; an interrupt of the wait cancels it.

        The context variables of the caller hold inside ``work``, so that a call made by a host
        function is known as a part of the call that it serves.

        Raises:
            ConfigurationError: called on the loop's own thread, or in a forked child.
            PoolClosed: the loop has stopped.
        """
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
        if not self.usable or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()

    def join(self) -> None:
        """Wait until the loop has stopped, unless it is the loop's own thread that calls."""
        if not self.is_current:
            self._thread.join()

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
        with self._door:
            if not self._is_open:
                raise RuntimeError("the loop has stopped")
            self._arrivals.append(callback)
            self._bell.ring()

    def _hear(self) -> None:
        self._bell.wait()
        self._let_in()

    def _let_in(self) -> None:
        while self._arrivals:
            callback = self._arrivals.popleft()
            try:
                callback()
            except Exception as error:  # it must not keep those behind it from being called
                message = "a callback for an event loop failed"
                self._loop.call_exception_handler({"message": message, "exception": error})

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with self._door:
                self._is_open = False
            self._loop.run_until_complete(self._end_tasks())
            self._loop.remove_reader(self._bell.fileno())
            self._bell.close()
            self._loop.close()

    async def _end_tasks(self) -> None:
        """Cancel what still runs, so that no other thread waits for it for ever."""
        self._let_in()  # what came before the door was shut is to be ended, too
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


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
