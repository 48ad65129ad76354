"""What a measure asks of a contender."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Is told of each call that ended: when it was submitted, its value or its error. True: enough.
Seen = Callable[[float, Any, BaseException | None], bool]
# A peer that refuses calls while it recovers is not asked in a busy loop.
_PAUSE_AFTER_ERROR = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A pool to be measured. ``concurrency`` is what one worker runs at a time; ``dspy``: the
    workers are going to use it, so whatever prepares them may import it."""

    size: int
    concurrency: int = 1
    dspy: bool = False


class OpenPool(ABC):
    """A running pool of a contender."""

    @abstractmethod
    async def one_by_one(
        self, command: str, argument: Any, *, seconds: float, at_least: int = 1
    ) -> list[float]:
        """Make one call after the other; return how long each took, in seconds."""

    @abstractmethod
    async def all_at_once(self, command: str, argument: Any, count: int) -> list[Any]:
        """Make so many calls at the same time; return their results."""

    @abstractmethod
    async def together(self, command: str, argument: Any, *, in_flight: int, seen: Seen) -> None:
        """Keep so many calls in flight until ``seen`` has had enough; it is told of all."""

    @abstractmethod
    async def close(self) -> None:
        """End it, and its processes."""


class Contender(ABC):
    """Something that runs calls in other processes."""

    #: Whether it runs coroutines, many at a time in one worker.
    runs_async = False

    @abstractmethod
    async def open(self, setup: Setup) -> OpenPool:
        """Start a pool; it may still be starting workers when this returns."""

    async def close(self) -> None:  # noqa: B027  # most have nothing that outlives their pools
        """End what its pools share."""


class BlockingPool(OpenPool):
    """For contenders whose interface is ``submit`` and ``result``, used as their users do."""

    @abstractmethod
    def submit(self, command: str, argument: Any) -> Any:
        """Start a call."""

    @abstractmethod
    def result(self, handle: Any) -> Any:
        """Wait for it."""

    def mend(self, error: BaseException) -> None:  # most mend themselves
        """Do what a user has to do to go on after this error."""

    async def one_by_one(
        self, command: str, argument: Any, *, seconds: float, at_least: int = 1
    ) -> list[float]:
        took: list[float] = []
        clock = time.perf_counter
        end = clock() + seconds
        while clock() < end or len(took) < at_least:
            start = clock()
            self.result(self.submit(command, argument))
            took.append(clock() - start)
        return took

    async def together(self, command: str, argument: Any, *, in_flight: int, seen: Seen) -> None:
        waiting: deque[tuple[float, Any]] = deque()
        enough = False
        while not enough:
            while len(waiting) < in_flight:
                waiting.append((time.perf_counter(), self._try_submit(command, argument)))
            enough = seen(*self._next(waiting))
        while waiting:
            seen(*self._next(waiting))

    async def all_at_once(self, command: str, argument: Any, count: int) -> list[Any]:
        handles = [self.submit(command, argument) for _ in range(count)]
        return [self.result(handle) for handle in handles]

    def _try_submit(self, command: str, argument: Any) -> Any:
        try:
            return self.submit(command, argument)
        except Exception as error:
            return error

    def _next(self, waiting: deque[tuple[float, Any]]) -> tuple[float, Any, BaseException | None]:
        submitted, handle = waiting.popleft()
        try:
            if isinstance(handle, Exception):
                raise handle
            return submitted, self.result(handle), None
        except Exception as error:
            time.sleep(_PAUSE_AFTER_ERROR)
            self.mend(error)
            return submitted, None, error


class AsyncPool(OpenPool):
    """For contenders whose calls are awaited."""

    @abstractmethod
    async def call(self, command: str, argument: Any) -> Any:
        """Make a call."""

    async def one_by_one(
        self, command: str, argument: Any, *, seconds: float, at_least: int = 1
    ) -> list[float]:
        took: list[float] = []
        clock = time.perf_counter
        end = clock() + seconds
        while clock() < end or len(took) < at_least:
            start = clock()
            await self.call(command, argument)
            took.append(clock() - start)
        return took

    async def together(self, command: str, argument: Any, *, in_flight: int, seen: Seen) -> None:
        enough = False

        async def caller() -> None:
            nonlocal enough
            while not enough:
                submitted = time.perf_counter()
                try:
                    value = await self.call(command, argument)
                except Exception as error:
                    enough = seen(submitted, None, error) or enough
                    await asyncio.sleep(_PAUSE_AFTER_ERROR)
                else:
                    enough = seen(submitted, value, None) or enough

        await asyncio.gather(*(caller() for _ in range(in_flight)))

    async def all_at_once(self, command: str, argument: Any, count: int) -> list[Any]:
        return await asyncio.gather(*(self.call(command, argument) for _ in range(count)))
