"""Pools over adapters of coroutines, without any process."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from processes import until

from snakepit import Adapter, CallOptions, Pool, WorkerSpec
from snakepit.errors import (
    AdapterInitFailed,
    CallTimeout,
    Outcome,
    PoolClosed,
    PoolStartFailed,
    RemoteError,
    StreamingNotSupported,
    UnknownCommand,
    WorkerLost,
)
from snakepit.testing import ManualClock

Args = Mapping[str, Any]


class Minimal:
    async def execute(self, worker: Any, command: str, args: Args, options: CallOptions) -> Any:
        return command, dict(args), options.session_id


def module_of(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("adapter_module")
    module.__dict__.update(functions)
    return module


async def execute(worker: Any, command: str, args: Args, options: CallOptions) -> str:
    return f"module: {command}"


class Machine:
    """A worker of `Local`: an object that notes how it ended."""

    pid = 4711

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.ended: list[str] = []

    async def stop(self) -> None:
        self.ended.append("stop")

    def kill(self) -> None:
        self.ended.append("kill")


class Local:
    """An adapter of coroutines; the tests look at what happened to them."""

    def __init__(self) -> None:
        self.machines: list[Any] = []
        self.options: list[CallOptions] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cleaned = asyncio.Event()
        self.produced = 0
        self.terminated: list[str] = []

    async def start_worker(self, spec: WorkerSpec) -> Any:
        self.machines.append(Machine(spec.worker_id))
        return self.machines[-1]

    async def terminate(self, reason: str) -> None:
        self.terminated.append(reason)

    async def execute(self, worker: Any, command: str, args: Args, options: CallOptions) -> Any:
        self.options.append(options)
        return await getattr(self, command)(worker, **args)

    async def execute_stream(
        self, worker: Any, command: str, args: Args, options: CallOptions
    ) -> AsyncIterator[Any]:
        try:
            for number in range(args["n"]):
                if number == args.get("fail_at"):
                    raise ValueError(f"at {number}")
                self.produced += 1
                yield number
        finally:
            self.entered.set()
            await self.release.wait()
            self.cleaned.set()

    async def name(self, worker: Any) -> Any:
        return worker.worker_id

    async def fail(self, worker: Any, error: BaseException) -> None:
        raise error

    async def hold(self, worker: Any) -> None:
        self.entered.set()
        try:
            await self.release.wait()
        finally:
            self.cleaned.set()

    async def cancel_another(self, worker: Any, callers: list[asyncio.Task[Any]]) -> None:
        """Its end starts the other's call, whose caller is cancelled by then."""
        self.entered.set()
        await self.release.wait()
        callers[1].cancel()

    async def resist(self, worker: Any) -> str:
        self.entered.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cleaned.set()
        raise ValueError("after all")


def assert_at_rest(pool: Pool) -> None:
    stats = pool.stats()
    assert (stats.queued, stats.running, stats.stopping) == (0, 0, 0)
    ended = stats.succeeded + stats.failed + stats.timed_out + stats.cancelled
    assert ended == stats.submitted


async def test_an_adapter_with_only_execute_runs_calls() -> None:
    assert isinstance(Minimal(), Adapter)
    async with Pool(Minimal(), size=2) as pool:
        assert await pool.execute("go", {"x": 1}, session_id="s") == ("go", {"x": 1}, "s")
        assert [worker.pid for worker in pool.workers()] == [None, None]
        with pytest.raises(StreamingNotSupported, match="Minimal has no execute_stream"):
            _ = [item async for item in pool.execute_stream("go")]
        assert_at_rest(pool)


async def test_a_module_can_be_an_adapter() -> None:
    async with Pool(module_of(execute=execute)) as pool:
        assert await pool.execute("go") == "module: go"


async def test_an_adapters_own_workers_serve_the_calls_and_are_stopped() -> None:
    adapter = Local()
    async with Pool(adapter, size=2, name="local") as pool:
        names = {await pool.execute("name") for _ in range(4)}
        assert names == {"local-1", "local-2"}
        assert [worker.pid for worker in pool.workers()] == [4711, 4711]
    assert [machine.ended for machine in adapter.machines] == [["stop"], ["stop"]]
    assert adapter.terminated == ["closed"]
    assert pool.workers() == []


async def test_a_slot_is_free_as_soon_as_its_call_is_answered() -> None:
    async with Pool(Local(), size=3) as pool:
        names = {await pool.execute("name", session_id="s") for _ in range(5)}
        assert len(names) == 1
        assert (pool.stats().session_hits, pool.stats().session_misses) == (4, 0)
        assert_at_rest(pool)


