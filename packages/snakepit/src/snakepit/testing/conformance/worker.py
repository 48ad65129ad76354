"""The commands that a program under test has to offer, for workers written in Python.

Programs in other languages do the same; docs/other-languages.md has the table. Runs in a worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from snakepit import telemetry
from snakepit.worker.context import current_call
from snakepit.worker.registry import command


class Worker:
    """What the suite calls. Raises ``ValueError(fail)`` when it is constructed with ``fail``."""

    def __init__(self, fail: str | None = None) -> None:
        if fail is not None:
            raise ValueError(fail)

    @command
    def echo(self, value: Any) -> Any:
        """``value``."""
        return value

    @command
    def fail(self, message: str) -> None:
        """Raise an exception of the language with this message."""
        raise ValueError(message)

    @command
    def sleep(self, seconds: float) -> float:
        """Wait; a cancellation stops it, if the worker can stop code that waits."""
        time.sleep(seconds)
        return seconds

    @command
    def context(self) -> dict[str, Any]:
        """What is known of the call: its session and its remaining seconds."""
        call = current_call()
        return {"session": call.session_id, "remaining": call.remaining()}

    @command
    def unsendable(self) -> Any:
        """A value that can't travel."""
        return object()

    @command
    def tell(self, name: str) -> None:
        """Tell the event ``name`` with the measurement ``n``, which is 1."""
        telemetry.execute(name, {"n": 1})

    @command
    def call_host(self, name: str, args: Mapping[str, Any]) -> Any:
        """The result of a host function."""
        return current_call().call_host(name, args)

    @command
    def host_items(self, name: str, args: Mapping[str, Any], limit: int | None) -> list[Any]:
        """The items of a stream of the host; with ``limit`` the first ones, and it is left."""
        return list(islice(current_call().call_host_stream(name, args), limit))

    @command
    def count(self, n: int, pause: float) -> Iterator[int]:
        """The integers from 0 to ``n`` - 1, with ``pause`` seconds between two."""
        for i in range(n):
            if i and pause:
                time.sleep(pause)
            yield i

    @command
    def repeat(self, value: Any, n: int) -> Iterator[Any]:
        """``value``, ``n`` times."""
        for _ in range(n):
            yield value

    @command
    def fail_after(self, n: int, message: str) -> Iterator[int]:
        """The integers from 0 to ``n`` - 1; then raise as ``fail``."""
        yield from range(n)
        raise ValueError(message)
