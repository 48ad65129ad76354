"""Blocking functions and generators in event loops.

Each call has a thread of its own: with a limited number, a few blocked functions would starve all
others, and functions that call each other through a pool would wait for one another's threads. They
are daemons, so that a function that never returns doesn't keep the program from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from queue import SimpleQueue
from typing import Any

logger = logging.getLogger("snakepit")
_END = object()


async def call_in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking function in a new thread, with the context of the caller.

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

    threading.Thread(target=work, name="snakepit-host-function", daemon=True).start()
    return await future


async def iterate_in_thread(generator: Generator[Any]) -> AsyncGenerator[Any]:
    """The items of a blocking generator, which runs in a thread of its own, one step for each.

    When the consumer leaves or is cancelled, the generator is closed as soon as it comes to its
    next item, in its thread; the consumer does not wait for that.
    """
    loop = asyncio.get_running_loop()
    wanted: SimpleQueue[asyncio.Future[Any] | None] = SimpleQueue()
    context = contextvars.copy_context()
    threading.Thread(
        target=context.run,
        args=(_take_steps, generator, wanted, loop),
        name="snakepit-host-function",
        daemon=True,
    ).start()
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
    """Run ``work``, which raises nothing, in a thread of its own."""
    threading.Thread(target=work, name="snakepit-call", daemon=True).start()


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
    if not loop.is_closed():
        loop.call_soon_threadsafe(how, *args)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
