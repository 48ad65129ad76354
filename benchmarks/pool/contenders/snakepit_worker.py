"""The class that snakepit's workers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from benchmarks.pool.commands import Commands, predict
from snakepit import command


class Worker(Commands):
    """The common commands, and a stream."""

    echo = command(Commands.echo)
    echo_async = command(Commands.echo_async)
    total = command(Commands.total)
    nap = command(Commands.nap)
    use_dspy = command(Commands.use_dspy)

    @command
    async def count(self, up_to: int) -> AsyncIterator[int]:
        """Yield numbers, giving way to the other streams after each."""
        for number in range(up_to):
            yield number
            await asyncio.sleep(0)


class DspyWorker(Worker):
    """Its template has DSPy imported, and has used it: some of it is loaded at its first use."""

    @classmethod
    def warm(cls) -> None:
        """Runs in the template, before the first fork."""
        predict(1)
