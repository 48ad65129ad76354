"""Tools between the host and real workers, in both directions and through each other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from running_platform import running_platform

from snakepit.errors import (
    CallDepthExceeded,
    CallTimeout,
    EncodeError,
    Outcome,
    StreamingNotSupported,
    WorkerLost,
)
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.errors import (
    DuplicateTool,
    NotAllowed,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
)

pytestmark = pytest.mark.slow


async def run(platform: Platform, session_id: str | None, function: str, *args: Any) -> Any:
    return await platform.python.call(f"state_programs.{function}", args, session_id=session_id)


# --- tools of the host, called by workers ---------------------------------------------------------


async def test_values_of_every_kind_go_in_and_out() -> None:
    async with running_platform() as platform:

        def echo(value: Any) -> Any:
            return value

        await platform.tools.register("echo", echo)
        values = [
            None, True, -(10**40), 0.5, "zwölf", b"\0\xff", [1, [2]], {"a": {"b": None}},
            datetime(2024, 2, 29, tzinfo=UTC), Decimal("1.10"),
        ]  # fmt: skip
        for value in values:
            assert await run(platform, None, "call", "echo", {"value": value}) == value
        for array in (np.arange(6).reshape(2, 3), np.arange(300_000.0), np.array("2024", "M8[s]")):
            back = await run(platform, None, "call", "echo", {"value": array})
            assert back.dtype == array.dtype
            assert np.array_equal(back, array)


async def test_parameters_are_checked_before_they_are_sent() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        home = session.id

        def price(item: str, count: int = 1) -> float:
            return len(item) * count

        await platform.tools.register("price", price)
        good, wrong, unknown = {"item": "ab"}, {"item": "ab", "count": "x"}, {"itm": "ab"}
        results, asked = await run(
            platform, home, "questions_for_calls", "price", [good, wrong, unknown, good]
        )
        assert results == [2, "ValidationFailed", "ValidationFailed", 2]
        assert asked == 3  # what it takes, and the two calls that were right
        with pytest.raises(ValidationFailed) as caught:
            await run(platform, home, "call", "price", unknown)
        assert caught.value.details["problems"] == [
            "missing: item", "unknown: itm; did you mean 'item'?",
        ]  # fmt: skip
        # What the worker knows of it may be old, which does no harm.
        await platform.variables.put(home, "x", 1)
        results, asked = await run(platform, home, "questions_for_calls", "price", [good, good])
        assert (results, asked) == ([2, 2], 2)

        def price_by_name(name: str) -> float:
            return -len(name)

        await platform.tools.register("price", price_by_name, replace=True)
        with pytest.raises(ValidationFailed, match="unknown: item"):
            await run(platform, home, "call", "price", good)
        assert await run(platform, home, "call", "price", {"name": "abc"}) == -3


async def test_a_worker_gets_the_errors_of_its_tools() -> None:
    async with running_platform() as platform, platform.sessions.open("team-b") as session:
        tools, home = platform.tools, session.id

        def fails() -> None:
            raise LookupError("no such item")

        def exits() -> None:
            sys.exit("as a command line does")

        async def slow() -> None:
            await asyncio.Event().wait()

        await tools.register("fails", fails)
        await tools.register("slow", slow, timeout=0.01)
        await tools.register("theirs", fails, allow=["team-a"])
        await tools.register("no-data", object)
        await tools.register("exits", exits)
        with pytest.raises(ToolExecutionFailed, match="no such item") as failed:
            await run(platform, home, "call", "fails", {})
        assert isinstance(failed.value.__cause__, LookupError)
        with pytest.raises(ToolExecutionFailed, match="SystemExit"):
            await run(platform, home, "call", "exits", {})
        with pytest.raises(CallTimeout, match="'slow'"):
            await run(platform, home, "call", "slow", {})
        with pytest.raises(NotAllowed, match="'theirs'"):
            await run(platform, home, "call", "theirs", {})
        with pytest.raises(ToolNotFound) as missing:
            await run(platform, home, "call", "never", {})
        assert missing.value.available == ["exits", "fails", "no-data", "slow"]
        with pytest.raises(EncodeError):
            await run(platform, home, "call", "no-data", {})
        assert await run(platform, home, "pid") == platform.pool.workers()[0].pid
        outcomes = {one.tool: one.outcome for one in await tools.audit(home)}
        assert outcomes["fails"] == "tool_execution_failed"
        assert outcomes["slow"] == "call_timeout"
        callers = {one.caller for one in await tools.audit(home)}
        assert callers == {platform.pool.workers()[0].worker_id}


async def test_generator_tools_stream_to_the_worker() -> None:
    async with running_platform() as platform:
        ended = asyncio.Event()

        async def letters(text: str) -> AsyncIterator[str]:
            try:
                for letter in text:
                    yield letter
            finally:
                ended.set()

        def numbers(count: int) -> Iterator[int]:
            yield from range(count)

        await platform.tools.register("letters", letters)
        await platform.tools.register("numbers", numbers)
        abc = {"text": "abcdef"}
        assert await run(platform, None, "stream", "letters", abc) == [*"abcdef"]
        assert await run(platform, None, "stream", "numbers", {"count": 3}) == [0, 1, 2]
        assert await run(platform, None, "stream_async", "numbers", {"count": 3}) == [0, 1, 2]
        ended.clear()
        assert await run(platform, None, "stream", "letters", abc, 2) == ["a", "b"]
        await asyncio.wait_for(ended.wait(), 30)  # the worker left early
        with pytest.raises(StreamingNotSupported, match=r"with tools\.stream\(\)"):
            await run(platform, None, "call", "numbers", {"count": 3})


# --- through each other ---------------------------------------------------------------------------


async def test_tools_may_call_the_worker_that_calls_them() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:

        async def dive(depth: int) -> int:
            return int(await run(platform, session.id, "dives", depth)) + 1

        await platform.tools.register("dive", dive)
        # Ten calls of the one worker, each inside a tool that the one before has called.
        assert await run(platform, session.id, "dives", 10) == 20


async def test_recursion_without_end_has_an_end() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:

        async def dive(depth: int) -> int:
            return int(await run(platform, session.id, "dives", depth + 2))

        await platform.tools.register("dive", dive)
        with pytest.raises(CallDepthExceeded, match="33 calls deep"):
            await run(platform, session.id, "dives", 1)
        assert await run(platform, session.id, "dives", 0) == 0


async def test_five_hundred_calls_of_a_tool_at_once_all_return() -> None:
    async with running_platform() as platform:
        inside = 0
        everybody = asyncio.Event()

        async def wait(number: int) -> int:
            nonlocal inside
            inside += 1
            if inside == 500:
                everybody.set()
            await everybody.wait()
            return number

        await platform.tools.register("wait", wait)
        assert await run(platform, None, "call_many", "wait", 500) == list(range(500))


async def test_what_must_not_be_done_twice_is_not_said_to_be_retryable() -> None:
    async with running_platform() as platform:
        done: list[str] = []
        await platform.tools.register("look", lambda: done.append("look"), idempotent=True)
        await platform.tools.register("pay", lambda: done.append("pay"))

        async def death(tool: str) -> WorkerLost:
            with pytest.raises(WorkerLost) as caught:
                await platform.python.call(
                    "state_programs.dies_after_calling", [tool], idempotent=True
                )
            return caught.value

        assert (await death("look")).retryable
        lost = await death("pay")
        assert not lost.retryable
        assert lost.outcome is Outcome.UNKNOWN
        assert done == ["look", "pay"]


# --- functions of the workers as tools ------------------------------------------------------------


async def test_a_function_of_the_workers_is_a_tool_like_any_other() -> None:
    async with running_platform(workers=2) as platform, platform.sessions.open() as session:
        tools, home = platform.tools, session.id
        made = await tools.register_python_function(
            "distance", "state_programs:distance", session_id=home, idempotent=True
        )
        assert (made.kind, made.path) == ("worker", "state_programs:distance")
        assert made.description.startswith("How far two points are from each other.")
        by_name = {each.name: each for each in made.parameters}
        assert [*by_name] == ["a", "b", "unit"]
        assert by_name["unit"].description == "of the result."
        given = {"a": {"x": 0}, "b": {"x": 3.0, "y": 4.0}}
        first = await tools.call("distance", given, home)
        assert first["distance"] == 5.0
        # It runs where its session's calls run.
        assert first["pid"] == await run(platform, home, "pid")
        with pytest.raises(ValidationFailed, match="unit"):
            await tools.call("distance", given | {"unit": "mile"}, home)
        # A worker reaches it through the host, also in its own process.
        found = await run(platform, home, "call", "distance", given | {"unit": "km"})
        assert found == {"distance": 0.005, "pid": first["pid"]}
        async with platform.sessions.open() as other:
            with pytest.raises(ToolNotFound):
                await tools.call("distance", given, other.id)


async def test_a_function_of_the_workers_sees_its_callers_session() -> None:
    async with running_platform() as platform:
        await platform.tools.register_python_function("rate", "state_programs.rate")
        for number in range(2):
            async with platform.sessions.open() as session:
                await platform.variables.put(session.id, "rate", 1.5 + number)
                assert await platform.tools.call("rate", {}, session.id) == 3 + 2 * number
        await platform.tools.register_python_function("up", "state_programs:count_up")
        await platform.tools.register_python_function("down", "state_programs:count_down")
        for name, given, items in (("up", {"to": 3}, [0, 1, 2]), ("down", {"start": 2}, [2, 1])):
            assert [item async for item in platform.tools.stream(name, given)] == items
            assert await run(platform, None, "stream", name, given) == items
        down = "state_programs:count_down"
        await platform.tools.register_python_function("up", down, replace=True)
        assert [item async for item in platform.tools.stream("up", {"start": 2})] == [2, 1]


async def test_paths_are_looked_up_where_the_sessions_calls_run() -> None:
    async with (
        running_platform(import_allow=("state_programs", "late_program")) as platform,
        platform.sessions.open(isolation="session") as session,
    ):
        assert not await run(platform, session.id, "has_imported", "late_program")
        await platform.tools.register_worker_function(
            "importer", "late_program:importer", session_id=session.id
        )
        assert await run(platform, session.id, "has_imported", "late_program")
        assert not await run(platform, None, "has_imported", "late_program")
        here = await run(platform, session.id, "pid")
        assert await platform.tools.call("importer", {}, session.id) == here


async def test_what_a_name_means_is_never_what_it_meant() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        tools, home = platform.tools, session.id

        def answers(text: str) -> Callable[[], Awaitable[str]]:
            async def answer() -> str:
                return text

            return answer

        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: tools.register_function("answer", answers("all"), replace=True),
            lambda: tools.register("answer", answers("own"), session_id=home),
            lambda: tools.register("answer", answers("new"), session_id=home, replace=True),
            lambda: tools.unregister("answer", session_id=home),
            lambda: tools.register("answer", answers("theirs"), allow=["other"], replace=True),
            lambda: tools.unregister("answer"),
            lambda: tools.register("answer", answers("again")),
            lambda: platform.sessions.close(home),
        ]

        async def step() -> None:
            await steps.pop(0)()

        await tools.register("answer", answers("first"))
        await tools.register("step", step)
        # All in one call of the session, so that the host need not look whether it is open.
        assert await run(platform, home, "answers_between_steps", len(steps)) == [
            ["first"] * 2, ["all"] * 2, ["own"] * 2, ["new"] * 2, ["all"] * 2, ["NotAllowed"] * 2,
            ["ToolNotFound"] * 2, ["again"] * 2, ["SessionNotFound"] * 2,
        ]  # fmt: skip


async def test_functions_of_the_workers_have_limits_too() -> None:
    async with running_platform(workers=2) as platform:
        tools = platform.tools
        await tools.register("never", asyncio.Event().wait)
        # Registered in the session whose worker then has the module.
        session = await platform.sessions.start()
        await tools.register_python_function(
            "stuck", "state_programs:stuck_after", session_id=session.id, timeout=0.5
        )
        items = tools.stream("stuck", {"count": 2}, session.id)
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(CallTimeout) as caught:
            await anext(items)
        assert caught.value.details["limit"] == "stream_idle"

        name, idle = "call-stuck", "state_programs:waits"
        await tools.register("wait", asyncio.Event().wait, idempotent=True)
        await tools.register_python_function(
            name, idle, session_id=session.id, timeout=0.5, idempotent=True
        )
        with pytest.raises(CallTimeout, match=r"'call-stuck' did not .* limit of 0\.5 s$") as late:
            await tools.call(name, {}, session.id)
        assert late.value.details == {"tool": name, "limit": "tool", "timeout_s": 0.5}
        assert late.value.retryable
        assert isinstance(late.value.__cause__, CallTimeout)
        assert late.value.__cause__.limit == "total"

        inside: list[int] = []

        async def enter() -> None:
            inside.append(1)
            assert len(inside) == 1

        async def leave() -> None:
            inside.pop()

        await tools.register("enter", enter)
        await tools.register("leave", leave)
        await tools.register_python_function("busy", "state_programs:busy", concurrency=1)
        await asyncio.gather(*(tools.call("busy") for _ in range(20)))


async def test_the_limit_of_the_call_around_a_tool_is_not_the_tools() -> None:
    async with running_platform(workers=2) as platform:
        tools, calls = platform.tools, []
        await tools.register_python_function("waits", "state_programs:waits", timeout=60)
        await tools.register("wait", asyncio.Event().wait)

        async def relay() -> None:
            # In a task of its own, which outlives the call that ends here.
            calls.append(asyncio.create_task(tools.call("waits")))
            await asyncio.wait(calls)

        await tools.register("relay", relay)
        session = await platform.sessions.start()
        await run(platform, session.id, "pid")  # its worker has the module now
        with pytest.raises(CallTimeout, match=r"'python\.call' reached its total limit"):
            await platform.python.call(
                "state_programs.call", ("relay", {}), session_id=session.id, timeout=1
            )
        with pytest.raises(CallTimeout, match=r"'tools\.run' reached its total limit"):
            await calls[0]


async def test_a_call_that_is_cancelled_takes_along_the_tool_that_it_waits_for() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        entered, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await platform.tools.register("wait", wait)
        call = asyncio.create_task(run(platform, session.id, "waits"))
        await asyncio.wait_for(entered.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 30)


async def test_paths_that_are_no_tools() -> None:
    async with running_platform() as platform:
        tools = platform.tools
        register = tools.register_python_function
        for path, error in {
            "state_programs:never": ValidationFailed,
            "state_programs:NOT_A_FUNCTION": ValidationFailed,
            "state_programs": ValidationFailed,
            "state_programs:__builtins__": ValidationFailed,
            "": ValidationFailed,
            "os:system": NotAllowed,
            "state_programs.os.system": NotAllowed,
        }.items():
            with pytest.raises(error):
                await register("x", path)
        with pytest.raises(ValidationFailed, match="tool name"):
            await register("no name", "state_programs:rate")
        assert await tools.list() == []
        await register("pid", "state_programs:pid")
        with pytest.raises(DuplicateTool):
            await register("pid", "state_programs:pid")
        await register("nothing", "state_programs:no_data")
        with pytest.raises(EncodeError):
            await tools.call("nothing")
        await register("read", "state_programs:read")
        with pytest.raises(ToolExecutionFailed, match="'never'"):
            await tools.call("read", {"name": "never"})
