"""Blocking functions in threads that are used again."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref

import pytest
from processes import until

from snakepit.loops.threads import call_in_thread, iterate_in_thread

NAME = "snakepit-function"


def idle_threads() -> set[int | None]:
    return {each.ident for each in threading.enumerate() if each.name == NAME}


async def test_one_after_the_other_they_use_the_same_few_threads() -> None:
    used = [await call_in_thread(threading.get_ident) for _ in range(200)]
    # Nearly all: the answer may be here before its thread waits for more.
    assert len(set(used)) < 50


async def test_blocked_functions_starve_nobody_and_share_no_thread() -> None:
    together = threading.Barrier(50, timeout=10)

    def meet() -> int:
        together.wait()
        return threading.get_ident()

    for _ in range(5):
        assert len(set(await asyncio.gather(*(call_in_thread(meet) for _ in range(50))))) == 50


async def test_a_thread_that_is_used_again_has_the_context_of_its_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def read_and_write() -> str:
        found = variable.get()
        variable.set("left behind")
        return found

    for value in ("a", "b", "c"):
        variable.set(value)
        assert await call_in_thread(read_and_write) == value
    assert variable.get() == "c"


async def test_what_a_function_raised_leaves_its_thread_of_use() -> None:
    def fail() -> None:
        raise KeyError("x")

    def leave() -> None:
        raise SystemExit(3)

    for _ in range(20):
        with pytest.raises(KeyError, match="x"):
            await call_in_thread(fail)
        with pytest.raises(SystemExit):
            await call_in_thread(leave)
        assert await call_in_thread(int, "7") == 7


async def test_an_idle_thread_keeps_nothing_of_what_it_did_and_ends_soon() -> None:
    class Result:
        pass

    result = await call_in_thread(Result)
    gone = weakref.ref(result)
    del result

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    await until(is_gone, "the result is gone")
    await until(lambda: not idle_threads(), "no thread is left")


@pytest.mark.parametrize("idle", [0.0, 0.0001])
async def test_what_comes_when_threads_leave_is_lost_by_none(
    idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.loops.threads._IDLE", idle)
    for _ in range(200):
        calls = (call_in_thread(int, str(number)) for number in range(8))
        assert await asyncio.wait_for(asyncio.gather(*calls), 10) == list(range(8))


async def test_a_forked_child_starts_threads_of_its_own() -> None:
    await call_in_thread(int, "1")  # whose thread waits for more
    pid = os.fork()
    if pid == 0:
        try:
            found = asyncio.new_event_loop().run_until_complete(
                asyncio.wait_for(call_in_thread(int, "41"), 5)
            )
            os._exit(found)
        finally:
            os._exit(1)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 41


async def test_the_steps_of_a_generator_run_in_one_thread() -> None:
    def steps() -> object:
        for _ in range(3):
            yield threading.get_ident()

    assert len({each async for each in iterate_in_thread(steps())}) == 1  # type: ignore[arg-type]
