"""The class whose commands produce and consume streams in workers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

from fresh_commands import FreshCommands

import snakepit
from snakepit.wire.frames import FrameType
from snakepit.wire.messages import value_frame


class Producer(FreshCommands):
    """Streams that are long, large, stuck or broken, and commands that leave the host's early."""

    def __init__(self) -> None:
        self.made_items = 0

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    async def made(self) -> int:
        return self.made_items

    @snakepit.command
    def count(self, n: int, fail_with: str | None = None) -> Iterator[int]:
        yield from range(n)
        if fail_with is not None:
            raise ERRORS[fail_with]("at the end")

    @snakepit.command
    async def acount(self, n: int, fail_with: str | None = None) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
        if fail_with is not None:
            raise ERRORS[fail_with]("at the end")

    @snakepit.command
    def blocks(self, n: int, size: int) -> Iterator[bytes]:
        self.made_items = 0
        for i in range(n):
            self.made_items += 1
            yield bytes([i]) * size

    @snakepit.command
    async def ablocks(self, n: int, size: int) -> AsyncIterator[bytes]:
        for block in self.blocks(n, size):
            yield block

    @snakepit.command
    def odd(self) -> Iterator[Any]:
        yield from (None, b"", [], (1, {"a": {2}}), "", 0, [None])

    @snakepit.command
    def unencodable(self, n: int) -> Iterator[Any]:
        yield from range(n)
        yield {"client": object()}

    @snakepit.command
    def stuck(self, log: str) -> Iterator[int]:
        try:
            yield 1
            threading.Event().wait()
        finally:
            Path(log).write_text("closed")

    @snakepit.command
    async def astuck(self, log: str) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            # Cleaning up may await: being told twice must not break it off.
            await asyncio.to_thread(Path(log).write_text, "closed")

    @snakepit.command(interruptible=False)
    def polite(self, log: str) -> Iterator[int]:
        call = snakepit.current_call()
        try:
            yield 1
            while not call.cancelled:
                pass
        finally:
            Path(log).write_text("closed")

    @snakepit.command
    def waits_for_host(self, log: str) -> Iterator[int]:
        try:
            yield 1
            snakepit.current_call().call_host("never")
        finally:
            Path(log).write_text("closed")

    @snakepit.command
    def burst(self, n: int, then: str) -> Iterator[int]:
        """Quick items, and then none for ever."""
        yield from range(n)
        match then:
            case "block":
                threading.Event().wait()
            case "spin":
                while True:
                    pass
            case _:
                snakepit.current_call().call_host("never")

    @snakepit.command
    async def aburst(self, n: int, then: str) -> AsyncIterator[int]:
        for i in self.burst(n, then) if then != "wait" else range(n):
            yield i
        await asyncio.Event().wait()

    @snakepit.command
    def overrun(self, items: int, size: int) -> Iterator[int]:
        """Send items without regard for credit; then go on like a good producer."""
        call = snakepit.current_call()
        port = call._engine._port  # type: ignore[attr-defined]
        for _ in range(items):
            port.send(value_frame(FrameType.ITEM, call.call_id, [bytes(size)]))
        yield 0

    @snakepit.command
    def after_gate(self, gates: list[str]) -> Iterator[str]:
        """An item for each named pipe, as soon as it has been opened by the host."""
        for gate in gates:
            yield Path(gate).read_text()

    @snakepit.command
    def leave_host_stream(self, name: str, take: int) -> list[int]:
        taken: list[int] = []
        with closing(snakepit.current_call().call_host_stream(name)) as items:  # type: ignore[type-var]
            for item in items:
                taken.append(item)
                if len(taken) == take:
                    break
        snakepit.current_call().call_host("left")
        return taken

    @snakepit.command
    async def aleave_host_stream(self, name: str, take: int) -> list[int]:
        taken: list[int] = []
        call = snakepit.current_call()
        async with aclosing(call.acall_host_stream(name)) as items:  # type: ignore[type-var]
            async for item in items:
                taken.append(item)
                if len(taken) == take:
                    break
        await call.acall_host("left")
        return taken

    @snakepit.command
    def take_then_fail(self, name: str) -> list[Any]:
        taken: list[Any] = []
        try:
            for item in snakepit.current_call().call_host_stream(name):
                taken.append(item)
        except LookupError as error:
            taken.append(str(error))
        return taken

    @snakepit.command
    async def sum_of_sizes(self, name: str) -> int:
        call = snakepit.current_call()
        return sum([len(item) async for item in call.acall_host_stream(name)])


ERRORS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (ValueError, StopIteration, MemoryError, asyncio.CancelledError, SystemExit)
}
