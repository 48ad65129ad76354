"""The class whose commands do what the worker's engines have to survive."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import snakepit


class Stubborn:
    """Commands that don't stop when they are told to, or end in unusual ways."""

    def __init__(self) -> None:
        self.left: Future[str]
        self.call_ended = threading.Event()

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    async def async_pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def next_of_nothing(self) -> Any:
        return next(iter([]))

    @snakepit.command
    async def async_exit(self, how: str) -> None:
        raise SystemExit(3) if how == "system_exit" else KeyboardInterrupt

    @snakepit.command
    async def exit_in_child_task(self) -> str:
        async def leave() -> None:
            sys.exit(3)

        await asyncio.wait([asyncio.create_task(leave())])
        return "alive"

    @snakepit.command
    async def block_loop(self, started: str) -> None:
        Path(started).touch()  # noqa: ASYNC240 - blocking is what it does
        threading.Event().wait()

    @snakepit.command
    async def refuse_to_stop(self, started: str) -> None:
        while True:
            try:
                # Inside: the test cancels as soon as the file is there.
                await asyncio.to_thread(Path(started).touch)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    @snakepit.command
    async def clean_up_slowly(self, started: str, log: str) -> None:
        try:
            await asyncio.to_thread(Path(started).touch)
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(Path(log).write_text, "cleaned up")

    @snakepit.command
    async def async_count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @snakepit.command
    def swallow_interrupt(self, how: str) -> int:
        try:
            while True:
                pass
        except BaseException as error:
            if how == "return":
                return 1
            raise ValueError("converted") from error

    @snakepit.command
    async def call_host_from_loop(self, stream: bool) -> Any:
        call = snakepit.current_call()
        if stream:
            return list(call.call_host_stream("numbers"))
        return call.call_host("answer")

    @snakepit.command
    def leave_a_thread(self) -> None:
        """The thread calls the host after this call has ended."""
        call = snakepit.current_call()
        self.call_ended.clear()
        left: Future[Any] = Future()
        self.left = left

        def work() -> None:
            self.call_ended.wait()
            try:
                left.set_result(str(call.call_host("answer")))
            except BaseException as error:
                left.set_result(type(error).__name__)

        threading.Thread(target=work, daemon=True).start()

    @snakepit.command
    def what_the_thread_got(self) -> str:
        self.call_ended.set()
        return self.left.result()

    @snakepit.command
    def call_host_in_threads(self, threads: int, calls: int) -> int:
        """The sum of ``calls`` answers in each of ``threads`` threads that start together."""
        call = snakepit.current_call()
        start = threading.Barrier(threads)
        sums: list[int] = []

        def work() -> None:
            start.wait()
            sums.append(sum(call.call_host("answer") for _ in range(calls)))

        own = [threading.Thread(target=work) for _ in range(threads)]
        for thread in own:
            thread.start()
        for thread in own:
            thread.join()
        return sum(sums)