async def test_an_adapter_is_told_the_session_and_the_time_that_remains() -> None:
    adapter = Local()
    async with Pool(adapter) as pool:
        await pool.execute("name", session_id="s", timeout=5.0)
        await pool.execute("name")
    limited, unlimited = adapter.options
    assert limited.session_id == "s"
    assert limited.timeout is not None
    assert 4.0 < limited.timeout <= 5.0
    assert unlimited == CallOptions(session_id=None, timeout=None)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("bad"), ValueError),
        (UnknownCommand("none"), UnknownCommand),
        (asyncio.CancelledError(), RemoteError),
        (TimeoutError("slow"), TimeoutError),
    ],
)
async def test_what_an_adapter_raises_reaches_the_caller_typed(
    raised: BaseException, expected: type[Exception]
) -> None:
    async with Pool(Local(), size=1) as pool:
        async with asyncio.timeout(5):
            with pytest.raises(expected) as caught:
                await pool.execute("fail", {"error": raised})
        if caught.value is not raised:
            assert isinstance(caught.value, RemoteError)
            assert type(caught.value.__cause__) is type(raised)
        assert pool.stats().failed == 1
        assert_at_rest(pool)


async def test_a_stream_arrives_in_order_and_its_error_after_the_items() -> None:
    adapter = Local()
    adapter.release.set()
    async with Pool(adapter) as pool:
        assert [item async for item in pool.execute_stream("x", {"n": 100})] == list(range(100))
        stream = pool.execute_stream("x", {"n": 100, "fail_at": 50})
        assert [await anext(stream) for _ in range(50)] == list(range(50))
        with pytest.raises(ValueError, match="at 50"):
            await anext(stream)
        assert_at_rest(pool)


async def test_a_producer_is_never_far_ahead_and_is_closed_when_the_consumer_leaves() -> None:
    adapter = Local()
    async with Pool(adapter, size=1, cancel_grace=60) as pool:
        async with aclosing(pool.execute_stream("x", {"n": 10**9})) as stream:
            taken = [await anext(stream) for _ in range(100)]
            # The producer is waiting for credit, in the middle of its stream.
            await until(lambda: adapter.produced > 100, "it runs ahead")
            assert not adapter.entered.is_set()
        await adapter.entered.wait()
        assert pool.stats().stopping == 1
        adapter.release.set()
        await until(lambda: pool.stats().stopping == 0, "the producer has cleaned up")
        assert adapter.cleaned.is_set()
        assert taken == list(range(100))
        assert adapter.produced <= 100 + 32 + 1
        assert pool.stats().cancelled == 1
        assert_at_rest(pool)


async def test_a_cancelled_call_stops_its_coroutine_and_frees_the_slot() -> None:
    adapter = Local()
    async with Pool(adapter, size=1) as pool:
        caller = asyncio.create_task(pool.execute("hold"))
        await adapter.entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await pool.execute("name") == "default-1"
        assert adapter.cleaned.is_set()
        assert (pool.stats().cancelled, pool.stats().workers_lost) == (1, 0)
        assert_at_rest(pool)


async def test_a_call_cancelled_before_its_first_step_frees_the_slot_too() -> None:
    adapter = Local()
    async with Pool(adapter, size=1) as pool:
        callers: list[asyncio.Task[Any]] = []
        first = pool.execute("cancel_another", {"callers": callers})
        callers += [asyncio.create_task(first), asyncio.create_task(pool.execute("resist"))]
        await adapter.entered.wait()
        assert pool.stats().queued == 1
        adapter.entered.clear()
        adapter.release.set()
        await asyncio.wait(callers)
        assert callers[1].cancelled()
        assert await pool.execute("name") == "default-1"
        assert not adapter.entered.is_set()
        assert_at_rest(pool)


async def test_a_call_that_is_late_is_stopped() -> None:
    adapter = Local()
    async with Pool(adapter, size=1) as pool:
        with pytest.raises(CallTimeout) as caught:
            await pool.execute("hold", timeout=0.01)
        assert caught.value.outcome is Outcome.UNKNOWN
        await adapter.cleaned.wait()
        assert await pool.execute("name") == "default-1"
        assert pool.stats().timed_out == 1
        assert_at_rest(pool)


async def test_a_call_that_resists_costs_its_worker_and_the_gauges_are_right() -> None:
    adapter = Local()
    async with Pool(adapter, size=1, cancel_grace=0.02) as pool:
        with pytest.raises(CallTimeout):
            await pool.execute("resist", timeout=0.01)
        assert await pool.execute("name") == "default-2"
        await until(lambda: adapter.machines[0].ended != [], "it is killed")
        assert [worker.worker_id for worker in pool.workers()] == ["default-2"]
        assert_at_rest(pool)
        adapter.release.set()
    assert [machine.ended for machine in adapter.machines] == [["kill"], ["stop"]]


