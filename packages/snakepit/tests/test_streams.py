"""Streams of real workers, in both profiles: pace, order, ends, early ends, and limits."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from after_check import CheckedPool
from processes import send_signal, until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import (
    EncodeError,
    Outcome,
    ProtocolError,
    RemoteError,
    StreamBroken,
    WorkerLost,
)
from snakepit.wire.credit import WINDOW

BOTH_PROFILES = pytest.mark.parametrize("concurrency", [1, 4])
SYNC_AND_ASYNC = pytest.mark.parametrize("prefix", ["", "a"])
LARGE = 2 * WINDOW.bytes


def new_pool(**options: Any) -> Pool:
    return CheckedPool(
        PythonAdapter("stream_worker:Producer"), **{"size": 1, "name": "s", **options}
    )


async def settled(pool: Pool) -> None:
    await until(lambda: pool.stats().running + pool.stats().stopping == 0, "the worker confirms")


async def all_of(stream: AsyncIterator[Any], into: list[Any] | None = None) -> list[Any]:
    """The items that are left; those before an error are in ``into``."""
    items: list[Any] = [] if into is None else into
    async for item in stream:
        items.append(item)
    return items


# --- pace ----------------------------------------------------------------------------------------


@BOTH_PROFILES
@SYNC_AND_ASYNC
async def test_69_large_items_pass_one_by_one(prefix: str, concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        async with aclosing(pool.execute_stream(f"{prefix}blocks", {"n": 40, "size": LARGE})) as s:
            assert await anext(s) == bytes(LARGE)
            if concurrency > 1:
                # The first is with the consumer, so the second waits for credit.
                for _ in range(100):
                    assert await pool.execute("made", timeout=5) <= 2
            rest = [item[0] async for item in s]
        assert rest == list(range(1, 40))


@SYNC_AND_ASYNC
async def test_69_a_consumer_that_does_not_read_delays_nobody_else(prefix: str) -> None:
    async with new_pool(concurrency=4) as pool:
        args = {"n": 30, "size": WINDOW.bytes // 8}
        async with aclosing(pool.execute_stream(f"{prefix}blocks", args)) as slow:
            await anext(slow)
            for command in ("count", "acount"):
                items = await all_of(pool.execute_stream(command, {"n": 1000}, timeout=10))
                assert items == list(range(1000))
            assert await pool.execute("made", timeout=5) < 20
            assert [item[0] async for item in slow] == list(range(1, 30))


@BOTH_PROFILES
@SYNC_AND_ASYNC
async def test_73_the_end_comes_after_the_items_of_a_window(prefix: str, concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        for n in (0, 1, WINDOW.items, WINDOW.items + 1):
            for fail_with in (None, "ValueError"):
                args = {"n": n, "fail_with": fail_with}
                stream = pool.execute_stream(f"{prefix}count", args)
                items = [await anext(stream)] if n else []
                if 0 < n <= WINDOW.items:
                    # The end needs no credit: the call ends while its consumer is still at the
                    # first item.
                    await settled(pool)
                if fail_with is None:
                    items += await all_of(stream)
                else:
                    with pytest.raises(ValueError, match="at the end"):
                        await all_of(stream, items)
                assert items == list(range(n)), args
                assert pool.stats().running == 0, args


async def test_74_odd_items_arrive_as_they_were_yielded() -> None:
    async with new_pool() as pool:
        odd = [None, b"", [], (1, {"a": {2}}), "", 0, [None]]
        assert await all_of(pool.execute_stream("odd")) == odd


@BOTH_PROFILES
async def test_74_items_of_all_sizes_arrive_in_order(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        for size in (1, 1000, WINDOW.bytes - 10, WINDOW.bytes + 10, 10 * WINDOW.bytes):
            items = await all_of(pool.execute_stream("blocks", {"n": 6, "size": size}))
            assert items == [bytes([i]) * size for i in range(6)]


@BOTH_PROFILES
@SYNC_AND_ASYNC
@pytest.mark.parametrize("then", ["block", "spin", "wait"])
async def test_no_item_waits_for_the_next_one(then: str, prefix: str, concurrency: int) -> None:
    async def never(call: HostCall) -> None:
        await asyncio.Event().wait()

    n = WINDOW.items - 3
    async with new_pool(concurrency=concurrency, host_functions={"never": never}) as pool:
        stream = pool.execute_stream(f"{prefix}burst", {"n": n, "then": then}, timeout=20)
        assert [await anext(stream) for _ in range(n)] == list(range(n))
        await stream.aclose()


@pytest.mark.timeout(180)  # six hundred thousand items take a busy machine the better part of that
async def test_42_a_thousand_streams_at_once() -> None:
    async with new_pool(size=2, concurrency=500, queue_limit=0) as pool:
        streams = [pool.execute_stream("acount", {"n": 100 + i}) for i in range(1000)]
        results = await asyncio.gather(*(all_of(stream) for stream in streams))
        assert results == [list(range(100 + i)) for i in range(1000)]
        assert pool.stats().succeeded == 1000


# --- errors --------------------------------------------------------------------------------------


@BOTH_PROFILES
@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("raised", "remote_type"),
    [
        ("ValueError", "ValueError"),
        ("StopIteration", "RuntimeError"),
        ("MemoryError", "MemoryError"),
        ("CancelledError", "CancelledError"),
        ("SystemExit", "SystemExit"),
    ],
)
async def test_71_exactly_the_items_before_an_error_arrive(
    raised: str, remote_type: str, prefix: str, concurrency: int
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        stream = pool.execute_stream(f"{prefix}count", {"n": 3, "fail_with": raised}, timeout=5)
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RemoteError) as caught:
            await anext(stream)
        assert (caught.value.remote_type or "").rpartition(".")[2] == remote_type
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        # Only a worker without memory is suspect.
        stays = raised != "MemoryError"
        assert (await pool.execute("pid", timeout=5) == before) is stays


@BOTH_PROFILES
async def test_71_an_item_that_can_not_travel_is_an_error_after_the_others(
    concurrency: int,
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        stream = pool.execute_stream("unencodable", {"n": 3})
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(EncodeError, match="client"):
            await anext(stream)
        assert await all_of(pool.execute_stream("count", {"n": 3})) == [0, 1, 2]


@BOTH_PROFILES
@SYNC_AND_ASYNC
@pytest.mark.parametrize("idempotent", [False, True])
async def test_1_a_dead_worker_breaks_its_stream_and_says_how_much_came(
    idempotent: bool, prefix: str, concurrency: int
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        args = {"n": 10**9}
        stream = pool.execute_stream(f"{prefix}count", args, idempotent=idempotent)
        items = [await anext(stream)]
        send_signal(pool.workers()[0], signal.SIGKILL)
        with pytest.raises(StreamBroken) as caught:
            await all_of(stream, items)
        error = caught.value
        assert items == list(range(error.delivered or 0))
        assert (error.outcome, error.retryable) == (Outcome.UNKNOWN, idempotent)
        assert isinstance(error.__cause__, WorkerLost)
        assert error.__cause__.signal == "SIGKILL"


async def test_1_a_worker_that_dies_in_the_middle_of_an_item_breaks_its_stream() -> None:
    async with new_pool() as pool:
        stream = pool.execute_stream("blocks", {"n": 100, "size": 32 * WINDOW.bytes})
        items = [await anext(stream)]
        # The next item is far larger than the socket: while nobody reads, it can't be sent wholly.
        second = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        send_signal(pool.workers()[0], signal.SIGKILL)
        await asyncio.wait([second])
        with pytest.raises(StreamBroken) as caught:
            items.append(await second)
        assert caught.value.delivered == len(items) == 1


@BOTH_PROFILES
@pytest.mark.parametrize(
    ("items", "size", "delivered"),
    [(WINDOW.items + 1, 1, WINDOW.items), (3, WINDOW.bytes // 2 + 1, 2), (2, LARGE, 1)],
)
async def test_77_a_worker_that_overruns_its_credit_breaks_that_stream_only(
    items: int, size: int, delivered: int, concurrency: int
) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        before = await pool.execute("pid")
        other = pool.execute_stream("acount", {"n": 500}) if concurrency > 1 else None
        received = [await anext(other)] if other else []
        stream = pool.execute_stream("overrun", {"items": items, "size": size}, timeout=10)
        got: list[bytes] = []
        # The consumer asks for no more until all of it has arrived.
        got.append(await anext(stream))
        await until(lambda: pool.stats().running == (other is not None), "it is stopped")
        with pytest.raises(ProtocolError, match="were granted"):
            await all_of(stream, got)
        assert [len(item) for item in got] == [size] * delivered
        if other:
            assert received + await all_of(other) == list(range(500))
        assert await pool.execute("pid", timeout=10) == before


# --- leaving early -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "concurrency", "kept"),
    [
        pytest.param("stuck", 1, False, id="broken off: the worker is replaced"),
        pytest.param("astuck", 1, True, id="a cancelled task"),
        pytest.param("astuck", 4, True, id="a cancelled task among others"),
        pytest.param("polite", 1, True, id="code that looks for itself"),
        pytest.param("polite", 4, True, id="code that looks for itself, in a thread"),
        pytest.param("waits_for_host", 1, True, id="waiting for the host"),
        pytest.param("waits_for_host", 4, True, id="waiting for the host, in a thread"),
    ],
)
async def test_70_leaving_a_stream_stops_a_producer_that_is_busy_and_runs_its_finally(
    command: str, concurrency: int, kept: bool, tmp_path: Path
) -> None:
    async def never(call: HostCall) -> None:
        await asyncio.Event().wait()

    log = tmp_path / "log"
    functions = {"never": never}
    async with new_pool(
        concurrency=concurrency, cancel_grace=4.0, host_functions=functions
    ) as pool:
        before = await pool.execute("pid")
        async with aclosing(pool.execute_stream(command, {"log": str(log)})) as stream:
            assert await anext(stream) == 1
            asking = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        await until(log.exists, "the producer's finally has run")
        await settled(pool)
        assert (await pool.execute("pid", timeout=10) == before) == kept
        assert pool.stats().cancelled == 1


@BOTH_PROFILES
@pytest.mark.parametrize("how", ["break", "exception", "cancel", "collect", "aclose"])
async def test_70_an_abandoned_iterator_stops_its_producer(how: str, concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        stream = pool.execute_stream("count", {"n": 10**9})

        async def consume(stream: AsyncIterator[int]) -> None:
            async for item in stream:
                if item == 100:
                    match how:
                        case "break":
                            break
                        case "exception":
                            raise ConnectionError
                        case "cancel":
                            await asyncio.Event().wait()
                        case _:
                            return

        consumer = asyncio.create_task(consume(stream))
        if how == "cancel":
            await until(lambda: pool.stats().running == 1, "the stream runs")
            consumer.cancel()
        await asyncio.wait([consumer])
        assert consumer.cancelled() or consumer.exception() is None or how == "exception"
        if how == "aclose":
            await stream.aclose()
        del stream, consumer
        gc.collect()
        await settled(pool)
        assert pool.stats().cancelled == 1
        assert await pool.execute("pid", timeout=5)


async def test_70_a_stream_that_is_never_iterated_holds_nothing() -> None:
    async with new_pool() as pool:
        unused = pool.execute_stream("count", {"n": 10})
        assert pool.stats().submitted == 0
        await unused.aclose()
        assert pool.stats().submitted == 0


# --- the host's streams --------------------------------------------------------------------------


class HostProducers:
    """Host functions that stream, and what became of them."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.left = asyncio.Event()
        self.made = 0
        self._loop = asyncio.get_running_loop()

    def functions(self) -> dict[str, Any]:
        names = ("endless", "aendless", "astuck", "afail", "fail", "blocks")
        functions = {name: getattr(self, name) for name in names}
        return {**functions, "left": self.note_left}

    async def note_left(self, call: HostCall) -> None:
        self.left.set()

    def endless(self, call: HostCall) -> Iterator[int]:
        try:
            while True:
                yield self.made
                self.made += 1
        finally:
            self._loop.call_soon_threadsafe(self.closed.set)

    async def aendless(self, call: HostCall) -> AsyncIterator[int]:
        try:
            while True:
                yield self.made
                self.made += 1
        finally:
            self.closed.set()

    async def astuck(self, call: HostCall) -> AsyncIterator[int]:
        try:
            yield 0
            self.made = 1
            yield 1
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    def fail(self, call: HostCall) -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    async def afail(self, call: HostCall) -> AsyncIterator[int]:
        for i in range(3):
            yield i
        raise LookupError("no more")

    async def blocks(self, call: HostCall) -> AsyncIterator[bytes]:
        for _ in range(20):
            self.made += 1
            yield bytes(LARGE)


