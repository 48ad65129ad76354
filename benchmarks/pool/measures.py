"""What is measured, on any contender. Each measure returns named figures, units in the names."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.pool import machine
from benchmarks.pool.commands import MODEL_INPUTS
from benchmarks.pool.contenders.base import OpenPool, Setup
from benchmarks.pool.gate import Gate
from benchmarks.pool.session import SMALL, Session

Figures = dict[str, float]
Measure = Callable[[Session, "Effort"], Awaitable[Figures]]

_BIG_BYTES = 100_000_000
_CLOCK_EVERY = 32
_PREDICTIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much to do in one turn."""

    seconds: float = 0.3
    in_flight: int = 64
    repeats: int = 3
    array_bytes: int = _BIG_BYTES
    streams: int = 1000
    items: int = 50
    patience: float = 20.0


async def latency(session: Session, effort: Effort) -> Figures:
    """One call of 100 bytes in flight, to one worker."""
    pool = await session.pool(Setup(size=1))
    used = _Used()
    took = sorted(await pool.one_by_one("echo", SMALL, seconds=effort.seconds))
    return {
        "latency_p50_us": 1e6 * statistics.median(took),
        "latency_p99_us": 1e6 * took[int(0.99 * (len(took) - 1))],
        **used.per_call("latency", len(took)),
    }


async def rps_sync(session: Session, effort: Effort) -> Figures:
    """Calls/s with many in flight to two workers that run one at a time each."""
    return await _throughput(session, effort, Setup(size=2), ("echo", SMALL), "rps_sync")


async def rps_async(session: Session, effort: Effort) -> Figures:
    """The same with coroutines, of which a worker runs 32 at a time."""
    setup = Setup(size=2, concurrency=32)
    return await _throughput(session, effort, setup, ("echo_async", SMALL), "rps_async")


async def batching(session: Session, effort: Effort) -> Figures:
    """Calls/s of a small numpy model in one worker: a call at a time, and 32 in a batch."""
    import numpy

    x = numpy.linspace(0.0, 1.0, MODEL_INPUTS, dtype=numpy.float32)
    setup = Setup(size=1)
    pool = await session.pool(setup)
    expected = await _once(pool, "score", x)
    if not numpy.allclose(await _once(pool, "score_together", x), expected, rtol=1e-3):
        raise AssertionError("in a batch the model says something else")
    alone = await _throughput(session, effort, setup, ("score", x), "model_rps")
    together = await _throughput(session, effort, setup, ("score_together", x), "model_batched_rps")
    gain = together["model_batched_rps"] / alone["model_rps"]
    return {**alone, **together, "batching_gain": gain}


async def _throughput(
    session: Session, effort: Effort, setup: Setup, call: tuple[str, Any], key: str
) -> Figures:
    pool = await session.pool(setup)
    done = 0
    used = _Used()
    end = used.started + effort.seconds

    def seen(_: float, __: Any, error: BaseException | None) -> bool:
        nonlocal done
        if error is not None:
            raise error
        done += 1
        return done % _CLOCK_EVERY == 0 and time.perf_counter() >= end

    await pool.together(*call, in_flight=effort.in_flight, seen=seen)
    return {key: done / used.elapsed(), **used.per_call(key, done)}


async def behind_slow(session: Session, effort: Effort) -> Figures:
    """Short calls while one of two workers runs a long one: how long the unluckiest waits."""
    pool = await session.pool(Setup(size=2))
    took: list[float] = []
    slow = asyncio.create_task(pool.all_at_once("nap", effort.seconds, 1))

    def seen(submitted: float, _: Any, error: BaseException | None) -> bool:
        if error is not None:
            raise error
        took.append(time.perf_counter() - submitted)
        return slow.done()

    await pool.together("echo", SMALL, in_flight=16, seen=seen)
    await slow
    took.sort()
    return {
        "behind_slow_worst_ms": 1e3 * took[-1],
        "behind_slow_p99_ms": 1e3 * took[int(0.99 * (len(took) - 1))],
        "behind_slow_rps": len(took) / effort.seconds,
    }


async def array_in(session: Session, effort: Effort) -> Figures:
    """An array into a worker, which adds up its elements."""
    array = _array(effort)
    pool = await session.pool(Setup(size=1))
    if await _once(pool, "total", array) != float(array.sum()):
        raise AssertionError("the worker saw other numbers")
    took = await pool.one_by_one("total", array, seconds=0, at_least=effort.repeats)
    return {"array100MB_in_ms": 1e3 * statistics.median(took)}


async def array_echo(session: Session, effort: Effort) -> Figures:
    """An array into a worker and back."""
    array = _array(effort)
    pool = await session.pool(Setup(size=1))
    if not bool(((await _once(pool, "echo", array)) == array).all()):
        raise AssertionError("another array came back")
    took = await pool.one_by_one("echo", array, seconds=0, at_least=effort.repeats)
    return {"array100MB_echo_ms": 1e3 * statistics.median(took)}


async def memcpy(session: Session, effort: Effort) -> Figures:
    """One copy of such an array inside a process, and adding it up: the two that no way of sending
    it to a worker that adds it up can do without, unless both processes share it from the first."""
    import numpy

    session.place()
    source = _array(effort)
    target = numpy.ones_like(source)
    copies, sums = [], []
    for _ in range(effort.repeats + 2):
        start = time.perf_counter()
        numpy.copyto(target, source)
        copied = time.perf_counter()
        target.sum()
        copies.append(copied - start)
        sums.append(time.perf_counter() - copied)
    return {
        "memcpy100MB_ms": 1e3 * statistics.median(copies),
        "sum100MB_ms": 1e3 * statistics.median(sums),
    }


