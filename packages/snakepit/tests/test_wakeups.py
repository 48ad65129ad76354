"""When callers go on: at the end of a read or a turn later, in order, whatever one of them does."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from snakepit.calls.call import Call, CallOutcome
from snakepit.errors import PoolClosed
from snakepit.loops.wakeups import WakeUps


def new_call(wakeups: WakeUps) -> Call:
    return Call("work", {}, wakeups, submitted_at=0.0)


async def waiting(*calls: Call) -> list[asyncio.Task[object]]:
    """A task for each call, which waits for it."""

    async def wait(call: Call) -> object:
        return await call

    tasks = [asyncio.create_task(wait(call)) for call in calls]
    await asyncio.sleep(0)
    return tasks


def after_this_turn(function: object) -> asyncio.Future[object]:
    """Call a function outside of any task, as a reader of the event loop is called."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()
    loop.call_soon(lambda: done.set_result(function()))  # type: ignore[operator]
    return done


async def test_callers_go_on_at_the_end_of_a_read_and_in_order() -> None:
    wakeups = WakeUps()
    calls = [new_call(wakeups) for _ in range(3)]
    tasks = await waiting(*calls)

    def read() -> list[list[bool]]:
        wakeups.at_once = True
        calls[2].succeed(2)
        calls[0].succeed(0)
        before = [task.done() for task in tasks]
        wakeups.wake()
        return [before, [task.done() for task in tasks]]

    assert await after_this_turn(read) == [[False] * 3, [True, False, True]]
    assert [await tasks[0], await tasks[2]] == [0, 2]
    tasks[1].cancel()
    await asyncio.wait(tasks)


async def test_inside_a_task_callers_go_on_in_the_next_turn() -> None:
    wakeups = WakeUps()
    call = new_call(wakeups)
    (task,) = await waiting(call)
    call.succeed(1)
    assert not task.done()
    await asyncio.sleep(0)
    assert task.done()
    assert await task == 1


async def test_an_answer_that_is_there_already_costs_no_turn() -> None:
    call = new_call(WakeUps())
    call.succeed(1)
    task = asyncio.create_task(asyncio.sleep(0))
    assert await call == 1
    assert not task.done()
    await task


async def test_a_caller_that_ends_the_program_does_not_keep_the_others_waiting() -> None:
    wakeups = WakeUps()
    fatal, other = new_call(wakeups), new_call(wakeups)

    async def end_the_program() -> None:
        await fatal
        raise KeyboardInterrupt

    ends = asyncio.create_task(end_the_program())
    (task,) = await waiting(other)

    def read() -> bool:
        wakeups.at_once = True
        fatal.succeed(None)
        other.succeed(1)
        with pytest.raises(KeyboardInterrupt):
            wakeups.wake()
        return task.done()

    assert await after_this_turn(read) is False
    assert await task == 1
    assert isinstance(ends.exception(), KeyboardInterrupt)


async def test_a_cancelled_caller_is_told_so_and_the_answer_is_dropped() -> None:
    call = new_call(WakeUps())
    (task,) = await waiting(call)
    task.cancel("enough")
    call.succeed(1)
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert call.outcome is CallOutcome.CANCELLED


async def test_a_caller_cancelled_between_its_answer_and_its_turn_is_cancelled() -> None:
    call = new_call(WakeUps())
    (task,) = await waiting(call)
    call.succeed(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.outcome is CallOutcome.SUCCEEDED


async def test_an_error_that_was_told_keeps_nothing_alive() -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    call = Call("work", {"x": argument}, WakeUps(), submitted_at=0.0)
    call.fail(PoolClosed("closed"))
    gc.disable()
    try:
        with pytest.raises(PoolClosed) as caught:
            await call
        del caught, call, argument
        assert gone() is None, "no cycle of call, error and traceback has to be collected"
    finally:
        gc.enable()
