"""One event loop in one thread, for callers that have none: what synchronous faces run on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

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
        crossing = Crossing(self._loop, work, self._owner)
        try:
            # An interrupt may come in the middle of this, too: it is the call that is cancelled,
            # whether or not it has begun.
            crossing.begin()
            return _outcome(crossing.result)
        finally:
            if not crossing.result.done():
                crossing.give_up()

    def start_soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Run ``work`` without waiting for it; for finalizers, which may run on any thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` in the loop's next turn, in a context of its own; from any thread. Not
        when the loop has stopped.
        """
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, context=Context())

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

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end_tasks())
            self._loop.close()

    async def _end_tasks(self) -> None:
        """Cancel what still runs, so that no other thread waits for it for ever."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _outcome(result: concurrent.futures.Future[T]) -> T:
    """Wait for a result, and let interrupts through meanwhile."""
    while not result.done():
        with contextlib.suppress(TimeoutError):
            return result.result(_INTERRUPTIBLE)
    return result.result()