@BOTH_PROFILES
@SYNC_AND_ASYNC
@pytest.mark.parametrize("name", ["endless", "aendless", "astuck"])
async def test_70_a_command_that_leaves_a_host_stream_stops_its_producer(
    name: str, prefix: str, concurrency: int
) -> None:
    host = HostProducers()
    async with new_pool(concurrency=concurrency, host_functions=host.functions()) as pool:
        args = {"name": name, "take": 2}
        assert await pool.execute(f"{prefix}leave_host_stream", args, timeout=10) == [0, 1]
        assert host.left.is_set()
        await asyncio.wait_for(host.closed.wait(), 10)
        assert host.made <= 2 + WINDOW.items


@BOTH_PROFILES
@pytest.mark.parametrize("name", ["endless", "aendless", "astuck"])
async def test_1_a_dead_worker_stops_the_host_streams_it_took(name: str, concurrency: int) -> None:
    host = HostProducers()
    async with new_pool(concurrency=concurrency, host_functions=host.functions()) as pool:
        args = {"name": name, "take": 10**9}
        call = asyncio.create_task(pool.execute("leave_host_stream", args))
        await until(lambda: host.made > 0, "the stream runs")
        send_signal(pool.workers()[0], signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await call
        await asyncio.wait_for(host.closed.wait(), 10)


@BOTH_PROFILES
@pytest.mark.parametrize("name", ["fail", "afail"])
async def test_71_an_error_of_a_host_stream_arrives_after_its_items(
    name: str, concurrency: int
) -> None:
    functions = HostProducers().functions()
    async with new_pool(concurrency=concurrency, host_functions=functions) as pool:
        assert await pool.execute("take_then_fail", {"name": name}) == [0, 1, 2, "no more"]


@BOTH_PROFILES
async def test_69_large_items_of_the_host_pass_one_by_one(concurrency: int) -> None:
    host = HostProducers()
    async with new_pool(concurrency=concurrency, host_functions=host.functions()) as pool:
        assert await pool.execute("sum_of_sizes", {"name": "blocks"}, timeout=20) == 20 * LARGE


# --- sessions ------------------------------------------------------------------------------------


async def test_a_stream_stays_with_its_sessions_worker() -> None:
    async with new_pool(size=2) as pool:
        await pool.execute("pid", session_id="a")
        home = pool.worker_of_session("a")
        stream = pool.execute_stream("count", {"n": 100}, session_id="a", affinity="strict_queue")
        await anext(stream)
        busy = {info.worker_id for info in pool.workers() if info.in_flight}
        assert busy == {home}
        await stream.aclose()
