"""Tools in the host alone: registering, finding, checking and calling."""

from __future__ import annotations

import threading
from datetime import date

import pytest

from snakepit_grpc_bridge.errors import (
    DuplicateTool,
    SessionNotFound,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
)
from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.tools import ToolService


def price(item: str, count: int = 1, *, discount: float | None = None) -> float:
    """What some of an item cost.

    More words.
    """
    return {"apple": 2.0}[item] * count * (1 - (discount or 0))


async def _started() -> tuple[SessionService, ToolService]:
    sessions = SessionService()
    await sessions.start("s")
    return sessions, ToolService(sessions)


async def test_a_tool_is_described_by_its_function() -> None:
    _, tools = await _started()
    tool = await tools.register("price", price)
    assert tool.description == "What some of an item cost."
    assert [(each.name, each.type, each.required) for each in tool.parameters] == [
        ("item", "string", True),
        ("count", "integer", False),
        ("discount", "any", False),
    ]
    assert tool.parameters[1].default == 1


async def test_sync_tools_run_in_a_thread_and_async_ones_on_the_loop() -> None:
    _, tools = await _started()

    async def here() -> str:
        return threading.current_thread().name

    await tools.register("sync", lambda: threading.current_thread().name)
    await tools.register("async", here)
    assert await tools.call("sync") != threading.current_thread().name
    assert await tools.call("async") == threading.current_thread().name
    await tools.register("price", price)
    assert await tools.call("price", {"item": "apple", "count": 3}) == 6.0


async def test_wrong_parameters_never_reach_the_tool() -> None:
    _, tools = await _started()
    await tools.register("price", price)
    with pytest.raises(ValidationFailed) as caught:
        await tools.call("price", {"cont": 3})
    assert caught.value.details["problems"] == [
        "missing: item",
        "unknown: cont; did you mean 'count'?",
    ]
    with pytest.raises(ValidationFailed, match="must be a mapping"):
        await tools.call("price", ["apple"])  # type: ignore[arg-type]
    await tools.register("open", lambda **named: named)
    assert await tools.call("open", {"a": 1}) == {"a": 1}


async def test_parameters_become_what_the_annotations_say() -> None:
    _, tools = await _started()

    def year(of: date, add: int = 0) -> int:
        return of.year + add

    await tools.register("year", year)
    assert await tools.call("year", {"of": "2024-02-29"}) == 2024
    with pytest.raises(ValidationFailed) as caught:
        await tools.call("year", {"of": "2024-02-29", "add": "1"})
    assert caught.value.details["problems"] == ["add: must be an integer, not text"]


async def test_a_given_description_stands_for_a_docstring_that_is_too_long() -> None:
    _, tools = await _started()

    def wordy() -> None: ...

    wordy.__doc__ = "x" * 5000
    with pytest.raises(ValidationFailed, match="its description has 5000 characters"):
        await tools.register("wordy", wordy)
    assert (await tools.register("wordy", wordy, description="Short.")).description == "Short."


async def test_a_failing_tool_keeps_its_cause() -> None:
    _, tools = await _started()
    await tools.register("price", price)
    with pytest.raises(ToolExecutionFailed, match="KeyError") as caught:
        await tools.call("price", {"item": "pear"})
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.retryable is False


async def test_a_sessions_tools_come_before_the_global_ones() -> None:
    sessions, tools = await _started()
    await tools.register("who", lambda: "everybody")
    await tools.register("who", lambda: "s", session_id="s")
    await tools.register("mine", lambda: "s", session_id="s")
    await sessions.start("other")
    assert await tools.call("who", session_id="s") == "s"
    assert await tools.call("who", session_id="other") == "everybody"
    with pytest.raises(ToolNotFound) as caught:
        await tools.call("mine", session_id="other")
    assert caught.value.available == ["who"]
    assert [tool.name for tool in await tools.list(session_id="s")] == ["mine", "who"]
    await sessions.close("s")
    with pytest.raises(SessionNotFound):
        await tools.call("who", session_id="s")
    await sessions.start("s")
    assert await tools.call("who", session_id="s") == "everybody"


async def test_registering_is_checked() -> None:
    _, tools = await _started()
    await tools.register("x", price)
    with pytest.raises(DuplicateTool):
        await tools.register("x", price)
    await tools.register("x", lambda: None, replace=True)
    assert await tools.unregister("x") is True
    assert await tools.unregister("x") is False
    for name, function in [("no name", price), ("", price), ("x", 3), ("x", lambda a, /: a)]:
        with pytest.raises(ValidationFailed):
            await tools.register(name, function)  # type: ignore[arg-type]

    def stream() -> object:
        yield 1

    with pytest.raises(ValidationFailed, match="generator"):
        await tools.register("x", stream)
