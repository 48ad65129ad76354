"""What has to be true after every fault (the after-check), and a pool that looks by itself."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, ClassVar

from process_table import pids_of, processes, strangers

from snakepit import Adapter, HostCall, Pool, PoolStats
from snakepit.testing import until

# How long the system may take to settle.
SETTLE = 10.0


async def answer(call: HostCall) -> int:
    """The host function of the fresh call of that kind."""
    return 42


class CheckedPool(Pool):
    """A pool on which the after-check runs when a test leaves it without an error.

    The class in its workers is a ``FreshCommands``. If the fault was to end the pool, a new one of
    its adapter has to serve.
    """

    _open: ClassVar[list[CheckedPool]] = []

    def __init__(
        self, adapter: Adapter, *, host_functions: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        functions = {"answer": answer, **(host_functions or {})}
        super().__init__(adapter, host_functions=functions, **options)
        self._adapter = adapter

    async def __aenter__(self) -> CheckedPool:
        await super().__aenter__()
        await self.await_ready(SETTLE)
        self._open.append(self)
        self._size = self.stats().size
        self._before = Baseline.take()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                await self._check()
        finally:
            self._open.remove(self)
            await super().__aexit__(exc_type, exc, traceback)

    async def _check(self) -> None:
        if self.health().live:
            if self.stats().size != self._size:
                self.resize(self._size)
            await after_check(self, self._before, *(pool for pool in self._open if pool != self))
        else:
            assert_accounted(self.stats())
            await assert_serves(self._adapter)


async def assert_serves(adapter: Adapter, **options: Any) -> None:
    """A new pool of an adapter does all that it should; for what has ended the one before."""
    async with CheckedPool(adapter, **{"size": 1, **options}):
        pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What this process holds while a pool is at rest."""

    descriptors: int
    threads: int
    tasks: int

    @classmethod
    def take(cls) -> Baseline:
        # Threads that only the tests' own waiting uses are not the pool's.
        threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
        return cls(
            descriptors=sum(not _is_segment(name) for name in os.listdir("/proc/self/fd")),
            threads=len(threads),
            tasks=len(asyncio.all_tasks()),
        )

    def excess(self) -> dict[str, tuple[int, int]]:
        """What there is more of now, with both figures."""
        now = Baseline.take()
        names = [field.name for field in fields(self)]
        figures = {name: (getattr(self, name), getattr(now, name)) for name in names}
        return {name: pair for name, pair in figures.items() if pair[1] > pair[0]}


def _is_segment(descriptor: str) -> bool:
    """Whether it is shared memory, of which some is kept while a pool lives; what is left of it
    after that is the business of a fixture.
    """
    try:
        return "memfd:" in os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # closed since it was listed, as that of the listing is
        return False


async def after_check(pool: Pool, before: Baseline, *others: Pool) -> None:
    """Accounting, processes, descriptors, threads, tasks, leftovers, life; in that order.

    (Silence on stderr is the business of a fixture, and what is left when the pool is closed that
    of another.) ``others`` are pools of the same loop, which share the keeper.
    """
    await until(
        lambda: not gauges(pool.stats()), f"all gauges are zero: {gauges(pool.stats())}", SETTLE
    )
    await until_full(pool)
    assert_accounted(pool.stats())
    await until(
        lambda: not strangers(pool, *others), "only the pool's own processes are left", SETTLE
    )
    await until(lambda: not before.excess(), f"back at the baseline: {before.excess()}", SETTLE)
    await fresh_calls(pool)


async def until_full(pool: Pool) -> None:
    """Wait until all workers are ready, none is leaving, and none is dead without its knowledge."""

    def full() -> bool:
        infos = [info for info in pool.workers() if not info.spare]
        if len(infos) != pool.stats().size or any(info.leaving for info in infos):
            return False
        table = processes()
        return all(pid in table and table[pid].state not in "ZX" for pid in pids_of(pool))

    await until(full, f"the pool is at its size again: {pool!r}", SETTLE)


def gauges(stats: PoolStats) -> dict[str, int]:
    """Those that are zero while no call is open, if they are not."""
    figures = {"queued": stats.queued, "running": stats.running, "stopping": stats.stopping}
    return {name: value for name, value in figures.items() if value}


def assert_accounted(stats: PoolStats) -> None:
    """Every submitted call has ended, and is counted once."""
    assert not gauges(stats), stats
    ended = stats.succeeded + stats.failed + stats.timed_out + stats.cancelled
    assert stats.submitted == ended, stats


async def fresh_calls(pool: Pool) -> None:
    """One call of each kind."""
    one = {"value": 1}
    assert await pool.execute("fresh_echo", one, timeout=SETTLE) == 1
    assert await pool.execute("fresh_async_echo", one, timeout=SETTLE) == 1
    items = pool.execute_stream("fresh_count", {"n": 40}, timeout=SETTLE)
    assert [item async for item in items] == [*range(40)]
    async with pool.session() as session:
        assert await session.execute("fresh_echo", {"value": b"x"}, timeout=SETTLE) == b"x"
    assert await pool.execute("fresh_host_call", {"name": "answer"}, timeout=SETTLE) == 42
