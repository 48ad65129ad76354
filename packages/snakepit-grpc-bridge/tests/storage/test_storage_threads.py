"""The threads of a storage: what is submitted is done, once, however many there are."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from processes import until

from snakepit.loops.doorbell import Doorbell
from snakepit_grpc_bridge.errors import OutcomeUnknown, StorageUnavailable
from snakepit_grpc_bridge.storage import Schema, Storage, open_storage
from snakepit_grpc_bridge.storage.sql.dialects import SQLITE
from snakepit_grpc_bridge.storage.sql.engine import Common, Engine, Job, JobKind
from snakepit_grpc_bridge.storage.sql.threads import Threads


class Worker(Engine):
    """Calls what jobs are to do."""

    def __init__(self, at_once: int = 1) -> None:
        super().__init__(Common.of(Schema(tables=()), SQLITE, 1.0, lambda _: None))
        self.at_once = at_once
        self.batches: list[int] = []
        self.is_closed = False

    def run(self, jobs: list[Job]) -> None:
        self.batches.append(len(jobs))
        for job in jobs:
            job.value = job.work(None)

    def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def running(*engines: Worker) -> AsyncIterator[Threads]:
    threads = Threads(engines)
    threads.start(lambda _: None)
    try:
        yield threads
    finally:
        await threads.end(10)


async def do(threads: Threads, work: Callable[[object], object]) -> object:
    job = Job(JobKind.TRANSACT, work)
    threads.submit(job)
    await job
    error = job.given_up or job.error
    if error is not None:
        raise error
    return job.value


def storage_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "snakepit-storage"]


@pytest.mark.parametrize("at_once", [1, 64])
@pytest.mark.parametrize("count", [1, 2, 8])
async def test_each_job_is_done_once_and_answered(count: int, at_once: int) -> None:
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def work(number: int, _: object) -> int:
        with lock:
            done[number] += 1
        return number

    async with running(*(Worker(at_once) for _ in range(count))) as threads:

        async def caller(first: int) -> None:
            for number in range(first, first + 100):
                assert await do(threads, partial(work, number)) == number

        await asyncio.gather(*(caller(100 * each) for each in range(20)))
    assert done == Counter(range(2000))


async def test_threads_share_what_comes_at_the_same_moment() -> None:
    together = threading.Barrier(4, timeout=10)
    async with running(*(Worker() for _ in range(4))) as threads:
        for _ in range(50):  # most times all of them sleep when the four are submitted
            # Each of them goes on only when all four are at work.
            await asyncio.gather(*(do(threads, lambda _: together.wait()) for _ in range(4)))


async def test_what_waits_is_done_together() -> None:
    began, gate = threading.Event(), threading.Event()
    engine = Worker(at_once=3)

    def hold(_: object) -> None:
        began.set()
        assert gate.wait(10)

    async with running(engine) as threads:
        first = asyncio.create_task(do(threads, hold))
        await asyncio.to_thread(began.wait)
        others = [asyncio.create_task(do(threads, lambda _: None)) for _ in range(5)]
        await asyncio.sleep(0)  # they submit
        gate.set()
        await asyncio.gather(first, *others)
    assert engine.batches == [1, 3, 2]


async def test_what_was_submitted_before_the_end_is_done_and_engines_are_closed() -> None:
    engines = [Worker(), Worker()]
    async with running(*engines) as threads:
        waiting = [asyncio.create_task(do(threads, partial(_first, n))) for n in range(100)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == list(range(100))
    assert all(engine.is_closed for engine in engines)


async def test_threads_that_were_left_behind_give_their_descriptors_back_when_they_end() -> None:
    gate, left = threading.Event(), Worker()
    threads = Threads([left])
    threads.start(lambda _: None)
    waiting = asyncio.create_task(do(threads, lambda _: gate.wait(10)))
    await asyncio.sleep(0)
    await threads.end(0.01)
    with pytest.raises(OutcomeUnknown):
        await waiting
    assert not left.is_closed
    gate.set()  # the check for leaks behind each test waits for the thread and its pipes


async def test_what_a_caller_was_told_of_a_job_that_was_given_up_stays_true() -> None:
    began, gate, ended = threading.Event(), threading.Event(), threading.Event()
    done: list[object] = []

    class Late(Worker):
        def run(self, jobs: list[Job]) -> None:
            began.set()
            assert gate.wait(10)
            for job in jobs:  # as SQLite's does
                job.value = job.error = None
            super().run(jobs)
            ended.set()

    threads = Threads([Late()])
    threads.start(lambda _: None)
    callers = [
        asyncio.create_task(do(threads, lambda _: done.append("begun"))),
        asyncio.create_task(do(threads, lambda _: done.append("queued"))),
    ]
    await asyncio.to_thread(began.wait, 10)
    await threads.end(0.01)
    gate.set()
    assert ended.wait(10)  # before the callers go on
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(each) for each in told] == [OutcomeUnknown, OutcomeUnknown]
    await until(lambda: not storage_threads(), "the thread ends")
    assert done == ["begun"]


@asynccontextmanager
async def reading_storage(
    path: Path, gate: threading.Event
) -> AsyncIterator[tuple[Storage, asyncio.Task[bool]]]:
    """A storage with an open connection in each kind of thread, one of which reads until the gate
    opens.
    """
    storage = open_storage(f"sqlite:///{path}/state.db", Schema(tables=()))
    await storage.start()
    began = threading.Event()

    def hold(_: object) -> bool:
        began.set()
        return gate.wait(10)

    reading = asyncio.create_task(storage.read(hold))
    await asyncio.to_thread(began.wait, 10)
    yield storage, reading


async def test_a_task_that_closes_a_storage_and_is_cancelled_leaves_no_thread(
    tmp_path: Path,
) -> None:
    gate = threading.Event()
    async with reading_storage(tmp_path, gate) as (storage, reading):
        closing = asyncio.create_task(storage.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        gate.set()
        await storage.aclose()  # waits for what the first has begun
        assert await reading
        await until(lambda: not storage_threads(), "the threads end")


def test_a_loop_that_ends_while_a_storage_is_closed_leaves_no_thread(tmp_path: Path) -> None:
    gate = threading.Event()

    async def leave() -> None:
        async with reading_storage(tmp_path, gate) as (storage, _):
            closing = asyncio.create_task(storage.aclose())
            await asyncio.sleep(0)
            assert not closing.done()

    asyncio.run(leave())  # cancels all tasks
    others = threading.enumerate()[1:]
    gate.set()
    for thread in others:
        thread.join(10)
    assert not storage_threads()


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_a_storage_without_all_of_its_threads_is_not_opened_and_leaves_none(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    started = 0

    def start_some(thread: threading.Thread) -> None:
        nonlocal started
        if started == most:
            raise RuntimeError("can't start new thread")
        started += 1
        start(thread)

    storage = open_storage(f"sqlite:///{tmp_path}/state.db", Schema(tables=()))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_some)
        with pytest.raises(StorageUnavailable, match="can't start new thread"):
            await storage.start()
    assert started == most
    # The check for leaks behind each test looks for threads and pipes.


async def test_a_storage_for_which_there_are_no_descriptors_says_so(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/state.db", Schema(tables=()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryFile() as highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno(), hard))
        try:
            with pytest.raises(StorageUnavailable, match="Too many open files"):
                await storage.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_callback_hears_of_many_rings_once() -> None:
    bell = Doorbell()
    heard = asyncio.Event()
    times = 0

    def hear() -> None:
        nonlocal times
        bell.wait()
        times += 1
        heard.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(bell.fileno(), hear)
    for turn in range(1, 4):
        for _ in range(100_000):  # more than a pipe holds
            bell.ring()
        await heard.wait()
        heard.clear()
        assert times == turn
    loop.remove_reader(bell.fileno())
    bell.close()


def _first(number: int, _: object) -> int:
    return number
