"""Tools of the host: registering, finding, checking, calling, and what is kept of the calls."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from queue import SimpleQueue
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from state_services import State, running_state

from snakepit.errors import CallTimeout, ConfigurationError, StreamingNotSupported
from snakepit_grpc_bridge.errors import (
    DuplicateTool,
    NotAllowed,
    QuotaExceeded,
    SessionNotFound,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
)
from snakepit_grpc_bridge.sessions import Quotas


def price(item: str, count: int = 1, *, discount: float | None = None) -> float:
    """What some of an item cost.

    More words.
    """
    return {"apple": 2.0}[item] * count * (1 - (discount or 0))


@dataclass
class Basket:
    items: list[str]
    gift: bool = False


def total(
    basket: Basket, currency: Literal["EUR", "CHF"] = "EUR", rate: Annotated[float, "of it"] = 1.0
) -> str:
    """The price of a basket."""
    return f"{len(basket.items) * rate:g} {currency}"


class Shop:
    def __init__(self, stock: int) -> None:
        self.left = stock

    def sell(self, count: int) -> int:
        self.left -= count
        return self.left

    async def __call__(self, count: int) -> int:
        return self.sell(count)


async def call(state: State, name: str, **parameters: Any) -> Any:
    return await state.tools.call(name, parameters, "s")


async def test_a_tool_is_described_by_its_function() -> None:
    async with running_state() as state:
        tool = await state.tools.register("price", price, metadata={"owner": "shop"})
        assert tool.description == "What some of an item cost.\n\nMore words."
        assert [(each.name, each.required) for each in tool.parameters] == [
            ("item", True), ("count", False), ("discount", False),
        ]  # fmt: skip
        assert tool.parameters[1].default == 1
        assert (tool.kind, tool.path, tool.session_id) == ("host", None, "global")
        assert (tool.allow, tool.metadata) == (("*",), {"owner": "shop"})
        assert await state.tools.get("price", session_id="s") == tool
        described = tool.describe()
        assert described["schema"]["required"] == ["item"]
        assert described["streams"] is False


async def test_sync_tools_run_in_a_thread_and_async_ones_on_the_loop() -> None:
    async with running_state() as state:

        async def here() -> str:
            return threading.current_thread().name

        await state.tools.register("sync", lambda: threading.current_thread().name)
        await state.tools.register("async", here)
        assert await call(state, "sync") != threading.current_thread().name
        assert await call(state, "async") == threading.current_thread().name


async def test_every_kind_of_function_is_a_tool() -> None:
    async with running_state() as state:
        shop = Shop(10)
        await state.tools.register("sell", shop.sell)
        await state.tools.register("object", shop)
        await state.tools.register("partial", functools.partial(price, "apple"))
        await state.tools.register("wrapped", lambda count=1: shop(count))
        await state.tools.register("total", total)
        assert await call(state, "sell", count=3) == 7
        assert await call(state, "object", count=1) == 6
        assert await call(state, "partial", count=2) == 4.0
        assert await call(state, "wrapped", count=1) == 5
        basket = {"items": ["apple", "pear"]}
        assert await call(state, "total", basket=basket, rate=2) == "4 EUR"
        with pytest.raises(ValidationFailed, match="currency"):
            await call(state, "total", basket=basket, currency="USD")
        with pytest.raises(ValidationFailed, match="items"):
            await call(state, "total", basket={"gift": True})


async def test_wrong_parameters_never_reach_the_tool() -> None:
    async with running_state() as state:
        tools = state.tools
        await tools.register("price", price)
        with pytest.raises(ValidationFailed) as caught:
            await call(state, "price", cont=3)
        assert caught.value.details["problems"] == [
            "missing: item",
            "unknown: cont; did you mean 'count'?",
        ]
        with pytest.raises(ValidationFailed, match="must be a mapping"):
            await tools.call("price", ["apple"])  # type: ignore[arg-type]
        await tools.register("open", lambda **named: named)
        assert await call(state, "open", a=1) == {"a": 1}

        def year(of: date, add: int = 0) -> int:
            return of.year + add

        await tools.register("year", year)
        assert await call(state, "year", of="2024-02-29") == 2024
        with pytest.raises(ValidationFailed) as caught:
            await call(state, "year", of="2024-02-29", add="1")
        assert caught.value.details["problems"] == ["add: must be an integer, not text"]


async def test_a_given_description_stands_for_a_docstring_that_is_too_long() -> None:
    async with running_state() as state:

        def wordy() -> None: ...

        wordy.__doc__ = "x" * 5000
        with pytest.raises(ValidationFailed, match="its description has 5000 characters"):
            await state.tools.register("wordy", wordy)
        tool = await state.tools.register("wordy", wordy, description="Short.")
        assert tool.description == "Short."


async def test_a_failing_tool_keeps_its_cause() -> None:
    async with running_state() as state:
        await state.tools.register("price", price)
        with pytest.raises(ToolExecutionFailed, match="KeyError") as caught:
            await call(state, "price", item="pear")
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.retryable is False

        class Silent(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        def fails() -> None:
            raise Silent

        await state.tools.register("silent", fails)
        with pytest.raises(ToolExecutionFailed, match="its text can't be had"):
            await call(state, "silent")


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, ExceptionGroup])
async def test_whatever_a_tool_raises_ends_the_tool_alone(kind: type[BaseException]) -> None:
    error = ExceptionGroup("both", [ValueError()]) if kind is ExceptionGroup else kind(2)

    def in_a_thread() -> None:
        raise error

    async def on_the_loop() -> None:
        raise error

    def items() -> Iterator[int]:
        yield 1
        raise error

    async with running_state() as state:
        for function in (in_a_thread, on_the_loop):
            await state.tools.register("fails", function, replace=True)
            with pytest.raises(ToolExecutionFailed, match=kind.__name__) as caught:
                await call(state, "fails")
            assert caught.value.__cause__ is error
        await state.tools.register("items", items)
        with pytest.raises(ToolExecutionFailed, match=kind.__name__):
            assert [item async for item in state.tools.stream("items", {}, "s")] == [1]


async def test_a_sessions_tools_come_before_the_global_ones() -> None:
    async with running_state() as state:
        tools = state.tools
        await tools.register("who", lambda: "everybody")
        await tools.register("who", lambda: "s", session_id="s")
        await tools.register("mine", lambda: "s", session_id="s")
        await state.sessions.start("other")
        assert await tools.call("who", session_id="s") == "s"
        assert await tools.call("who", session_id="other") == "everybody"
        with pytest.raises(ToolNotFound) as caught:
            await tools.call("mine", session_id="other")
        assert caught.value.available == ["who"]
        assert [tool.name for tool in await tools.list(session_id="s")] == ["mine", "who"]
        await state.sessions.close("s")
        with pytest.raises(SessionNotFound):
            await tools.call("who", session_id="s")
        await state.sessions.start("s")
        assert await tools.call("who", session_id="s") == "everybody"


async def test_a_tool_may_be_for_some_sessions_only() -> None:
    async with running_state() as state:
        tools = state.tools
        await tools.register("pay", lambda: "paid", allow=["team-a-*", "boss"])
        for session_id in ("team-a-1", "boss", "team-b-1"):
            await state.sessions.start(session_id)
        assert await tools.call("pay", session_id="team-a-1") == "paid"
        assert await tools.call("pay", session_id="boss") == "paid"
        for other in ("team-b-1", "s", None):
            with pytest.raises(NotAllowed, match=r"may not call the tool 'pay'"):
                await tools.call("pay", session_id=other)
            assert await tools.list(session_id=other) == []
        with pytest.raises(ToolNotFound) as caught:
            await tools.call("play", session_id="s")
        assert caught.value.available == []
        wrong: list[Any] = ["team-*", [1]]
        for allow in wrong:
            with pytest.raises(ValidationFailed, match="list of patterns"):
                await tools.register("x", price, allow=allow)


async def test_registering_is_checked() -> None:
    async with running_state() as state:
        tools = state.tools
        await tools.register("x", price)
        with pytest.raises(DuplicateTool):
            await tools.register("x", price)
        await tools.register("x", lambda: None, replace=True)
        assert await call(state, "x") is None
        assert await tools.unregister("x") is True
        assert await tools.unregister("x") is False
        bad: list[tuple[Any, Any]] = [
            ("no name", price), ("", price), ("x", 3), ("x", lambda a, /: a), ("\ud800", price),
            (None, price),
        ]  # fmt: skip
        for name, function in bad:
            with pytest.raises(ValidationFailed):
                await tools.register(name, function)
        impossible: list[dict[str, Any]] = [
            {"timeout": 0}, {"concurrency": 0}, {"concurrency": 1.5},
        ]  # fmt: skip
        for options in impossible:
            with pytest.raises(ConfigurationError):
                await tools.register("x", price, **options)
        with pytest.raises(ValidationFailed, match="metadata"):
            await tools.register("x", price, metadata={"a": object()})
        with pytest.raises(SessionNotFound):
            await tools.register("x", price, session_id="never")
        assert await tools.list() == []


async def test_of_those_who_register_a_tool_at_once_one_succeeds(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        await state.sessions.start("small", quotas=Quotas(tools=3))

        async def register(session_id: str, name: str) -> type[BaseException] | None:
            try:
                await state.tools.register(name, lambda: 1, session_id=session_id)
            except BaseException as error:
                return type(error)
            return None

        same = await asyncio.gather(*(register("s", "same") for _ in range(10)))
        assert sorted(map(str, same)) == sorted(map(str, [None] + [DuplicateTool] * 9))
        many = await asyncio.gather(*(register("small", f"tool-{n}") for n in range(10)))
        assert many.count(None) == 3
        assert many.count(QuotaExceeded) == 7
        assert len(await state.tools.list(session_id="small")) == 3


async def test_names_and_numbers_that_are_none() -> None:
    async with running_state() as state:
        name: Any
        for name in (5, None, [], "", "a/b", "x" * 1_000_000, "\ud800"):
            with pytest.raises(ValidationFailed, match="name") as caught:
                await state.tools.get(name)
            assert len(str(caught.value)) < 1000
        for limit in (0, -1, "all", True):
            with pytest.raises(ConfigurationError, match="limit"):
                await state.tools.audit(limit=limit)  # type: ignore[arg-type]


async def test_a_session_has_no_more_tools_than_it_may() -> None:
    async with running_state() as state:
        await state.sessions.start("small", quotas=Quotas(tools=1))
        await state.tools.register("a", price, session_id="small")
        with pytest.raises(QuotaExceeded, match="2 tools in session 'small'"):
            await state.tools.register("b", price, session_id="small")
        await state.tools.register("a", price, session_id="small", replace=True)
        await state.tools.unregister("a", session_id="small")
        await state.tools.register("b", price, session_id="small")


# --- limits ---------------------------------------------------------------------------------------


async def test_a_tool_that_takes_too_long() -> None:
    async with running_state() as state:
        stopped = asyncio.Event()

        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async def times_out_itself() -> None:
            raise TimeoutError("of something else")

        await state.tools.register("slow", slow, timeout=timedelta(milliseconds=1))
        await state.tools.register("other", times_out_itself, timeout=60)
        with pytest.raises(
            CallTimeout, match=r"'slow' did not answer within its limit of 0\.001 s"
        ):
            await call(state, "slow")
        assert stopped.is_set()
        with pytest.raises(ToolExecutionFailed, match="of something else"):
            await call(state, "other")


async def test_only_so_many_calls_of_a_tool_run_at_a_time() -> None:
    async with running_state() as state:
        inside = most = 0

        async def busy() -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

        await state.tools.register("busy", busy, concurrency=2)
        await asyncio.gather(*(call(state, "busy") for _ in range(10)))
        assert most == 2


async def test_a_call_that_is_cancelled_gives_its_place_back() -> None:
    async with running_state() as state:
        entered, go = asyncio.Event(), asyncio.Event()

        async def wait() -> str:
            entered.set()
            await go.wait()
            return "done"

        await state.tools.register("wait", wait, concurrency=1)
        first = asyncio.create_task(call(state, "wait"))
        await entered.wait()
        second = asyncio.create_task(call(state, "wait"))
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        assert await second == "done"
        outcomes = [one.outcome for one in await state.tools.audit("s")]
        assert outcomes == ["ok", "cancelled"]
        with pytest.raises(asyncio.CancelledError):
            await first


# --- streams --------------------------------------------------------------------------------------


async def test_generators_are_streamed() -> None:
    ended: SimpleQueue[str] = SimpleQueue()

    def numbers(count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            ended.put("sync")

    async def letters(text: str) -> AsyncIterator[str]:
        try:
            for letter in text:
                yield letter
        finally:
            ended.put("async")

    async with running_state() as state:
        tools = state.tools
        numbers_tool = await tools.register("numbers", numbers)
        await tools.register("letters", letters)
        assert numbers_tool.schema.streams
        assert [item async for item in tools.stream("numbers", {"count": 4}, "s")] == [0, 1, 2, 3]
        assert [item async for item in tools.stream("letters", {"text": "abc"}, "s")] == [*"abc"]
        calls: dict[str, dict[str, Any]] = {"numbers": {"count": 4}, "letters": {"text": "abc"}}
        for name, given in calls.items():
            items = tools.stream(name, given, "s")
            await anext(items)
            await items.aclose()
        # A sync one ends in its thread, and nobody waits for that.
        assert sorted(ended.get(timeout=30) for _ in range(4)) == ["async", "async", "sync", "sync"]
        with pytest.raises(StreamingNotSupported, match=r"'numbers' .* with tools\.stream\(\)"):
            await call(state, "numbers", count=1)
        await tools.register("price", price)
        with pytest.raises(StreamingNotSupported, match=r"'price' .* with tools\.call\(\)"):
            await anext(tools.stream("price", {"item": "apple"}, "s"))
        with pytest.raises(ValidationFailed, match="count"):
            await anext(tools.stream("numbers", {}, "s"))


async def test_a_stream_that_fails_or_stalls() -> None:
    async def breaks() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("half way")

    async def stalls() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with running_state() as state:
        await state.tools.register("breaks", breaks)
        await state.tools.register("stalls", stalls, timeout=0.001)
        seen: list[Any] = []
        with pytest.raises(ToolExecutionFailed, match="half way"):
            await _collect(state, "breaks", seen)
        with pytest.raises(CallTimeout):
            await _collect(state, "stalls", seen)
        assert seen == [1, 1]
        outcomes = [one.outcome for one in await state.tools.audit()]
        assert outcomes == ["call_timeout", "tool_execution_failed"]


async def _collect(state: State, name: str, seen: list[Any]) -> None:
    async for item in state.tools.stream(name, {}, "s"):
        seen.append(item)


async def test_values_of_all_kinds_go_in_and_out() -> None:
    async with running_state() as state:

        def echo(value: Any) -> Any:
            return value

        await state.tools.register("echo", echo)
        for value in (None, 1, 2.5, "x", b"x", [1, {"a": ()}], date(2024, 2, 29)):
            assert await call(state, "echo", value=value) == value
        array = np.arange(3)
        assert (await call(state, "echo", value=array) == array).all()
