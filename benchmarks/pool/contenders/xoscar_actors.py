"""xoscar: one actor in each process of an actor pool."""

from __future__ import annotations

import itertools
from typing import Any

import xoscar

from benchmarks.pool.commands import Commands
from benchmarks.pool.contenders.base import AsyncPool, Contender, Setup


class CommandActor(xoscar.Actor, Commands):  # type: ignore[misc]  # xoscar has no types
    """The common commands; an actor runs one blocking method at a time."""


class XoscarContender(Contender):
    """Actors; calls are dealt to them in turn."""

    runs_async = True

    async def open(self, setup: Setup) -> XoscarPool:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=setup.size)
        actors = [
            await xoscar.create_actor(
                CommandActor,
                address=pool.external_address,
                uid=f"commands-{index}",
                allocate_strategy=xoscar.allocate_strategy.ProcessIndex(index + 1),
            )
            for index in range(setup.size)
        ]
        return XoscarPool(pool, actors)


class XoscarPool(AsyncPool):
    """An actor pool."""

    def __init__(self, pool: Any, actors: list[Any]) -> None:
        self._pool = pool
        self._turns = itertools.cycle(actors)

    async def call(self, command: str, argument: Any) -> Any:
        return await getattr(next(self._turns), command)(argument)

    async def close(self) -> None:
        await self._pool.stop()
