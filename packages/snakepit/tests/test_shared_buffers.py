"""Large buffers between a pool and real workers: copied once, never changed under a view."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from after_check import CheckedPool
from processes import until

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.errors import EncodeError, WorkerLost
from snakepit.link import control
from snakepit.wire import features, segments
from snakepit.wire.segments import SEGMENT_THRESHOLD

LARGE = SEGMENT_THRESHOLD // 8  # in elements of 8 bytes
MEGABYTE = 1 << 20


def new_pool(**options: Any) -> Pool:
    # With threads of its own numpy could not be forked.
    adapter = PythonAdapter("buffer_worker:Buffers", env={"OPENBLAS_NUM_THREADS": "1"})
    return CheckedPool(adapter, **{"size": 1, **options})


def shared_bytes(pool: Pool) -> int:
    return sum(info.shared_memory_bytes for info in pool.workers())


def own_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:snakepit-segment")


async def assert_reused(pool: Pool, call: Callable[[], Awaitable[Any]]) -> None:
    """Fail unless ``call`` comes to use the segments there are, again and again.

    Not at once: a release may be overtaken by the next call, which then takes another segment.
    """
    before, calls_in_a_row = shared_bytes(pool), 0
    for _ in range(200):
        await call()
        calls_in_a_row = calls_in_a_row + 1 if shared_bytes(pool) == before else 0
        before = shared_bytes(pool)
        if calls_in_a_row == 10:
            return
    pytest.fail(f"{before} bytes of shared memory and growing")


async def test_a_large_array_arrives_in_shared_memory_read_only_in_both_directions() -> None:
    async with new_pool() as pool:
        array = np.arange(LARGE, dtype="f8")
        assert shared_bytes(pool) == 0
        assert await pool.execute("described", {"array": array}) == (False, array.sum(), True)
        assert shared_bytes(pool) == MEGABYTE
        echoed = await pool.execute("echo", {"value": {"deep": [array]}})
        assert shared_bytes(pool) == 2 * MEGABYTE
        (again,) = echoed["deep"]
        np.testing.assert_array_equal(again, array)
        assert not again.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            again.flags.writeable = True
        assert "WRITEABLE" in await pool.execute("write", {"array": array})


async def test_what_is_below_the_threshold_travels_in_the_frame() -> None:
    async with new_pool() as pool:
        array = np.arange(LARGE - 1, dtype="f8")
        np.testing.assert_array_equal(await pool.execute("echo", {"value": array}), array)
        data = bytes(SEGMENT_THRESHOLD - 1)
        assert await pool.execute("echo", {"value": data}) == data
        assert shared_bytes(pool) == 0


ODD = {
    "not contiguous": np.arange(4 * LARGE, dtype="f8")[::2],
    "reversed": np.arange(LARGE, dtype="f8")[::-1],
    "column order": np.asfortranarray(np.arange(LARGE, dtype="f8").reshape(-1, 8)),
    "three dimensions, permuted": np.arange(LARGE, dtype="f8").reshape(4, 8, -1).transpose(2, 0, 1),
    "big-endian": np.arange(LARGE, dtype=">i8"),
    "dates": np.arange(LARGE).astype("M8[ns]"),
    "text": np.full(LARGE, "né", dtype="U2"),
    "booleans": np.arange(8 * LARGE) % 3 == 0,
    "broadcast": np.broadcast_to(np.float64(3), (LARGE,)),
    "read-only": np.frombuffer(bytes(range(256)) * (LARGE // 32), "u1"),
    "structured": np.ones(LARGE, np.dtype([("a", "i1"), ("b", ">f8")], align=True)),
    "structured, not contiguous": np.ones((LARGE, 2), [("a", "i2"), ("b", "U3")])[:, 1],
    "complex": np.arange(LARGE) * (1 + 2j),
}


@pytest.mark.parametrize("array", ODD.values(), ids=list(ODD))
async def test_87_odd_arrays_arrive_exactly(array: Any) -> None:
    async with new_pool() as pool:
        again = await pool.execute("echo", {"value": array})
        assert shared_bytes(pool) > 0
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes()
        assert again.flags.aligned


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_large_bytes_arrive_as_bytes_and_keep_no_memory(kind: Any) -> None:
    data = os.urandom(SEGMENT_THRESHOLD)
    async with new_pool() as pool:
        for value in (kind(data), [{"deep": (kind(data), 1)}]):
            again = await pool.execute("echo", {"value": value})
            found = again if isinstance(again, bytes) else again[0]["deep"][0]
            assert type(found) is bytes
            assert found == data
        await assert_reused(pool, lambda: pool.execute("echo", {"value": data}))


async def test_segments_are_reused_as_soon_as_nobody_views_them() -> None:
    async with new_pool() as pool:
        numbers = itertools.count()

        async def echo() -> None:
            number = next(numbers)
            again = await pool.execute("echo", {"value": np.full(LARGE, float(number))})
            assert (again == number).all()

        await assert_reused(pool, echo)
        await until(lambda: own_mappings() * MEGABYTE == shared_bytes(pool), "gauge and mappings")


async def test_107_a_view_that_the_host_keeps_never_changes() -> None:
    async with new_pool() as pool:
        first = await pool.execute("filled", {"count": LARGE, "value": 1.0}, session_id="a")
        part = first[5:10]
        del first
        for value in range(2, 12):
            later = await pool.execute("filled", {"count": LARGE, "value": value}, session_id="b")
            assert (later == value).all()
            del later
            assert part.tolist() == [1.0] * 5
        del part
        await assert_reused(pool, lambda: pool.execute("filled", {"count": LARGE, "value": 0.0}))


async def test_107_a_view_that_the_worker_keeps_never_changes() -> None:
    async with new_pool() as pool:
        for value in range(10):
            await pool.execute("keep", {"array": np.full(LARGE, float(value))}, session_id="a")
        await pool.execute("described", {"array": np.full(LARGE, -1.0)}, session_id="b")
        kept = await pool.execute("kept_values")
        assert kept == [[float(value)] * 10 for value in range(10)]
        await pool.execute("let_go")
        array = np.zeros(LARGE)
        await assert_reused(pool, lambda: pool.execute("described", {"array": array}))


async def test_a_view_outlives_its_pool() -> None:
    async with new_pool() as pool:
        array = await pool.execute("filled", {"count": LARGE, "value": 7.0})
    assert (array == 7.0).all()
    assert own_mappings() == 1
    del array
    gc.collect()
    assert own_mappings() == 0


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_streams_and_host_functions_carry_large_arrays(concurrency: int) -> None:
    def doubled(_: HostCall, array: Any) -> Any:
        assert not array.flags.writeable
        return array * 2

    def numbers(_: HostCall, count: int) -> Iterator[Any]:
        for number in range(count):
            yield np.full(LARGE, float(number))

    functions = {"doubled": doubled, "numbers": numbers}
    async with new_pool(host_functions=functions, concurrency=concurrency) as pool:
        stream = pool.execute_stream("stream", {"count": 5, "size": LARGE})
        assert [item.sum() / LARGE async for item in stream] == [0, 1, 2, 3, 4]
        passed = await pool.execute("pass_on", {"name": "doubled", "count": LARGE})
        assert (passed == 4.0).all()
        again = await pool.execute("async_echo", {"value": passed})
        assert (again == 4.0).all()


async def test_many_large_arrays_in_one_message_share_segments() -> None:
    async with new_pool() as pool:
        arrays = [np.full(LARGE, float(number)) for number in range(200)]
        again = await pool.execute("echo", {"value": arrays})
        assert all((one == other).all() for one, other in zip(again, arrays, strict=True))
        assert 200 * 8 * LARGE <= shared_bytes(pool) / 2 <= 2 * 200 * 8 * LARGE
        last = again[-1]
        del again
        await pool.execute("echo", {"value": arrays})
        assert (last == 199.0).all()


async def test_a_message_that_fails_gives_its_segments_back() -> None:
    async with new_pool() as pool:
        bad = {"array": np.zeros(LARGE), "bad": object()}
        for _ in range(5):
            with pytest.raises(EncodeError, match=r"args\.value\.bad"):
                await pool.execute("echo", {"value": bad})
            with pytest.raises(EncodeError, match=r"result\.bad"):
                await pool.execute("bad_beside", {"count": LARGE})
        # Nobody has viewed them, so they are free at once.
        assert shared_bytes(pool) == 2 * MEGABYTE


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["without_files", "without_file_sizes"])
async def test_24_a_worker_without_shared_memory_sends_bytes(command: str) -> None:
    async with new_pool() as pool:
        # The event loop of its process has to be there before, since it takes files.
        assert await pool.execute("fresh_async_echo", {"value": 1}) == 1
        result = await pool.execute(command, {"count": LARGE})
        assert (result == 3.0).all()
        assert shared_bytes(pool) == 0


async def test_24_a_host_without_file_sizes_sends_bytes() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with new_pool() as pool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            total = await pool.execute("described", {"array": np.ones(LARGE)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert total == (False, LARGE, True)
        assert shared_bytes(pool) == 0


async def test_24_a_host_without_descriptors_sends_bytes_and_loses_only_what_it_can_not_map() -> (
    None
):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with new_pool() as pool:
        await pool.execute("zeros", {"count": 1})
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            total = await pool.execute("described", {"array": np.ones(LARGE)})
            with pytest.raises(Exception, match="descriptor could not be received"):
                await pool.execute("zeros", {"count": LARGE})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert total == (False, LARGE, True)
        again = await pool.execute("zeros", {"count": LARGE})
        assert again.sum() == 0
        assert pool.stats().workers_lost == 0


async def test_105_a_killed_worker_leaves_no_shared_memory_but_the_views() -> None:
    async with new_pool() as pool:
        view = await pool.execute("filled", {"count": LARGE, "value": 5.0})
        with pytest.raises(WorkerLost):
            await pool.execute("die", {"array": np.zeros(LARGE)})
        await until(lambda: own_mappings() == 1, "only the view's memory is mapped")
        assert (view == 5.0).all()
        del view
        await until(lambda: own_mappings() == 0, "nothing is mapped")
        again = await pool.execute("filled", {"count": LARGE, "value": 6.0})
        assert (again == 6.0).all()


async def test_105_killed_again_and_again_nothing_accumulates() -> None:
    async with new_pool() as pool:
        for _ in range(5):
            with pytest.raises(WorkerLost):
                await pool.execute("die", {"array": np.zeros(16 * LARGE)})
        await until(lambda: own_mappings() == 0, "nothing is mapped")


async def test_107_a_child_that_the_worker_forked_releases_nothing() -> None:
    async with new_pool() as pool:
        array = np.full(LARGE, 4.0)
        assert await pool.execute("fork_child_that_drops", {"array": array}) == 4.0 * LARGE
        await pool.execute("described", {"array": np.zeros(LARGE)})
        assert (await pool.execute("echo", {"value": array}) == 4.0).all()


async def test_107_memory_that_a_forked_child_may_view_is_not_used_again() -> None:
    async with new_pool() as pool:
        array = np.full(LARGE, 4.0)
        ends = await pool.execute("fork_child_that_keeps", {"array": array})
        for _ in range(5):
            await pool.execute("described", {"array": np.zeros(LARGE)})
        assert await pool.execute("what_the_child_sees", {"ends": ends}) == 4.0


ABUSES = (
    "a segment without a descriptor", "memory that may shrink", "memory smaller than announced",
    "a pipe", "its own channel", "a flood", "a segment never announced", "a range past the end",
    "a segment before its release", "a release of nothing", "a discard of nothing",
)  # fmt: skip


@pytest.mark.parametrize("how", ABUSES)
async def test_30_a_worker_that_breaks_the_rules_of_segments_is_ended_and_no_other(
    how: str,
) -> None:
    async with new_pool(size=2) as pool:
        kept = await pool.execute("filled", {"count": LARGE, "value": 5.0}, session_id="a")
        other = pool.worker_of_session("a")
        sessions = (f"b{number}" for number in itertools.count())
        session = next(sessions)
        await pool.execute("zeros", {"count": 1}, session_id=session)
        while pool.worker_of_session(session) == other:
            session = next(sessions)
            await pool.execute("zeros", {"count": 1}, session_id=session)
        result = None
        with contextlib.suppress(WorkerLost):  # the answer to its call may have come before
            result = await pool.execute("abuse", {"how": how}, session_id=session)
        assert result is None or how == "a segment before its release"
        await until(lambda: pool.stats().workers_lost == 1, "the worker is ended")
        again = await pool.execute("echo", {"value": kept}, session_id="a", affinity="strict_queue")
        assert pool.worker_of_session("a") == other
        assert (again == 5.0).all()
        assert (kept == 5.0).all()


async def test_107_a_child_that_the_host_forked_releases_nothing() -> None:
    async with new_pool() as pool:
        view = await pool.execute("filled", {"count": LARGE, "value": 5.0})
        child = os.fork()
        if child == 0:
            del view
            gc.collect()
            os._exit(0)
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
        for value in range(3):
            await pool.execute("filled", {"count": LARGE, "value": float(value)})
        assert (view == 5.0).all()
        peak = shared_bytes(pool)
        del view
        # A child could still look at the segment, so it is gone instead of being used again.
        await until(lambda: shared_bytes(pool) == peak - MEGABYTE, "the segment is gone")


async def test_a_peer_that_does_not_name_the_feature_gets_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "is_supported", lambda: False)
    async with new_pool() as pool:
        array = np.arange(LARGE, dtype="f8")
        np.testing.assert_array_equal(await pool.execute("echo", {"value": array}), array)
        data = os.urandom(SEGMENT_THRESHOLD)
        assert await pool.execute("echo", {"value": data}) == data
        assert shared_bytes(pool) == 0
        assert await pool.execute("mappings") == 0


async def test_unused_segments_are_given_back_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (segments, control):
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    async with new_pool() as pool:
        await pool.execute("described", {"array": np.zeros(LARGE)})
        await until(lambda: shared_bytes(pool) == 0, "nothing is kept")
        assert await pool.execute("described", {"array": np.ones(LARGE)}) == (False, LARGE, True)
