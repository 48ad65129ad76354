"""The class that the pool's tests run in workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from fresh_commands import FreshCommands

import snakepit


class Worker(FreshCommands):
    """Commands that succeed, fail, hang, die and call back."""

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.stopped_by: str | None = None

    @snakepit.command
    def add(self, x: int, y: int = 1) -> int:
        return self.base + x + y

    @snakepit.command
    def echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    def unencodable(self) -> object:
        return object()

    @snakepit.command
    def pid(self) -> int:
        return os.getpid()

    @snakepit.command
    def fail(self, message: str) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError(message) from error

    @snakepit.command
    def leave(self, how: str) -> None:
        match how:
            case "system_exit":
                sys.exit(3)
            case "keyboard_interrupt":
                raise KeyboardInterrupt
            case "os_exit":
                os._exit(7)
            case "generator_exit":
                raise GeneratorExit

    @snakepit.command
    def die(self, number: int) -> None:
        print("last words")
        os.kill(os.getpid(), number)
        signal.pause()

    @snakepit.command
    def sleep(self, started: str, seconds: float = 60.0) -> None:
        Path(started).touch()
        time.sleep(seconds)

    @snakepit.command
    def spin(self) -> None:
        while True:
            pass

    @snakepit.command
    def hold_gil(self) -> int:
        return sum(range(10**12))

    @snakepit.command
    def stubborn(self) -> None:
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass

    @snakepit.command(interruptible=False)
    def polite(self) -> str:
        while not snakepit.current_call().cancelled:
            pass
        self.stopped_by = "cancelled"
        return "unwanted"

    @snakepit.command
    def how_stopped(self) -> str | None:
        return self.stopped_by

    @snakepit.command
    async def async_forever(self, started: str) -> None:
        try:
            # Inside: the test cancels as soon as the file is there.
            await asyncio.to_thread(Path(started).touch)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped_by = "task cancelled"
            raise

    @snakepit.command
    async def async_add(self, x: int) -> int:
        await asyncio.sleep(0)
        return self.base + x

    @snakepit.command
    def count(self, n: int, fail_at: int | None = None) -> Iterator[int]:
        try:
            for i in range(n):
                if i == fail_at:
                    raise ValueError(f"at {i}")
                yield i
        finally:
            self.stopped_by = "generator closed"

    @snakepit.command
    def count_and_die(self, n: int) -> Iterator[int]:
        yield from range(n)
        os.kill(os.getpid(), signal.SIGKILL)

    @snakepit.command
    async def async_count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @snakepit.command
    def produced(self, n: int) -> Iterator[int]:
        self.made = 0
        for i in range(n):
            self.made = i + 1
            yield i

    @snakepit.command
    def how_many_produced(self) -> int:
        return self.made

    @snakepit.command
    def remaining(self) -> float | None:
        return snakepit.current_call().remaining()

    @snakepit.command
    def context(self) -> dict[str, Any]:
        call = snakepit.current_call()
        return {"session_id": call.session_id, "command": call.command}

    @snakepit.command
    def call_host(self, name: str, args: dict[str, Any]) -> Any:
        return snakepit.current_call().call_host(name, args)

    @snakepit.command
    async def acall_host(self, name: str, args: dict[str, Any]) -> Any:
        return await snakepit.current_call().acall_host(name, args)

    @snakepit.command
    def call_host_in_own_loop(self, name: str, n: int) -> Any:
        call = snakepit.current_call()

        async def work() -> tuple[Any, list[Any]]:
            stream = call.acall_host_stream("numbers", {"n": n})
            return await call.acall_host(name, {"n": n}), [item async for item in stream]

        return asyncio.run(work())

    @snakepit.command
    def call_host_in_threads(self, name: str, count: int) -> list[Any]:
        results: list[Any] = []

        def work(number: int) -> None:
            results.append(snakepit.current_call().call_host(name, {"n": number}))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(results)

    @snakepit.command
    def host_stream(self, name: str, n: int) -> list[Any]:
        return list(snakepit.current_call().call_host_stream(name, {"n": n}))

    @snakepit.command
    async def ahost_stream(self, name: str, n: int) -> list[Any]:
        stream = snakepit.current_call().acall_host_stream(name, {"n": n})
        return [item async for item in stream]

    @snakepit.command
    def nest(self, n: int) -> int:
        if n == 0:
            return 0
        return 1 + int(snakepit.current_call().call_host("nest", {"n": n - 1}))

    @snakepit.command
    def start_grandchild(self) -> int:
        return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]).pid

    @snakepit.command
    def fork_and_hold(self) -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        return pid

    @snakepit.command
    def descriptors(self) -> dict[str, str]:
        found = {}
        for fd in Path("/proc/self/fd").iterdir():
            try:
                found[fd.name] = str(fd.readlink())
            except FileNotFoundError:
                continue  # the descriptor of the listing itself
        return found

    @snakepit.command
    def wait_at_gate(self, gate: str, note: str = "") -> str:
        from snakepit.testing import pass_gate

        pass_gate(gate, note)
        return note

    @snakepit.command
    def environment(self, names: list[str]) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in names}


class Broken:
    """Can't be constructed."""

    def __init__(self) -> None:
        print("about to fail")
        raise RuntimeError("no such device")

    @snakepit.command
    def never(self) -> None: ...


class Dies:
    """Ends its process while it is constructed."""

    def __init__(self) -> None:
        print("dying early")
        os._exit(5)

    @snakepit.command
    def never(self) -> None: ...


class Bare:
    """Has no commands."""


class Threaded(FreshCommands):
    """Its warm hook leaves a thread running, so it can't be forked."""

    @classmethod
    def warm(cls) -> None:
        threading.Thread(target=time.sleep, args=(60,), name="culprit", daemon=True).start()

    @snakepit.command
    def hello(self) -> str:
        return "hello"


class Talkative:
    """Prints what belongs to one call, and dies in another."""

    @snakepit.command
    def say(self, text: str) -> None:
        print(text)

    @snakepit.command
    def die(self, text: str) -> None:
        print(text)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
