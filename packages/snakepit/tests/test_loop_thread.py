from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from snakepit.errors import ConfigurationError, PoolClosed, PoolStartFailed
from snakepit.loops.foreign_loops import Crossing
from snakepit.loops.loop_thread import LoopThread


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
    monkeypatch.setattr("snakepit.loops.loop_thread._INTERRUPTIBLE", 0.001)
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

    call = asyncio.get_running_loop().call_soon_threadsafe
    crossing = Crossing(call, work(), concurrent.futures.Future(), "client")
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


async def numbers(ended: list[str]) -> AsyncGenerator[int]:
    try:
        for number in range(3):
            yield number
    finally:
        ended.append(threading.current_thread().name)


def test_what_is_no_coroutine_is_refused_instead_of_waited_for_for_ever(loop: LoopThread) -> None:
    with pytest.raises(ConfigurationError, match=r"not a stream \(async_generator\).*iterate"):
        loop.run(numbers([]))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"not int; call\(\)"):
        loop.run(42)  # type: ignore[arg-type]


def test_work_that_was_cancelled_from_within_does_not_blame_the_loop(loop: LoopThread) -> None:
    async def waits_for_what_was_cancelled() -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    with pytest.raises(asyncio.CancelledError):
        loop.run(waits_for_what_was_cancelled())
    assert loop.run(forty_two()) == 42


def test_a_plain_function_is_called_on_the_loop(loop: LoopThread) -> None:
    assert loop.call(lambda: threading.current_thread().name) == "test-loop"
    with pytest.raises(ZeroDivisionError):
        loop.call(divmod, 1, 0)


def test_a_stream_is_iterated_and_ended(loop: LoopThread) -> None:
    ended: list[str] = []
    assert list(loop.iterate(numbers(ended))) == [0, 1, 2]
    assert ended == ["test-loop"]


def test_a_stream_that_is_left_early_is_ended_by_then(loop: LoopThread) -> None:
    ended: list[str] = []
    with contextlib.closing(loop.iterate(numbers(ended))) as items:
        assert next(items) == 0
        assert ended == []
    assert ended == ["test-loop"]


def test_what_a_stream_raises_comes_after_its_items(loop: LoopThread) -> None:
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise KeyError("x")

    items = loop.iterate(fail())
    assert next(items) == 1
    with pytest.raises(KeyError, match="x"):
        next(items)


def test_a_stream_that_is_let_go_on_the_loop_itself_ends(loop: LoopThread) -> None:
    ended: list[str] = []
    held = [loop.iterate(numbers(ended))]
    next(held[0])
    loop.call(held.clear)  # the generator is collected there, and its end can't be waited for
    loop.run(asyncio.sleep(0))
    assert ended == ["test-loop"]


def test_an_interrupt_ends_a_stream_that_takes_a_while_to_end(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def slow_to_end() -> AsyncIterator[int]:
        yield 1
        try:
            seen.append("waits")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            for _ in range(2000):
                await asyncio.sleep(0)
            seen.append("ended")

    monkeypatch.setattr("snakepit.loops.loop_thread._INTERRUPTIBLE", 0.01)
    items = loop.iterate(slow_to_end())
    assert next(items) == 1
    with pytest.raises(KeyboardInterrupt):
        next(items)
    assert seen == ["waits", "ended"]


def test_a_stream_ends_with_its_loop(loop: LoopThread) -> None:
    ended: list[str] = []
    items = loop.iterate(numbers(ended))
    next(items)
    loop.stop()
    assert ended == ["test-loop"]
    items.close()


def fail_with(error: Exception) -> None:
    raise error


def test_a_block_of_the_loop_is_entered_and_left(loop: LoopThread) -> None:
    seen: list[object] = []

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[str]:
        try:
            yield threading.current_thread().name
        except KeyError as error:  # which it swallows; all else goes on
            seen.append(error)
        finally:
            seen.append("left")

    with loop.entered(block()) as name:
        assert name == "test-loop"
    assert seen == ["left"]
    swallowed = KeyError("x")
    with loop.entered(block()):
        fail_with(swallowed)
    assert seen == ["left", swallowed, "left"]
    with pytest.raises(ValueError, match="y"), loop.entered(block()):
        raise ValueError("y")
    assert seen == ["left", swallowed, "left", "left"]


def test_the_end_of_its_block_stops_the_loop() -> None:
    with LoopThread("test-loop", owner="client") as loop:
        assert loop.run(forty_two()) == 42
    with pytest.raises(PoolClosed):
        loop.run(forty_two())


def test_stopping_frees_who_waits(loop: LoopThread) -> None:
    async def stop_then_block() -> None:
        loop.stop()
        await asyncio.Event().wait()

    with pytest.raises(PoolClosed, match="closed while this call ran"):
        loop.run(stop_then_block())


def test_a_call_that_comes_when_the_loop_has_begun_to_stop_is_told(loop: LoopThread) -> None:
    outcomes: list[BaseException] = []

    def call() -> None:
        try:
            loop.run(forty_two())
        except PoolClosed as error:
            outcomes.append(error)

    caller = threading.Thread(target=call)

    def be_called() -> None:
        caller.start()
        while not loop._arrivals:
            time.sleep(0)

    async def stop_and_be_called() -> None:
        loop.stop()
        await asyncio.sleep(0)
        be_called()  # in the loop's last turn, so that it hears of nobody any more

    loop.run(stop_and_be_called())
    caller.join(10)
    assert len(outcomes) == 1


def test_a_call_that_comes_while_the_loop_ends_its_tasks_is_told(loop: LoopThread) -> None:
    ending, told = threading.Event(), threading.Event()

    async def end_slowly() -> None:
        loop.stop()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            assert told.wait(10)

    def call() -> None:
        assert ending.wait(10)
        with pytest.raises(PoolClosed, match="has stopped"):
            loop.run(forty_two())
        told.set()

    caller = threading.Thread(target=call)
    caller.start()
    with pytest.raises(PoolClosed):
        loop.run(end_slowly())
    caller.join(10)
    assert told.is_set()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, SystemExit])
