"""Blocking functions and generators in event loops.

Each call has a thread of its own while it runs: with a limited number, a few blocked functions
would starve all others, and functions that call each other through a pool would wait for one
another's threads. They are daemons, so that a function that never returns doesn't keep the program
from ending.

A thread that is through waits a moment for the next function, since to start one takes several
times as long as the way to one and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from queue import SimpleQueue
from typing import Any, Final

logger = logging.getLogger("snakepit")
_END = object()
# Seconds that a thread waits for more: so short that nobody has to wait for it to be gone.
_IDLE: Final = 0.05


async def call_in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking function in a thread that nobody else uses, with the context of the caller.

    When the caller is cancelled the thread goes on; its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function, *args, **kwargs)
        except StopIteration as error:
            # A future refuses it, because it would end whoever awaits the future.
            raised = RuntimeError(f"{function!r} raised StopIteration")
            raised.__cause__ = error
            _report(loop, _fail, future, raised)
        except BaseException as error:
            _report(loop, _fail, future, error)
        else:
            _report(loop, _succeed, future, result)

    start_thread(work)
    return await future


async def iterate_in_thread(generator: Generator[Any]) -> AsyncGenerator[Any]:
    """The items of a blocking generator, which runs in a thread of its own, one step for each.

    When the consumer leaves or is cancelled, the generator is closed as soon as it comes to its
    next item, in its thread; the consumer does not wait for that.
    """
    loop = asyncio.get_running_loop()
    wanted: SimpleQueue[asyncio.Future[Any] | None] = SimpleQueue()
    context = contextvars.copy_context()
    start_thread(lambda: context.run(_take_steps, generator, wanted, loop))
    try:
        while True:
            step: asyncio.Future[Any] = loop.create_future()
            wanted.put(step)
            item = await step
            if item is _END:
                return
            yield item
    finally:
        wanted.put(None)


def _take_steps(
    generator: Generator[Any],
    wanted: SimpleQueue[asyncio.Future[Any] | None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Take a step for each future in ``wanted``, until there is none."""
    try:
        while (step := wanted.get()) is not None:
            try:
                item = next(generator, _END)
            except BaseException as error:
                _report(loop, _fail, step, error)
            else:
                _report(loop, _succeed, step, item)
    finally:
        try:
            generator.close()
        except BaseException:
            logger.warning("%r failed while it was closed", generator, exc_info=True)


class WorkThread:
    """A thread that runs what it is given, one after the other."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        """Have it run ``work``, which raises nothing."""
        self._work.put(work)

    def end(self) -> None:
        """Let it end after what it was given."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def start_thread(work: Callable[[], None]) -> None:
    """Run ``work``, which raises nothing, in a thread that nobody else uses.

    Raises:
        RuntimeError: the system gives no more threads.
    """
    try:
        thread = _idle.pop()
    except IndexError:
        _Reused(work)
    else:
        thread.give(work)


class _Reused:
    """A thread that goes on with the next work, if that comes soon."""

    __slots__ = ("_given", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._given = threading.Lock()
        self._given.acquire()
        threading.Thread(target=self._run, name="snakepit-function", daemon=True).start()

    def give(self, work: Callable[[], None]) -> None:
        """For whoever has taken it from those that are idle."""
        self._work = work
        self._given.release()

    def _run(self) -> None:
        while work := self._work:
            work()
            work = self._work = None  # its result is not to be kept while there is nothing to do
            _idle.append(self)
            if not self._given.acquire(timeout=_IDLE):
                self._leave()

    def _leave(self) -> None:
        """Be idle no more; if it was taken in this moment, wait for what it is given."""
        try:
            _idle.remove(self)
        except ValueError:
            self._given.acquire()


_idle: deque[_Reused] = deque()
# A forked child has no threads but its own.
os.register_at_fork(after_in_child=_idle.clear)

Ended = tuple[Any, BaseException | None]
"""How a function has ended: its result, or what it raised."""


def ended_in_thread(
    put: Callable[[Callable[[], None]], None], function: Callable[..., Any], *args: Any
) -> asyncio.Future[Ended]:
    """Have a function run where ``put`` runs things, in the context of the caller.

    What it raises is a part of the future's result: some exceptions would break a future.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Ended] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function, *args)
        except BaseException as error:
            _report(loop, _succeed, ended, (None, error))
        else:
            _report(loop, _succeed, ended, (result, None))

    put(work)
    return ended


def _report(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits any more
        loop.call_soon_threadsafe(how, *args)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
