"""A contender in its host process: its open pools, and the processors they run on."""

from __future__ import annotations

import os
from typing import Any, Final

from benchmarks.pool import machine
from benchmarks.pool.contenders.base import Contender, OpenPool, Setup

#: Host on the first processor and everything it starts on the second; all on the first; wherever
#: the kernel likes.
SPLIT: Final = "split"
ONE_CORE: Final = "one_core"
UNPINNED: Final = "unpinned"
MODES: Final = (SPLIT, ONE_CORE, UNPINNED)
SMALL: Final = b"x" * 100
_WARM_UP_CALLS = 200


class Session:
    """Pools of one contender, kept open from one turn to the next."""

    def __init__(self, contender: Contender, mode: str) -> None:
        self.contender = contender
        self.mode = mode
        self._cpus = sorted(os.sched_getaffinity(0))
        self._pools: dict[Setup, OpenPool] = {}
        if mode == ONE_CORE:
            # Before anything starts: a pool may look at how many processors it has.
            machine.pin([os.getpid()], self._cpus[:1])

    async def pool(self, setup: Setup) -> OpenPool:
        """A pool that is open, has run some calls, and is pinned."""
        if setup not in self._pools:
            # Opened where there are two processors, as in use, and pinned after.
            self.unpin()
            self._pools[setup] = await self.contender.open(setup)
            await self._warm_up(self._pools[setup], setup)
            self.place()
        return self._pools[setup]

    async def new_pool(self, setup: Setup) -> OpenPool:
        """A pool of its own for a measure that breaks or times it; the measure closes it."""
        return await self.contender.open(setup)

    async def close(self) -> None:
        """End all pools, and the contender."""
        for pool in self._pools.values():
            await pool.close()
        await self.contender.close()

    def unpin(self) -> None:
        """Let the host run on any processor, where it is to be pinned otherwise."""
        if self.mode == SPLIT:
            machine.pin([os.getpid()], self._cpus)

    def place(self) -> None:
        """Put the host and what it has started where the mode wants them."""
        if self.mode == SPLIT:
            machine.pin([os.getpid()], self._cpus[:1])
            machine.pin(machine.descendants(os.getpid()), self._cpus[1:2])

    async def _warm_up(self, pool: OpenPool, setup: Setup) -> None:
        """Start workers that start on demand, and fill caches."""
        seen = 0

        def enough(_: float, __: Any, error: BaseException | None) -> bool:
            nonlocal seen
            if error is not None:
                raise error
            seen += 1
            return seen >= _WARM_UP_CALLS

        # An odd number: workers that take turns must not be left with none.
        await pool.together("echo", SMALL, in_flight=2 * setup.size - 1, seen=enough)
