"""Work for one event loop, asked for in another thread: by a second loop, or by one that has none.

A pool belongs to the loop it was started in, and does everything there. Who calls it from another
loop of the process has the call made there, and waits for it here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from snakepit.errors import ConfigurationError, Outcome, PoolClosed

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
# Seconds. A loop tells nobody that it has stopped, so who waits for one looks at it so often.
_LOOK_EVERY: Final = 0.25
#: Comes after the last item of a stream. (StopAsyncIteration can't leave a coroutine.)
END: Final = object()


class CalledElsewhere(Exception):
    """A call is to be made in its pool's loop, ``home``, which runs in another thread. Nobody
    outside sees it.
    """

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.home = home
        #: What it is to be made with, besides its command and arguments.
        self.options: dict[str, Any] = {}


class Result(Protocol[T_contra]):
    """Where the end of a crossing is put; a future of ``concurrent.futures`` is one."""

    def set_result(self, result: T_contra) -> None: ...

    def set_exception(self, exception: BaseException) -> None: ...


class Crossing(Generic[T]):
    """One coroutine on its way to its loop, and its end on the way back; all but ``begin`` and
    ``give_up`` is for the loop's thread.

    It runs in the context of whoever makes this, so that a call made by a host function is known as
    a part of the call that it serves.

    Args:
        call: has the loop call something soon; raises RuntimeError when that is closed.
        work: the coroutine.
        result: told how it ended.
        owner: what the loop's owner is called in errors.
    """

    def __init__(
        self,
        call: Callable[[Callable[[], object]], object],
        work: Coroutine[Any, Any, T],
        result: Result[T],
        owner: str,
    ) -> None:
        self._call = call
        self._work = work
        self._result = result
        self._owner = owner
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def begin(self) -> None:
        """Have the loop start it.

        Raises:
            PoolClosed: the loop is closed.
        """
        try:
            self._call(self._start)
        except RuntimeError:
            self._work.close()
            raise loop_stopped(self._owner) from None

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        try:
            self._call(self._cancel)
        except RuntimeError:  # closed: it runs nothing any more
            if self._task is None:
                self._work.close()

    def _start(self) -> None:
        if not self._cancelled:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._work, context=self._context)
            self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is None:
            self._work.close()
        else:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[T]) -> None:
        try:
            error = task.exception()
        except asyncio.CancelledError as cancelled:
            error = self._closed() if task.cancelling() else cancelled  # which it raised by itself
        if error is None:
            self._result.set_result(task.result())
        else:
            self._result.set_exception(error)

    def _closed(self) -> PoolClosed:
        return PoolClosed(
            f"the {self._owner} was closed while this call ran", outcome=Outcome.UNKNOWN
        )


async def run_there(home: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a pool's ``work`` in its loop, and wait for it in this one. Cancelled here, it is
    cancelled there.

    Raises:
        PoolClosed: the loop has stopped, or does so meanwhile.
    """
    there: concurrent.futures.Future[T] = concurrent.futures.Future()
    # Whoever waits for it may go away, but not end it: the loop does.
    there.set_running_or_notify_cancel()
    crossing = Crossing(home.call_soon_threadsafe, work, there, "pool")
    result = asyncio.wrap_future(there)
    try:
        crossing.begin()
        while not result.done():
            await asyncio.wait([result], timeout=_LOOK_EVERY)
            if not home.is_running() and not there.done():
                raise loop_stopped("pool")
        return result.result()
    finally:
        if not result.done():
            result.cancel()
            crossing.give_up()


class Steps(Generic[T]):
    """The steps of a stream that is iterated over from another thread, one at a time: one that was
    cancelled may still be on its way out when the stream is to be closed.
    """

    def __init__(self, stream: AsyncIterator[T]) -> None:
        self._stream = stream
        self._turn = asyncio.Lock()

    async def next(self) -> Any:
        """The next item; ``END`` after the last."""
        async with self._turn:
            return await anext(self._stream, END)

    async def close(self) -> None:
        """Stop the stream."""
        close = getattr(self._stream, "aclose", None)  # iterators need not have it
        if close is not None:
            async with self._turn:
                await close()


class StreamElsewhere(Generic[T]):
    """The items of a pool's ``stream``, which runs in its loop; each is asked for by itself, so it
    is never further ahead than there. Its steps raise as :func:`run_there`.

    No generator: a loop that shuts down closes all of its generators at once, and this one would
    be closed already when the one that iterates over it comes to it.
    """

    def __init__(self, home: asyncio.AbstractEventLoop, stream: AsyncIterator[T]) -> None:
        self._home = home
        self._steps = Steps(stream)

    def __aiter__(self) -> StreamElsewhere[T]:
        return self

    async def __anext__(self) -> T:
        item = await run_there(self._home, self._steps.next())
        if item is END:
            raise StopAsyncIteration
        found: T = item
        return found

    async def aclose(self) -> None:
        """Stop the stream, unless it has ended with its loop."""
        with contextlib.suppress(PoolClosed):
            await run_there(self._home, self._steps.close())


def running_elsewhere(
    home: asyncio.AbstractEventLoop | None,
) -> asyncio.AbstractEventLoop | None:
    """``home``, if it runs and the caller is in another loop: it runs in another thread then."""
    with contextlib.suppress(RuntimeError):  # the caller is in none
        if home is not None and asyncio.get_running_loop() is not home and home.is_running():
            return home
    return None


def require_running(home: asyncio.AbstractEventLoop, owner: str) -> None:
    """Refuse what is for the loop ``home``, where another one runs, or none.

    Raises:
        ConfigurationError: this is such a place.
    """
    try:
        if asyncio.get_running_loop() is home:
            return
        told = "another event loop; use it there, or create one here"
    except RuntimeError:
        told = (
            "an event loop, and there is none here; use it there, by `LoopThread.call` or the "
            "loop's `call_soon_threadsafe`"
        )
    raise ConfigurationError(f"{owner} belongs to {told}")


def loop_stopped(owner: str) -> PoolClosed:
    """The error of whoever waits for a loop that does not go on."""
    return PoolClosed(
        f"the event loop that the {owner} belongs to has stopped; make a new {owner} in one that "
        "goes on",
        outcome=Outcome.UNKNOWN,
    )
