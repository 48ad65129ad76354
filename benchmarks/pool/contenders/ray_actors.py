"""Ray: one actor for each worker, on a cluster of this machine alone."""

from __future__ import annotations

import itertools
import logging
import os
from typing import Any

# Read when it is imported; a measurement tells nobody of itself.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

from benchmarks.pool.commands import Commands
from benchmarks.pool.contenders.base import BlockingPool, Contender, Setup

_OBJECT_STORE_BYTES = 2 * 10**9


class RayContender(Contender):
    """Actors that are restarted when they die; calls are dealt to them in turn."""

    runs_async = True

    async def open(self, setup: Setup) -> RayPool:
        if not ray.is_initialized():
            ray.init(
                address="local",
                num_cpus=max(2, setup.size),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
            )
        options = {"num_cpus": 0, "max_restarts": -1}
        if setup.concurrency > 1:
            options["max_concurrency"] = setup.concurrency
        actor = ray.remote(**options)(_BlockingCommands if setup.concurrency == 1 else Commands)
        return RayPool([actor.remote() for _ in range(setup.size)])

    async def close(self) -> None:
        ray.shutdown()


class _BlockingCommands:
    """An actor class with a coroutine in it is served by an event loop, so this one has none."""

    echo = Commands.echo
    total = Commands.total
    nap = Commands.nap
    use_dspy = Commands.use_dspy


class RayPool(BlockingPool):
    """Actors and their object references."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors
        self._turns = itertools.cycle(actors)

    def submit(self, command: str, argument: Any) -> Any:
        return getattr(next(self._turns), command).remote(argument)

    def result(self, handle: Any) -> Any:
        return ray.get(handle)

    async def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
