"""Blocking generators in event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

_END = object()


async def iterate_in_threads(generator: Generator[Any]) -> AsyncGenerator[Any]:
    """The items of a blocking generator; each of its steps runs in a thread."""
    try:
        while (item := await asyncio.to_thread(next, generator, _END)) is not _END:
            yield item
    finally:
        await asyncio.to_thread(generator.close)
