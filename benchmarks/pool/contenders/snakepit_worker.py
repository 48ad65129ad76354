"""The class that snakepit's workers run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from benchmarks.pool.commands import Commands, Model, predict
from snakepit import Batch, command


class Worker(Commands):
    """The common commands, a stream, and a model that serves calls one by one or in batches."""

    echo = command(Commands.echo)
    echo_async = command(Commands.echo_async)
    total = command(Commands.total)
    nap = command(Commands.nap)
    use_dspy = command(Commands.use_dspy)

    @cached_property
    def _model(self) -> Model:
        return Model()

    @command
    def score(self, x: Any) -> Any:
        """The model's outputs for one row of inputs."""
        return self._model.score(x)

    @command(batch=Batch(max_size=32))
    def score_together(self, x: list[Any]) -> Any:
        """The same for as many as there are calls."""
        import numpy

        return self._model.score(numpy.stack(x))

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
