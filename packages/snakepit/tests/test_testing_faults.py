"""Every fault strikes, where and how it says, and leaves the pool able to work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from snakepit import HostCall, Pool
from snakepit.errors import PoolStartFailed, RemoteError, StreamBroken, WorkerLost
from snakepit.testing import Action, Fault, FaultyAdapter, Gate, Phase, alive, until

WORKER = "pool_worker:Worker"
START_PHASES = (
    Phase.BEFORE_CONNECT,
    Phase.AFTER_CONNECT,
    Phase.AFTER_HELLO,
    Phase.BEFORE_READY,
)
Use = Callable[[Pool], Coroutine[Any, Any, Any]]


async def add(pool: Pool) -> Any:
    return await pool.execute("add", {"x": 1})


async def stream(pool: Pool) -> Any:
    async with aclosing(pool.execute_stream("count", {"n": 5})) as items:
        return [item async for item in items]


async def call_host(pool: Pool) -> Any:
    return await pool.execute("call_host", {"name": "never", "args": {}})


async def acall_host(pool: Pool) -> Any:
    return await pool.execute("acall_host", {"name": "never", "args": {}})


async def never(call: HostCall) -> None:
    await asyncio.Event().wait()


CALL_PHASES = {
    Phase.HEADER_HALF_READ: add,
    Phase.ARGUMENTS_DECODED: add,
    Phase.RUNNING: add,
    Phase.STREAMING: stream,
    Phase.IN_HOST_CALL: call_host,
    Phase.RESULT_HALF_WRITTEN: add,
}


def pool_with(*faults: Fault, **options: Any) -> Pool:
    adapter = FaultyAdapter(WORKER, faults=faults, start=options.pop("start", "template"))
    return Pool(adapter, **{"size": 1, "host_functions": {"never": never}, **options})


async def assert_works(pool: Pool) -> None:
    assert await pool.execute("add", {"x": 2}, timeout=10) == 3


@pytest.mark.parametrize("start", ["template", "spawn"])
@pytest.mark.parametrize("phase", START_PHASES)
async def test_a_worker_dies_while_it_starts(phase: Phase, start: str) -> None:
    with Fault(phase, Action.EXIT_42) as fault, pytest.raises(PoolStartFailed) as caught:
        await pool_with(fault, start=start).start()
    [firing] = fault.firings
    lost = caught.value.__cause__.__cause__ if caught.value.__cause__ else None
    assert isinstance(lost, WorkerLost)
    assert (lost.details["pid"], lost.details["exit_code"]) == (firing.pid, 42)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    ("phase", "use"), CALL_PHASES.items(), ids=lambda x: getattr(x, "name", "")
)
async def test_a_worker_is_killed_in_a_call(phase: Phase, use: Use, concurrency: int) -> None:
    with Fault(phase, Action.KILL) as fault:
        async with pool_with(fault, concurrency=concurrency) as pool:
            # A stream's own error has the other as its cause, and its details.
            with pytest.raises((WorkerLost, StreamBroken)) as caught:
                await use(pool)
            await assert_works(pool)
    [firing] = fault.firings
    assert isinstance(caught.value, StreamBroken) == (phase is Phase.STREAMING)
    assert caught.value.details["pid"] == firing.pid
    assert caught.value.details["signal"] == "SIGKILL"


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_result_that_was_sent_arrives(concurrency: int) -> None:
    with Fault(Phase.RESULT_SENT, Action.KILL) as fault:
        async with pool_with(fault, concurrency=concurrency) as pool:
            assert await add(pool) == 2
            await fault.wait_fired()
            await until(lambda: pool.stats().workers_lost == 1, "the death is noticed")
            await assert_works(pool)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("action", [Action.KILL, Action.RAISE])
async def test_an_idle_worker_dies_on_cue(action: Action, concurrency: int) -> None:
    with Fault(Phase.IDLE, action, times=0) as fault:
        async with pool_with(fault, concurrency=concurrency) as pool:
            assert await add(pool) == 2
            fault.arm()
            [firing] = await fault.wait_fired()
            await until(lambda: pool.stats().workers_lost == 1, "the death is noticed")
            await assert_works(pool)
    assert not alive(firing.pid)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_worker_dies_when_it_is_told_to_end(concurrency: int) -> None:
    with Fault(Phase.SHUTDOWN, Action.KILL) as fault:
        async with pool_with(fault, concurrency=concurrency) as pool:
            assert await add(pool) == 2
    assert fault.fired


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.KILL, {"signal": "SIGKILL"}),
        (Action.SEGFAULT, {"signal": "SIGSEGV"}),
        (Action.ABORT, {"signal": "SIGABRT"}),
        (Action.EXIT_0, {"exit_code": 0}),
        (Action.EXIT_42, {"exit_code": 42}),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
async def test_ways_to_die(action: Action, expected: dict[str, Any]) -> None:
    with Fault(Phase.RUNNING, action) as fault:
        async with pool_with(fault) as pool:
            with pytest.raises(WorkerLost) as caught:
                await add(pool)
    assert fault.fired
    assert expected.items() <= caught.value.details.items()


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    ("phase", "use"),
    [
        (Phase.RUNNING, add),
        (Phase.STREAMING, stream),
        (Phase.IN_HOST_CALL, call_host),
        (Phase.IN_HOST_CALL, acall_host),
    ],
)
async def test_what_is_raised_in_a_command_is_its_error(
    phase: Phase, use: Use, concurrency: int
) -> None:
    with Fault(phase, Action.RAISE) as fault:
        async with pool_with(fault, concurrency=concurrency) as pool:
            with pytest.raises(RemoteError, match=f"injected at {phase.value}"):
                await use(pool)
            assert pool.stats().workers_lost == 0
            await assert_works(pool)
    assert fault.fired


async def test_what_is_raised_in_the_workers_own_code_ends_it() -> None:
    with Fault(Phase.ARGUMENTS_DECODED, Action.RAISE) as fault:
        async with pool_with(fault) as pool:
            with pytest.raises(WorkerLost, match="FaultRaised") as caught:
                await add(pool)
    assert fault.fired
    assert caught.value.details["exit_code"] == 1


async def test_a_frozen_worker_is_alive_and_silent() -> None:
    with Fault(Phase.RUNNING, Action.FREEZE) as fault:
        async with pool_with(fault, cancel_grace=0.05) as pool:
            call = asyncio.create_task(add(pool))
            [firing] = await fault.wait_fired()
            assert alive(firing.pid)
            assert not call.done()
            call.cancel()
            await asyncio.wait([call])
            await until(lambda: not alive(firing.pid), "it is killed")


@pytest.mark.parametrize("phase", CALL_PHASES)
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_gate_stops_a_worker_at_the_phase(phase: Phase, concurrency: int) -> None:
    """With ``PASS`` the gate is all there is: the call goes on as if nothing had been."""
    host_called = asyncio.Event()

    async def answer(call: HostCall) -> int:
        host_called.set()
        return 42

    use: Use = CALL_PHASES[phase]
    with Gate() as gate, Fault(phase, Action.PASS, gate=gate) as fault:
        options: dict[str, Any] = {"concurrency": concurrency, "host_functions": {"never": answer}}
        async with pool_with(fault, **options) as pool:
            call = asyncio.create_task(use(pool))
            [arrival] = await gate.reached()
            assert (arrival.pid, arrival.note) == (pool.workers()[0].pid, phase.value)
            assert not fault.fired
            assert not call.done()
            gate.open()
            assert await call in (2, [0, 1, 2, 3, 4], 42)
    assert fault.fired


async def test_a_fault_can_be_for_one_command_only() -> None:
    phases = (Phase.HEADER_HALF_READ, Phase.ARGUMENTS_DECODED, Phase.RUNNING, Phase.RESULT_SENT)
    faults = [Fault(phase, Action.PASS, command="echo") for phase in phases]
    async with pool_with(*faults) as pool:
        await add(pool)
        assert not any(fault.fired for fault in faults)
        await pool.execute("echo", {"value": 1})
        await add(pool)
    for fault in faults:
        fault.close()
        assert [firing.command for firing in fault.firings] == ["echo"]


async def test_a_fault_strikes_as_often_as_it_is_armed() -> None:
    with Fault(Phase.RUNNING, Action.RAISE, times=2) as fault:
        async with pool_with(fault, size=2) as pool:
            calls = [add(pool) for _ in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(result, RemoteError) for result in results) == 2
            assert len(fault.firings) == 2
            fault.arm(3)
            fault.disarm()
            assert await add(pool) == 2


async def test_a_streams_producer_is_struck_after_the_items_that_were_asked_for() -> None:
    with Fault(Phase.STREAMING, Action.RAISE, after_items=3) as fault:
        async with pool_with(fault) as pool:
            items = pool.execute_stream("count", {"n": 5})
            got = [await anext(items) for _ in range(3)]
            with pytest.raises(RemoteError):
                await anext(items)
    assert got == [0, 1, 2]
    assert fault.fired


async def test_the_class_keeps_its_own_warm_hook() -> None:
    """The faults are around the worker's code, not in place of it."""
    adapter = FaultyAdapter("pool_worker:Threaded")
    async with Pool(adapter, size=1) as pool:
        assert await pool.execute("hello") == "hello"
        assert adapter.template_pid is None  # the hook has left a thread, so it was spawned


async def test_nothing_fires_without_an_order() -> None:
    with Fault(Phase.RUNNING, Action.KILL) as fault:
        async with pool_with() as pool:
            await add(pool)
        with pytest.raises(TimeoutError, match="did not fire"):
            await fault.wait_fired(timeout=0.01)
    assert not fault.fired
