"""Coroutines that start at once: what they see, that they can be stopped, and what stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from snakepit.loops.carriers import Carrier, Carriers
from snakepit.loops.wakeups import WakeUps

color: ContextVar[str] = ContextVar("color", default="none")


class Starter:
    """Starts coroutines as a connection does that has read what asks for them."""

    def __init__(self) -> None:
        self.carriers = Carriers()
        self.wakeups = WakeUps()
        self.ended = 0

    def start(self, *work: Coroutine[Any, Any, None]) -> list[Carrier]:
        self.wakeups.at_once = True
        started = [self.carriers.start(each, self._ended, self.wakeups) for each in work]
        self.wakeups.wake()
        return started

    def _ended(self) -> None:
        self.ended += 1

    async def warm(self) -> None:
        """Have a task that waits for work."""
        await outside_of_tasks(lambda: self.start(nothing()))
        await turns()

    async def close(self) -> None:
        self.carriers.close()
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def nothing() -> None:
    pass


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def outside_of_tasks(function: Callable[[], Any]) -> Any:
    """Call a function as the loop calls a reader."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: done.set_result(function()))
    return await done


async def test_work_runs_at_once_in_a_task_and_a_context_of_its_own() -> None:
    starter = Starter()
    await starter.warm()
    seen: list[tuple[object, str]] = []

    async def paint() -> None:
        async with asyncio.timeout(60):
            await nothing()
            seen.append((asyncio.current_task(), color.get()))
        color.set("red")

    def start_two() -> int:
        starter.start(paint())
        starter.start(paint())
        return len(seen)

    assert await outside_of_tasks(start_two) == 2
    assert [painted for _, painted in seen] == ["none", "none"]
    assert seen[0][0] not in (None, asyncio.current_task())
    assert starter.ended == 3
    await starter.close()


async def test_inside_a_task_work_begins_in_a_later_turn() -> None:
    starter = Starter()
    await starter.warm()
    tasks: list[object] = []

    async def note() -> None:
        tasks.append(asyncio.current_task())

    starter.carriers.start(note(), nothing_more, starter.wakeups)
    starter.carriers.start(note(), nothing_more, None)
    assert tasks == []
    await turns()
    assert len(set(tasks) - {asyncio.current_task()}) == 2
    await starter.close()


def nothing_more() -> None:
    pass


async def test_work_that_waits_has_its_task_to_itself() -> None:
    starter = Starter()
    await starter.warm()
    gates = [asyncio.Event() for _ in range(3)]
    tasks: list[object] = []
    order: list[int] = []

    async def wait(number: int) -> None:
        tasks.append(asyncio.current_task())
        color.set(str(number))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await gates[number].wait()
        assert color.get() == str(number)
        assert asyncio.current_task() is tasks[number]
        order.append(number)

    await outside_of_tasks(lambda: starter.start(*map(wait, range(3))))
    await turns()
    for number in (2, 0, 1):
        gates[number].set()
        await turns()
    assert order == [2, 0, 1]
    assert len(set(tasks)) == 3
    assert starter.ended == 4
    await starter.close()


async def test_work_is_stopped_where_it_waits() -> None:
    starter = Starter()
    await starter.warm()
    told: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            told.append("cancelled")

    (carrier,) = await outside_of_tasks(lambda: starter.start(wait()))
    carrier.stop()
    await turns(5)
    assert told == ["cancelled"]
    assert starter.ended == 2
    await starter.close()


async def test_work_that_was_stopped_does_not_begin() -> None:
    starter = Starter()
    await starter.warm()
    begun: list[str] = []

    async def begin(name: str) -> None:
        begun.append(name)

    def start_and_stop() -> None:
        starter.wakeups.at_once = True
        for name in ("of the task that waited", "of a new task"):
            starter.carriers.start(begin(name), starter._ended, starter.wakeups).stop()
        starter.wakeups.wake()

    await outside_of_tasks(start_and_stop)
    await turns()
    assert begun == []
    assert starter.ended == 3
    await outside_of_tasks(lambda: starter.start(begin("later")))
    assert begun == ["later"]
    await starter.close()


async def test_work_that_cancels_its_own_task_harms_nobody_else() -> None:
    starter = Starter()
    await starter.warm()
    begun: list[bool] = []

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def begin() -> None:
        await asyncio.sleep(0)
        begun.append(True)

    await outside_of_tasks(lambda: [starter.start(cancel_itself()), starter.start(begin())])
    await turns(5)
    assert begun == [True]
    assert starter.ended == 3
    await starter.close()


async def test_whoever_cancels_all_tasks_ends_them() -> None:
    starter = Starter()
    await starter.warm()
    me = asyncio.current_task()
    (waiting,) = asyncio.all_tasks() - {me}
    starter.carriers.start(nothing(), starter._ended, None)  # it does not begin before
    starter.carriers.start(nothing(), starter._ended, None)
    for task in asyncio.all_tasks() - {me}:
        task.cancel()
    await turns(5)
    assert waiting.done()
    assert starter.ended == 3
    await starter.warm()
    await starter.close()
