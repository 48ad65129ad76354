"""The commands that a class in a worker needs for the fresh calls of the after-check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import snakepit


class FreshCommands:
    """One command of each kind; they touch nothing of the class that inherits them."""

    @snakepit.command
    def fresh_echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    async def fresh_async_echo(self, value: Any) -> Any:
        return value

    @snakepit.command
    def fresh_count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @snakepit.command
    async def fresh_host_call(self, name: str) -> Any:
        return await snakepit.current_call().acall_host(name)
