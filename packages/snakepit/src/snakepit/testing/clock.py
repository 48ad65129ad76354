"""A clock that stands still until the test moves it, for the event loop and all that runs in it."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from snakepit.testing.waiting import PATIENCE

_T = TypeVar("_T")
_Events = list[tuple[selectors.SelectorKey, int]]


class ManualClock:
    """Time for tests of timeouts, retries and back-off: an hour passes when the test says so.

    Inside :meth:`run`, ``time.monotonic()`` of this process stands still, and with it asyncio's
    clock: timeouts, ``asyncio.sleep`` and the deadlines of pools. :meth:`advance` moves it on.
    Worker processes keep their own time, and so do threads that wait for something. Use it with
    :class:`~snakepit.testing.ScriptedAdapter`; with processes, wait for what they do (with gates)
    before you advance.

    Where everything waits for time to pass and nobody advances, ``run`` raises RuntimeError after
    10 real seconds instead of hanging.

    >>> from snakepit import Pool
    >>> from snakepit.errors import CallTimeout
    >>> from snakepit.testing import ManualClock, Reply, ScriptedAdapter
    >>> async def scenario(clock):
    ...     never = asyncio.Event()
    ...     async with Pool(ScriptedAdapter({"work": [Reply(after=never)]}), size=1) as pool:
    ...         call = asyncio.create_task(pool.execute("work", timeout=3600))
    ...         await clock.advance(3599)
    ...         print(call.done())
    ...         await clock.advance(1)
    ...         print(repr(call.exception())[:11])
    >>> clock = ManualClock()
    >>> clock.run(scenario(clock))
    False
    CallTimeout
    """

    def __init__(self) -> None:
        # A whole number: differences come out as the test wrote them.
        self._now = float(math.ceil(time.monotonic()))
        self._target: float | None = None
        self._reached: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<ManualClock {self._now:g}>"

    def time(self) -> float:
        """Now, in seconds, on the scale of ``time.monotonic()``."""
        return self._now

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run ``coroutine`` in an event loop of its own, as ``asyncio.run`` does, on this clock.

        Raises:
            RuntimeError: everything waits, and nobody advances the clock.
        """
        real: Callable[[], float] = time.monotonic
        # asyncio and snakepit ask this function for the time; there is no other place to set both.
        time.monotonic = self.time
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                return runner.run(coroutine)
        finally:
            time.monotonic = real

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass. Whatever becomes due on the way runs, in its order and at its time,
        before this returns.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back by {-seconds:g} s")
        if self._reached is not None:
            raise RuntimeError("the clock is being advanced by another task")
        self._target = self._now + seconds
        self._reached = asyncio.get_running_loop().create_future()
        try:
            await self._reached
        finally:
            self._target = self._reached = None

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_Selector(self))

    def _pass(self, timeout: float | None) -> bool:
        """Nothing is left to run for ``timeout`` seconds: skip them, if the test has said so."""
        if self._target is None or self._reached is None:
            return False
        if timeout is not None and self._now + timeout <= self._target:
            self._now += timeout
            return True
        self._now = self._target
        if not self._reached.done():
            self._reached.set_result(None)
        return True


class _Selector(selectors.DefaultSelector):
    """Where a loop waits when it has nothing to run."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> _Events:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0) or self._clock._pass(timeout):
            return ready
        ready = super().select(PATIENCE)
        if not ready:
            raise RuntimeError(
                f"for {PATIENCE:g} s everything has waited, and nobody has called advance(); "
                "what waits for time to pass waits for the test"
            )
        return ready
