from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading

import pytest

from snakepit.errors import ConfigurationError, PoolClosed
from snakepit.foreign_loops import Crossing
from snakepit.loop_thread import LoopThread


@pytest.fixture
def loop():  # type: ignore[no-untyped-def]
    thread = LoopThread("test-loop", owner="client")
    yield thread
    thread.stop()


async def forty_two() -> int:
    return 42


def test_a_call_returns_its_result_and_raises_its_error(loop: LoopThread) -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert loop.run(forty_two()) == 42
    with pytest.raises(KeyError, match="x"):
        loop.run(fail())


def test_it_works_beside_a_running_loop(loop: LoopThread) -> None:
    async def main() -> int:
        return loop.run(forty_two())

    assert asyncio.run(main()) == 42


def test_the_callers_context_holds_inside(loop: LoopThread) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def read() -> str:
        return variable.get()

    variable.set("mine")
    assert loop.run(read()) == "mine"


def test_an_interrupt_cancels_the_call(loop: LoopThread) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def block() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupt() -> None:
        started.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(block())
    assert cancelled.wait(5)
    assert loop.run(forty_two()) == 42


def test_a_late_call_keeps_its_own_timeout_error(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.loop_thread._INTERRUPTIBLE", 0.001)
    release = threading.Event()

    async def late() -> int:
        await asyncio.to_thread(release.wait)
        raise TimeoutError("of the work's own")

    threading.Timer(0.05, release.set).start()
    with pytest.raises(TimeoutError, match="of the work's own"):
        loop.run(late())


async def test_a_call_cancelled_before_it_began_never_runs() -> None:
    began: list[bool] = []

    async def work() -> None:
        began.append(True)

    crossing = Crossing(asyncio.get_running_loop(), work(), "client")
    crossing.give_up()
    crossing.begin()
    for _ in range(3):
        await asyncio.sleep(0)
    assert began == []


def test_a_call_from_the_loop_itself_is_refused_instead_of_waiting_for_ever(
    loop: LoopThread,
) -> None:
    async def nested() -> None:
        loop.run(forty_two())

    with pytest.raises(ConfigurationError, match="would wait for itself"):
        loop.run(nested())


def test_stopping_frees_who_waits(loop: LoopThread) -> None:
    async def stop_then_block() -> None:
        loop.stop()
        await asyncio.Event().wait()

    with pytest.raises(PoolClosed, match="closed while this call ran"):
        loop.run(stop_then_block())


def test_a_stopped_loop_refuses_calls(loop: LoopThread) -> None:
    loop.stop()
    loop.stop()
    with pytest.raises(PoolClosed, match="make a new one"):
        loop.run(forty_two())


def test_a_forked_child_is_told_instead_of_waiting_for_ever(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ConfigurationError, match="before a fork"):
        loop.run(forty_two())
