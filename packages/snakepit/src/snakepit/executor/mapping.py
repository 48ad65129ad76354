"""``map`` of an executor, on top of its ``submit``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any, TypeVar

from snakepit.errors import ConfigurationError
from snakepit.executor.errors import also
from snakepit.executor.runner import run_chunk

T = TypeVar("T")


class MappingExecutor(Executor):
    """The part of an executor that needs no more than ``submit``."""

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of ``fn`` for the items of ``iterables``, in their order.

        Args:
            fn: takes as many arguments as there are iterables, which end with the shortest.
            timeout: seconds from now after which waiting for a result raises TimeoutError. What
                waits for a worker then is cancelled; what runs goes on.
            chunksize: items that travel in one call. More is quicker for short functions.
            buffersize: calls that are made ahead of the results that were taken; by default all
                are made at once.

        Raises:
            ConfigurationError: also as ValueError: ``chunksize`` or ``buffersize`` is less than 1.

        The iterator raises what ``fn`` raises. Leaving it cancels what has not started.
        """
        for name, value in (("chunksize", chunksize), ("buffersize", buffersize)):
            if value is not None and value < 1:
                error = ConfigurationError(f"{name} is {value}; {name} must be >= 1.")
                raise also(ValueError, error)
        end = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results((self.submit(fn, *args) for args in items), buffersize, end)
        chunks = iter(lambda: list(islice(items, chunksize)), [])
        return _flat(_results((self.submit(run_chunk, fn, c) for c in chunks), buffersize, end))


def _results(
    futures: Iterator[Future[T]], buffersize: int | None, end: float | None
) -> Iterator[T]:
    """What the futures give, in their order; the first ones are made at once."""
    waiting = deque(islice(futures, buffersize))
    return _take(waiting, futures, end)


def _take(
    waiting: deque[Future[T]], further: Iterator[Future[T]], end: float | None
) -> Iterator[T]:
    try:
        while waiting:
            yield _result(waiting.popleft(), end)
            waiting.extend(islice(further, 1))
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[T], end: float | None) -> T:
    try:
        return future.result(None if end is None else end - time.monotonic())
    finally:
        future.cancel()
        del future  # or the traceback of its error would keep it


def _flat(chunks: Iterator[list[T]]) -> Iterator[T]:
    """The items of all chunks; none is kept once it was taken."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