async def test_the_neighbours_of_a_call_that_resists_may_finish() -> None:
    adapter = Local()
    async with Pool(adapter, size=1, concurrency=2, cancel_grace=0.02) as pool:
        neighbour = asyncio.create_task(pool.execute("hold"))
        await adapter.entered.wait()
        with pytest.raises(CallTimeout):
            await pool.execute("resist", timeout=0.01)
        assert await pool.execute("name") == "default-2"
        assert adapter.machines[0].ended == []
        adapter.release.set()
        await neighbour
        await until(lambda: adapter.machines[0].ended == ["kill"], "it is not needed any more")
        assert_at_rest(pool)


# --- the end -------------------------------------------------------------------------------------


async def test_closing_at_once_ends_calls_with_an_error_and_their_work() -> None:
    adapter = Local()
    pool = Pool(adapter, size=1)
    await pool.start()
    caller = asyncio.create_task(pool.execute("hold"))
    await adapter.entered.wait()
    await pool.aclose(drain=False)
    with pytest.raises(PoolClosed):
        await caller
    assert adapter.cleaned.is_set()
    assert adapter.machines[0].ended == ["stop"]
    assert adapter.terminated == ["closed"]
    assert_at_rest(pool)


async def test_closing_ends_a_call_that_resists_with_its_worker() -> None:
    adapter = Local()
    pool = Pool(adapter, size=1)
    await pool.start()
    caller = asyncio.create_task(pool.execute("resist"))
    await adapter.entered.wait()
    await pool.aclose(drain=False)
    with pytest.raises(PoolClosed):
        await caller
    assert_at_rest(pool)
    adapter.release.set()


class FailsToStop(Machine):
    async def stop(self) -> None:
        raise OSError("stuck")


class NeverStops(Machine):
    async def stop(self) -> None:
        await asyncio.Event().wait()


class OnlyKill:
    def __init__(self, worker_id: str) -> None:
        self.ended: list[str] = []

    def kill(self) -> None:
        self.ended.append("kill")


class FailsToDie(OnlyKill):
    def kill(self) -> None:
        super().kill()
        raise OSError("undead")


@pytest.mark.parametrize("kind", [FailsToStop, NeverStops, OnlyKill, FailsToDie])
async def test_a_worker_that_does_not_stop_in_order_is_killed_and_the_adapter_told(
    kind: type[Any],
) -> None:
    class Other(Local):
        async def start_worker(self, spec: WorkerSpec) -> Any:
            self.machines.append(kind(spec.worker_id))
            return self.machines[-1]

    adapter = Other()
    pool = Pool(adapter, size=2)
    await pool.start()
    await pool.aclose(drain=False)
    assert [machine.ended for machine in adapter.machines] == [["kill"], ["kill"]]
    assert adapter.terminated == ["closed"]
    assert pool.workers() == []


# --- the start -----------------------------------------------------------------------------------


async def test_an_adapter_whose_init_fails_starts_no_pool() -> None:
    class Unready(Local):
        async def init(self) -> None:
            raise OSError("no such device")

    adapter = Unready()
    with pytest.raises(AdapterInitFailed, match="no such device") as caught:
        await Pool(adapter).start()
    assert isinstance(caught.value.__cause__, OSError)
    assert adapter.machines == []


async def test_an_adapter_whose_workers_do_not_start_is_terminated() -> None:
    class Unable(Local):
        async def start_worker(self, spec: WorkerSpec) -> Any:
            raise OSError(f"no room for {spec.worker_id}")

    adapter = Unable()
    with pytest.raises(PoolStartFailed, match="no room for default-2") as caught:
        await Pool(adapter, size=2).start()
    assert isinstance(caught.value.__cause__, OSError)
    assert adapter.terminated == ["failed to start"]


def test_the_error_of_a_call_lost_with_its_worker_says_why() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        adapter = Local()
        async with Pool(adapter, size=1, concurrency=2, cancel_grace=5) as pool:
            neighbour = asyncio.create_task(pool.execute("resist"))
            late = asyncio.create_task(pool.execute("resist", timeout=60))
            await adapter.entered.wait()
            await clock.advance(60)
            assert isinstance(late.exception(), CallTimeout)
            await clock.advance(5)
            # It may finish for a while; then it goes down with its worker.
            assert not neighbour.done()
            await clock.advance(60)
            with pytest.raises(WorkerLost, match="did not stop within 5 s") as caught:
                await neighbour
            assert caught.value.outcome is Outcome.UNKNOWN
            assert adapter.machines[0].ended == ["kill"]
            adapter.release.set()
            assert_at_rest(pool)

    clock.run(scenario())
