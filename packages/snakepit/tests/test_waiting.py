"""What a task waits for and is woken from directly."""

from __future__ import annotations

import asyncio

import pytest

from snakepit.loops.waiting import Waiting


async def waiting(gate: Waiting) -> asyncio.Task[str]:
    """A task that waits."""

    async def wait() -> str:
        await gate
        return "woken"

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_the_task_goes_on_while_it_is_woken() -> None:
    gate = Waiting()
    task = await waiting(gate)
    seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        gate.wake()
        seen.set_result(task.done())

    asyncio.get_running_loop().call_soon(wake)
    assert await seen
    assert await task == "woken"
    gate.wake()  # nobody waits


@pytest.mark.parametrize("reason", [None, "enough"])
async def test_a_cancelled_task_goes_on_at_once_with_the_reason(reason: str | None) -> None:
    gate = Waiting()
    task = await waiting(gate)
    task.cancel(reason)
    assert gate.is_cancelled
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == (() if reason is None else (reason,))


def test_a_loop_that_ends_cancels_its_tasks() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await Waiting()
        except asyncio.CancelledError:
            ended.append("cancelled")

    async def leave_it() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    assert asyncio.run(leave_it()).done()
    assert ended == ["cancelled"]


async def test_a_time_limit_ends_the_wait() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Waiting()