def test_a_callback_that_fails_is_told_and_keeps_none_from_being_called(
    loop: LoopThread, error: type[BaseException]
) -> None:
    failures: list[dict[str, Any]] = []
    loop._loop.set_exception_handler(lambda _, context: failures.append(context))
    called = threading.Event()

    def fail() -> None:
        raise error

    async def have_them_come_together() -> None:
        loop.call_soon(fail)
        loop.call_soon(called.set)

    loop.run(have_them_come_together())
    assert called.wait(10)
    assert [type(failure["exception"]) for failure in failures] == [error]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_work_that_exits_does_so_where_it_is_waited_for(
    loop: LoopThread, kind: type[BaseException]
) -> None:
    go_on: asyncio.Event = loop.call(asyncio.Event)
    outcomes: list[BaseException] = []
    others = _in_thread(loop, go_on.wait, outcomes)

    async def exits() -> None:
        await asyncio.sleep(0)
        raise kind(3)

    with pytest.raises(kind), loop.entered(contextlib.AsyncExitStack()):
        loop.run(exits())
    loop.call(go_on.set)
    others.join(10)
    assert not others.is_alive()
    assert outcomes == []


def test_a_loop_stops_also_when_work_exits_at_that_moment(loop: LoopThread) -> None:
    async def exits() -> None:
        loop._leave()
        raise SystemExit

    with pytest.raises(SystemExit):
        loop.run(exits())
    loop.join()


def test_a_stop_that_comes_while_the_loop_ends_its_tasks_keeps_it_from_ending_none(
    loop: LoopThread,
) -> None:
    outcomes: list[BaseException] = []
    running = threading.Event()

    async def stop_at_the_end() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            loop.stop()
            for _ in range(3):
                await asyncio.sleep(0)

    caller = _in_thread(loop, stop_at_the_end, outcomes)
    assert running.wait(10)
    loop.stop()
    caller.join(10)
    assert [type(each) for each in outcomes] == [PoolClosed]
    assert loop._loop.is_closed()


def test_tasks_that_exit_when_the_loop_stops_keep_it_from_ending_none(loop: LoopThread) -> None:
    outcomes: list[BaseException] = []
    running = threading.Semaphore(0)

    async def end(error: BaseException | None) -> None:
        running.release()
        try:
            await asyncio.Event().wait()
        finally:
            if error is not None:
                raise error

    works = [partial(end, error) for error in (SystemExit(3), None, SystemExit(3), None)]
    callers = [_in_thread(loop, work, outcomes) for work in works]
    for _ in callers:
        assert running.acquire(timeout=10)
    loop.stop()
    for caller in callers:
        caller.join(10)
    assert Counter(map(type, outcomes)) == {SystemExit: 2, PoolClosed: 2}
    assert loop._loop.is_closed()


def test_a_loop_can_be_stopped_in_the_midst_of_a_call(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A handler of a signal does so, or a finalizer: it runs wherever its thread is.
    outcomes: list[BaseException] = []
    assert loop._bell is not None
    ring = loop._bell.ring

    def be_interrupted() -> None:
        monkeypatch.undo()
        loop.stop()
        ring()

    monkeypatch.setattr(loop._bell, "ring", be_interrupted)
    caller = _in_thread(loop, forty_two, outcomes)
    caller.join(10)
    assert [type(each) for each in outcomes] == [PoolClosed]


def test_a_thread_that_cant_be_started_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(PoolStartFailed, match=r"the client can't .*new thread; let this process"):
        LoopThread("test-loop", owner="client")
    # The check for leaks behind each test looks for the pipe.


def test_a_loop_without_descriptors_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(PoolStartFailed, match=r"the client can't .*; let this process have more"):
        LoopThread("test-loop", owner="client")


def test_many_threads_at_once_each_have_their_own_result(loop: LoopThread) -> None:
    async def echo(number: int) -> int:
        await asyncio.sleep(0)
        return number

    def calls(first: int) -> list[int]:
        return [loop.run(echo(number)) for number in range(first, first + 200)]

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        found = list(threads.map(calls, range(0, 3200, 200)))
    assert [number for each in found for number in each] == list(range(3200))


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


def _in_thread(
    loop: LoopThread, work: Callable[[], Coroutine[Any, Any, Any]], outcomes: list[BaseException]
) -> threading.Thread:
    """Have another thread run ``work`` on the loop, and note what it raises."""

    def call() -> None:
        try:
            loop.run(work())
        except BaseException as error:
            outcomes.append(error)

    # A daemon, so that one that waits for ever fails its test and no more.
    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    return caller