async def recovery(session: Session, effort: Effort) -> Figures:
    """SIGKILL one of two busy workers, until two have answered after the last error."""
    pool = await session.new_pool(Setup(size=2))
    try:
        watch = _Recovery(effort.patience)
        await pool.together("nap", 0.001, in_flight=8, seen=watch.seen)
    finally:
        await pool.close()
    return watch.figures()


async def import_dspy(_session: Session, _effort: Effort) -> Figures:
    """`import dspy` in a fresh interpreter, its start not counted."""
    code = (
        "import time; start = time.perf_counter(); import dspy; print(time.perf_counter() - start)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return {"import_dspy_s": float(output)}


async def start20(session: Session, _effort: Effort) -> Figures:
    """From nothing to 20 workers that have DSPy imported and have each run a call; then what
    memory each has after 60 predictions."""
    return await _start(session, 20, weigh=True)


async def start100(session: Session, _effort: Effort) -> Figures:
    """The same with 100 workers."""
    return await _start(session, 100, weigh=False)


async def _start(session: Session, workers: int, *, weigh: bool) -> Figures:
    start = time.perf_counter()
    pool = await session.new_pool(Setup(size=workers, dspy=True))
    try:
        await _all_workers(pool, workers, predictions=0)
        figures = {f"start{workers}_dspy_s": time.perf_counter() - start}
        if weigh:
            pids = await _all_workers(pool, workers, predictions=_PREDICTIONS)
            sizes = [machine.memory_mb(pid) for pid in pids]
            figures["private_mb"] = statistics.fmean(size["private"] for size in sizes)
            figures["pss_mb"] = statistics.fmean(size["pss"] for size in sizes)
    finally:
        await pool.close()
    return figures


async def _all_workers(pool: OpenPool, workers: int, *, predictions: int) -> set[int]:
    """Have each worker run one call; none can run two, because all wait for each other."""
    with Gate(workers) as gate:
        pids = set(await pool.all_at_once("use_dspy", (gate.path, predictions), workers))
    if len(pids) != workers:
        raise AssertionError(f"{len(pids)} of {workers} workers ran a call")
    return pids


async def streams(session: Session, effort: Effort) -> Figures:
    """Many streams at the same time, from two workers."""
    pool: Any = await session.pool(Setup(size=2, concurrency=effort.streams // 2))
    used = _Used()
    first_items: list[float] = []

    async def consume() -> int:
        count = 0
        async for _ in pool.stream("count", effort.items):
            if count == 0:
                first_items.append(used.elapsed())
            count += 1
        return count

    items = sum(await asyncio.gather(*(consume() for _ in range(effort.streams))))
    if items != effort.streams * effort.items:
        raise AssertionError(f"{items} items arrived")
    return {
        "streams": float(effort.streams),
        "stream_items_per_s": items / used.elapsed(),
        "streams_all_started_ms": 1e3 * max(first_items),
        **used.per_call("stream_item", items),
    }


MEASURES: Final[dict[str, Measure]] = {
    measure.__name__: measure
    for measure in (
        latency, rps_sync, rps_async, behind_slow, batching, array_in, array_echo, memcpy,
        recovery, import_dspy, start20, start100, streams,
    )
}  # fmt: skip


class _Used:
    """Time since now, on the clock and of the processors."""

    def __init__(self) -> None:
        self._host = [os.getpid()]
        self._workers = machine.descendants(os.getpid())
        self._before = machine.cpu_time(self._host), machine.cpu_time(self._workers)
        self.started = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def per_call(self, key: str, calls: int) -> Figures:
        """Processor time a call, in us: of all processes, of the host, and in the kernel."""
        host = machine.cpu_time(self._host) - self._before[0]
        workers = machine.cpu_time(self._workers) - self._before[1]
        each = 1e6 / calls
        return {
            f"{key}_cpu_us": each * (host.total + workers.total),
            f"{key}_cpu_host_us": each * host.total,
            f"{key}_cpu_kernel_us": each * (host.system + workers.system),
        }


class _Recovery:
    """Watches calls that answer with their worker's pid, and kills a worker among them."""

    _CALLS_BEFORE = 40

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._started = time.perf_counter()
        self._calls = 0
        self._healthy: set[int] = set()
        self._victim = 0
        self._killed = 0.0
        self._recovered = 0.0
        self._lost = self._refused = 0

    def seen(self, submitted: float, pid: Any, error: BaseException | None) -> bool:
        """Note one outcome; True when all is as before."""
        now = time.perf_counter()
        self._calls += 1
        if error is not None:
            self._note_error(submitted, error)
        elif pid != self._victim:
            self._healthy.add(pid)
        if not self._killed:
            if self._calls >= self._CALLS_BEFORE and len(self._healthy) == 2:
                self._kill(pid)
        elif not self._recovered and len(self._healthy) >= 2:
            self._recovered = now
        return bool(self._recovered) or now > self._started + self._patience

    def figures(self) -> Figures:
        if not self._recovered:
            raise TimeoutError(f"no two workers answered within {self._patience:g} s")
        return {
            "recovery_ms": 1e3 * (self._recovered - self._killed),
            "calls_lost": float(self._lost),
            "calls_refused": float(self._refused),
        }

    def _kill(self, pid: int) -> None:
        self._victim = pid
        self._healthy.clear()
        self._killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)

    def _note_error(self, submitted: float, error: BaseException) -> None:
        if not self._killed:
            raise error
        if not self._recovered:
            self._healthy.clear()
        if submitted <= self._killed:
            self._lost += 1
        else:
            self._refused += 1


async def _once(pool: OpenPool, command: str, argument: Any) -> Any:
    return (await pool.all_at_once(command, argument, 1))[0]


def _array(effort: Effort) -> Any:
    import numpy

    return numpy.arange(effort.array_bytes // 8, dtype=numpy.float64)
