"""What workers and the host are told of tools, and how long tools by path are there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from running_platform import running_platform

from snakepit.errors import WorkerLost
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.errors import ToolNotFound
from snakepit_grpc_bridge.sessions import Quotas

pytestmark = pytest.mark.slow


async def run(platform: Platform, session_id: str, function: str, *args: Any) -> Any:
    return await platform.python.call(f"state_programs.{function}", args, session_id=session_id)


def price(item: str, count: int = 1) -> float:
    """What things cost.

    Args:
        item: their name.
        count: how many.
    """
    return len(item) * count


def letters(text: str) -> Iterator[str]:
    """One by one."""
    yield from text


async def test_a_worker_is_told_what_there_is_to_know_of_its_tools() -> None:
    async with running_platform() as platform, platform.sessions.open("s"):
        tools = platform.tools
        before = datetime.now(UTC)
        made = [
            await tools.register("price", price),
            await tools.register_python_function(
                "distance", "state_programs:distance", session_id="s"
            ),
            await tools.register("letters", letters, session_id="s"),
        ]
        after = datetime.now(UTC)
        assert [tool.exposure for tool in made] == ["global", "session", "session"]
        listed = await tools.list(session_id="s")
        assert listed == [made[1], made[2], made[0]]  # by name, also the one that is stored
        assert all(before <= tool.registered_at <= after for tool in listed)

        seen = await run(platform, "s", "tools_seen")
        assert seen == [tool.describe() for tool in listed]
        assert [
            (each["name"], each["kind"], each["exposure"], each["streams"]) for each in seen
        ] == [
            ("distance", "worker", "session", False),
            ("letters", "host", "session", True),
            ("price", "host", "global", False),
        ]
        assert [[taken["name"] for taken in each["parameters"]] for each in seen] == [
            ["a", "b", "unit"], ["text"], ["item", "count"],
        ]  # fmt: skip
        assert seen[2]["description"].startswith("What things cost.")
        assert seen[2]["parameters"] == [
            {
                "name": "item", "type": "string", "required": True, "default": None,
                "description": "their name.",
            },
            {
                "name": "count", "type": "integer", "required": False, "default": 1,
                "description": "how many.",
            },
        ]  # fmt: skip
        assert [*seen[2]["schema"]["properties"]] == ["item", "count"]


async def test_a_tool_by_path_is_there_until_it_is_unregistered_or_its_session_ends() -> None:
    async with running_platform() as platform:
        tools = platform.tools
        await platform.sessions.start("s", quotas=Quotas(tools=1))

        async def register() -> None:
            await tools.register_python_function("pid", "state_programs:pid", session_id="s")

        await tools.register("nothing", lambda: None)
        await register()
        first = await run(platform, "s", "pid")
        assert await tools.call("pid", {}, "s") == first
        with pytest.raises(WorkerLost):
            await run(platform, "s", "dies_after_calling", "nothing")
        # It was never the dead worker's own: it runs in the one that came after.
        second = await tools.call("pid", {}, "s")
        assert second != first
        assert second == await run(platform, "s", "pid")

        assert await tools.unregister("pid", session_id="s") is True
        assert await tools.unregister("pid", session_id="s") is False
        with pytest.raises(ToolNotFound) as caught:
            await tools.call("pid", {}, "s")
        assert caught.value.available == ["nothing"]

        await register()  # there is room for one again
        await platform.sessions.close("s")
        await platform.sessions.start("s")
        assert [tool.name for tool in await tools.list(session_id="s")] == ["nothing"]
        with pytest.raises(ToolNotFound):
            await tools.call("pid", {}, "s")
