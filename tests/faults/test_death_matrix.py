"""Scenario 1 as a table: every phase of a worker's life x every way to die x how the call is made.

A phase's cells share a pool, one after the other, with the after-check between them, so that what
one death breaks shows in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from fault_pool import (
    WORKER,
    Baseline,
    after_check,
    answer,
    fresh_calls,
    outcomes_of,
    pids_of,
    settled,
)
from processes import alive

from snakepit import Pool
from snakepit.errors import Outcome, RemoteError, StreamBroken, WorkerLost
from snakepit.testing import Action, Fault, FaultyAdapter, Phase, kill_worker

pytestmark = pytest.mark.usefixtures("silent_on_stderr")
#: Way to die: the signal's name and the exit code that the error has to tell.
DEATHS: dict[Action, tuple[str | None, int | None]] = {
    Action.KILL: ("SIGKILL", None),
    Action.SEGFAULT: ("SIGSEGV", None),
    Action.ABORT: ("SIGABRT", None),
    Action.EXIT_0: (None, 0),
    Action.EXIT_42: (None, 42),
    Action.RAISE: (None, 1),
}
#: Where an exception is the command's own, and no death.
IN_COMMANDS = {Phase.RUNNING, Phase.STREAMING, Phase.IN_HOST_CALL}
START_PHASES = [
    Phase.BEFORE_CONNECT,
    Phase.AFTER_CONNECT,
    Phase.AFTER_HELLO,
    Phase.BEFORE_READY,
]
CALL_PHASES = [
    Phase.HEADER_HALF_READ,
    Phase.ARGUMENTS_DECODED,
    Phase.RUNNING,
    Phase.STREAMING,
    Phase.IN_HOST_CALL,
    Phase.RESULT_HALF_WRITTEN,
    Phase.RESULT_SENT,
]
#: What is called to come to a phase, if not ``add``.
COMMANDS = {Phase.STREAMING: "count", Phase.IN_HOST_CALL: "call_host"}

Made = Callable[[Pool, Fault], Awaitable[Any]]


async def in_all_ways(
    phase: Phase,
    cell: Callable[[Pool, Fault], Awaitable[None]],
    concurrency: int = 1,
    size: int = 2,
) -> None:
    """Run a phase's cells on one pool."""
    with ExitStack() as closing:
        # Only in the doomed call: the one before it may not have come to its own last phase.
        command = COMMANDS.get(phase, "add") if phase in CALL_PHASES else None
        faults = [
            closing.enter_context(Fault(phase, action, command=command, times=0))
            for action in DEATHS
        ]
        adapter = FaultyAdapter(WORKER, faults=faults)
        functions = {"answer": answer}
        # Each fault kills a worker in the same call.
        async with Pool(
            adapter,
            size=size,
            concurrency=concurrency,
            host_functions=functions,
            quarantine_after=None,
        ) as pool:
            await fresh_calls(pool)
            before = Baseline.take()
            for fault in faults:
                await cell(pool, fault)
                assert len(fault.firings) == 1, fault
                await after_check(pool, before)


async def make_directly(pool: Pool, fault: Fault) -> Any:
    """A call that comes to the fault's phase; its result."""
    fault.arm()
    phase = fault.phase
    command = COMMANDS.get(phase, "add")
    if phase is Phase.STREAMING:
        return [item async for item in pool.execute_stream(command, {"n": 10}, timeout=10)]
    if phase is Phase.IN_HOST_CALL:
        return await pool.execute(command, {"name": "answer"}, timeout=10)
    return await pool.execute(command, {"x": 1}, timeout=10)


async def make_in_callback(pool: Pool, fault: Fault) -> Any:
    """The same, submitted where the pool has just handled another call's end."""
    made: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()

    def completed(_: asyncio.Task[Any]) -> None:
        made.set_result(asyncio.ensure_future(make_directly(pool, fault)))

    first = asyncio.create_task(pool.execute("echo", {"value": "first"}))
    first.add_done_callback(completed)
    return await (await made)


RESULTS: dict[Phase, Any] = {Phase.STREAMING: list(range(10)), Phase.IN_HOST_CALL: 42}


def assert_told(error: Any, action: Action) -> None:
    """The error says how the worker died, and what it was doing; a stream's cause does."""
    if isinstance(error, StreamBroken):
        error = error.__cause__
    assert isinstance(error, WorkerLost), repr(error)
    assert (error.signal, error.exit_code) == DEATHS[action]
    assert (error.phase, error.outcome, error.retryable) == ("call", Outcome.UNKNOWN, False)
    assert error.pid
    assert not alive(error.pid)


@pytest.mark.parametrize("phase", CALL_PHASES, ids=lambda phase: phase.value)
@pytest.mark.parametrize(
    ("make", "concurrency"), [(make_directly, 1), (make_directly, 4), (make_in_callback, 1)]
)
async def test_1_every_way_to_die_in_a_call(phase: Phase, make: Made, concurrency: int) -> None:
    async def cell(pool: Pool, fault: Fault) -> None:
        lost = pool.stats().workers_lost
        doomed = asyncio.ensure_future(make(pool, fault))
        (outcome,) = await outcomes_of(doomed)
        if fault.action is Action.RAISE and phase in IN_COMMANDS:
            assert isinstance(outcome, RemoteError), repr(outcome)
            assert pool.stats().workers_lost == lost
            return
        await settled(lambda: pool.stats().workers_lost == lost + 1, "the death is noticed")
        if phase is Phase.RESULT_SENT:
            # The caller has what was sent; its call was done.
            assert outcome == RESULTS.get(phase, 2)
        else:
            assert_told(outcome, fault.action)

    await in_all_ways(phase, cell, concurrency)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_1_every_way_to_die_while_idle(concurrency: int) -> None:
    async def cell(pool: Pool, fault: Fault) -> None:
        lost = pool.stats().workers_lost
        fault.arm()
        (firing,) = await fault.wait_fired()
        await settled(lambda: pool.stats().workers_lost == lost + 1, "the death is noticed")
        assert not alive(firing.pid)

    await in_all_ways(Phase.IDLE, cell, concurrency)


@pytest.mark.parametrize("phase", START_PHASES, ids=lambda phase: phase.value)
async def test_1_every_way_to_die_while_a_successor_starts(phase: Phase) -> None:
    """The start fails, is tried again, and the pool is whole."""

    async def cell(pool: Pool, fault: Fault) -> None:
        fault.arm()
        before = set(pids_of(pool))
        kill_worker(pool)
        (firing,) = await fault.wait_fired()
        await settled(lambda: len(set(pids_of(pool)) - before) == 1, "a third one is there")
        assert firing.pid not in pids_of(pool)
        assert not alive(firing.pid)

    await in_all_ways(phase, cell)


@pytest.mark.parametrize("action", DEATHS, ids=lambda action: action.value)
async def test_1_every_way_to_die_when_told_to_end(action: Action) -> None:
    with Fault(Phase.SHUTDOWN, action, times=2) as fault:
        adapter = FaultyAdapter(WORKER, faults=[fault])
        async with Pool(adapter, size=2, host_functions={"answer": answer}) as pool:
            await fresh_calls(pool)
            pids = pids_of(pool)
        assert len(fault.firings) == 2
        assert not any(map(alive, pids))
