"""The commands of the conformance suite as coroutines and async generators, in Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import snakepit


class AsyncWorker:
    """As `snakepit.testing.conformance.worker.Worker`, on the worker's event loop."""

    def __init__(self, fail: str | None = None) -> None:
        if fail is not None:
            raise ValueError(fail)

    @snakepit.command
    async def echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    async def fail(self, message: str) -> None:
        raise ValueError(message)

    @snakepit.command
    async def sleep(self, seconds: float) -> float:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), seconds)
        return seconds

    @snakepit.command
    async def context(self) -> dict[str, Any]:
        call = snakepit.current_call()
        return {"session": call.session_id, "remaining": call.remaining()}

    @snakepit.command
    async def unsendable(self) -> Any:
        return object()

    @snakepit.command
    async def tell(self, name: str) -> None:
        snakepit.telemetry.execute(name, {"n": 1})

    @snakepit.command
    async def call_host(self, name: str, args: Mapping[str, Any]) -> Any:
        return await snakepit.current_call().acall_host(name, args)

    @snakepit.command
    async def host_items(self, name: str, args: Mapping[str, Any], limit: int | None) -> list[Any]:
        items: list[Any] = []
        stream: Any = snakepit.current_call().acall_host_stream(name, args)
        async with aclosing(stream) as found:
            async for item in found:
                items.append(item)
                if len(items) == limit:
                    break
        return items

    @snakepit.command
    async def count(self, n: int, pause: float) -> AsyncIterator[int]:
        for i in range(n):
            if i and pause:
                await self.sleep(pause)
            yield i

    @snakepit.command
    async def repeat(self, value: Any, n: int) -> AsyncIterator[Any]:
        for _ in range(n):
            yield value

    @snakepit.command
    async def fail_after(self, n: int, message: str) -> AsyncIterator[int]:
        for i in range(n):
            yield i
        raise ValueError(message)
