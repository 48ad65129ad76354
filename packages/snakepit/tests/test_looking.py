"""Looking for what a worker says next: when it is worthwhile, and that it starves nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit import HostCall, Pool, PythonAdapter
from snakepit.calls.call import Call
from snakepit.loops.spin import AdaptiveSpin
from snakepit.loops.wakeups import WakeUps
from snakepit.pool.looking import Looking

# Seconds; longer than anything that is looked for here takes to come.
_LONG = 5.0


class Talker:
    """A worker that says something each time it is asked, and does what a test wants then."""

    def __init__(self, on_poll: Callable[[], object] = bool) -> None:
        self.polls = 0
        self.on_poll = on_poll

    def poll(self) -> bool:
        self.polls += 1
        self.on_poll()
        return True


class Silent:
    def poll(self) -> bool:
        return False


async def turn() -> None:
    await asyncio.sleep(0)


# --- when it is worthwhile -----------------------------------------------------------------------


def test_looking_in_vain_is_tried_ever_less_often() -> None:
    spin = AdaptiveSpin(1e-6)
    tried = 0
    for _ in range(10_000):
        if spin.is_worthwhile():
            tried += 1
            spin.record(found=False)
    assert 10 < tried < 30


def test_one_success_makes_it_worthwhile_again() -> None:
    spin = AdaptiveSpin(1e-6)
    for _ in range(100):
        if spin.is_worthwhile():
            spin.record(found=False)
    while not spin.is_worthwhile():
        pass
    spin.record(found=True)
    assert all(spin.is_worthwhile() for _ in range(10))


def test_a_limit_of_zero_is_never_worthwhile() -> None:
    assert not AdaptiveSpin(0.0).is_worthwhile()


# --- after the host has answered -----------------------------------------------------------------


async def test_what_a_worker_says_is_handled_outside_of_any_task() -> None:
    tasks: list[asyncio.Task[Any] | None] = []
    worker = Talker(lambda: tasks.append(asyncio.current_task()))
    Looking(_LONG, {"the only call"}, WakeUps()).after_answering(worker)
    assert worker.polls == 0
    await turn()
    assert tasks == [None]


async def test_callers_whose_answers_were_found_go_on_in_the_same_turn() -> None:
    wakeups = WakeUps()
    call = Call("work", {}, wakeups, submitted_at=0.0)

    async def wait() -> Any:
        return await call

    waiting = asyncio.create_task(wait())
    await turn()
    Looking(_LONG, {call}, wakeups).after_answering(Talker(lambda: call.succeed("found")))
    await turn()
    assert waiting.done()
    assert await waiting == "found"


async def test_a_worker_that_is_answered_again_and_again_lets_the_loop_turn() -> None:
    looking = Looking(_LONG, {"the only call"}, WakeUps())
    worker = Talker()
    worker.on_poll = lambda: looking.after_answering(worker)
    looking.after_answering(worker)
    await turn()
    assert worker.polls == 8
    # The rest comes as an event of the loop, and then it is looked for again.
    looking.after_answering(worker)
    await turn()
    assert worker.polls == 16


async def test_looking_ends_when_nothing_comes_in_time() -> None:
    looking = Looking(1e-6, {"the only call"}, WakeUps())
    looking.after_answering(Silent())
    await turn()
    worker = Talker()
    looking.after_answering(worker)
    await turn()
    assert worker.polls == 1


@pytest.mark.parametrize(("limit", "running"), [(0.0, {1}), (_LONG, {1, 2}), (_LONG, set())])
async def test_nothing_is_looked_for_where_others_wait_or_nobody_wants_it(
    limit: float, running: set[int]
) -> None:
    looking = Looking(limit, running, WakeUps())
    worker = Talker()
    looking.after_answering(worker)
    looking.for_answer(worker, Call("work", {}, WakeUps(), submitted_at=0.0))
    await turn()
    assert worker.polls == 0


# --- with workers --------------------------------------------------------------------------------


async def double(_: HostCall, number: int) -> int:
    return 2 * number


def new_pool(**options: Any) -> Pool:
    adapter = PythonAdapter("look_ahead_worker:Worker")
    return Pool(adapter, size=1, name="test", host_functions={"double": double}, **options)


@asynccontextmanager
async def counted_turns() -> Any:
    """The turns that another task has while a block runs."""
    turns = [0]

    async def other() -> None:
        while True:
            turns[0] += 1
            await turn()

    task = asyncio.create_task(other())
    yield turns
    task.cancel()
    await asyncio.wait([task])


async def test_a_caller_that_is_answered_at_once_starves_nobody() -> None:
    async with new_pool(spin=0.05) as pool, counted_turns() as turns:
        for _ in range(800):
            await pool.execute("nap")
        assert turns[0] >= 100


@pytest.mark.parametrize("spin", [0.0, 0.05])
async def test_a_worker_that_asks_the_host_all_the_time_starves_nobody(spin: float) -> None:
    async with new_pool(spin=spin) as pool, counted_turns() as turns:
        assert await pool.execute("ask", {"times": 800}) == [2 * number for number in range(800)]
        assert turns[0] >= 100
