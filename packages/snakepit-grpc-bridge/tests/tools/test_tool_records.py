"""The records that calls of tools leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from state_services import State, running_state

from snakepit.testing import until
from snakepit_grpc_bridge.errors import ToolExecutionFailed, ValidationFailed
from snakepit_grpc_bridge.tools import audit


async def price(item: str) -> float:
    """What an item costs."""
    return {"apple": 0.5}[item]


async def test_every_call_leaves_a_record_without_what_went_in_or_out(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        tools = state.tools
        await tools.register("price", price)
        await tools.call("price", {"item": "apple"}, "s")
        with pytest.raises(ToolExecutionFailed):
            await tools.call("price", {"item": "pear"}, "s")
        await tools.call("price", {"item": "apple"})
        with pytest.raises(ValidationFailed):
            await tools.call("price", {}, "s")  # it did not run
        newest, oldest = await tools.audit("s")
        assert (oldest.tool, oldest.session_id, oldest.caller, oldest.outcome) == (
            "price", "s", None, "ok",
        )  # fmt: skip
        assert newest.outcome == "tool_execution_failed"
        assert oldest.started <= newest.started
        assert 0 <= oldest.duration < 60
        assert [one.session_id for one in await tools.audit()] == ["global", "s", "s"]
        assert len(await tools.audit(limit=1)) == 1
        await state.sessions.close("s")
        assert len(await tools.audit("s")) == 2  # it outlives the session
        assert "apple" not in repr(await tools.audit())


async def test_records_of_many_calls_are_all_written(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as state:
        await state.tools.register("nothing", lambda: None)
        await asyncio.gather(*(state.tools.call("nothing", {}, "s") for _ in range(500)))
    async with running_state(sqlite_url) as state:
        records = await state.tools.audit("s", limit=1000)
        assert [record.outcome for record in records] == ["ok"] * 500


async def test_a_stream_that_outlives_its_platform_leaves_nothing_that_goes_on() -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async with running_state() as state:
        await state.tools.register("count", count)
        items = state.tools.stream("count", {}, "s")
        assert await anext(items) == 0
    await items.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_done_with_variables_and_tools_is_logged_without_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "snakepit_grpc_bridge"):
        async with running_state() as state:
            await state.variables.create("s", "fruit", "string", "canary")
            await state.tools.register("price", price, session_id="s")
            with pytest.raises(ToolExecutionFailed):
                await state.tools.call("price", {"item": "canary"}, "s")
            assert await state.tools.unregister("price", session_id="s")
            assert not await state.tools.unregister("price", session_id="s")
    assert [record.getMessage() for record in caplog.records] == [
        "variable 'fruit' of type 'string' created in session 's'",
        "tool 'price' registered in session 's'",
        "tool execution failed: 'price' in session 's': KeyError",
        "tool 'price' unregistered from session 's'",
    ]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are written down when a test says so, however long its calls take."""
    monkeypatch.setattr(audit, "_PAUSE", 3600.0)


def write_down(state: State) -> None:
    """Have what was gathered written down now."""
    state.tools._audit._full.set()


@pytest.mark.usefixtures("unhurried")
async def test_records_wait_for_a_storage_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "state.db"
    async with running_state(f"sqlite:///{database}") as state:
        await state.tools.register("price", price)
        for item in ("apple", "pear"):
            with contextlib.suppress(ToolExecutionFailed):
                await state.tools.call("price", {"item": item}, "s")
        away = database.rename(tmp_path / "away.db")
        write_down(state)
        await until(lambda: "2 records of calls of tools wait" in caplog.text, "nothing is written")
        away.rename(database)
        await state.tools.call("price", {"item": "apple"}, "s")
        outcomes = [record.outcome for record in await state.tools.audit("s")]
        assert outcomes == ["ok", "tool_execution_failed", "ok"]


@pytest.mark.usefixtures("unhurried")
async def test_of_records_that_wait_the_oldest_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_MOST_WAITING", 2)
    database = tmp_path / "state.db"
    async with running_state(f"sqlite:///{database}") as state:
        await state.tools.register("price", price)
        await state.tools.register("free", lambda: 0)
        await state.tools.call("free", {}, "s")
        for _ in range(2):
            await state.tools.call("price", {"item": "apple"}, "s")
        away = database.rename(tmp_path / "away.db")
        write_down(state)
        await until(lambda: "2 records of calls of tools wait" in caplog.text, "nothing is written")
        assert "1 are lost" in caplog.text
        away.rename(database)
        assert [record.tool for record in await state.tools.audit("s")] == ["price", "price"]


@pytest.mark.usefixtures("unhurried")
async def test_records_of_a_storage_that_stays_away_are_told_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "state.db"
    async with running_state(f"sqlite:///{database}") as state:
        await state.tools.register("price", price)
        await state.tools.call("price", {"item": "apple"}, "s")
        database.rename(tmp_path / "away.db")
        await state.tools.aclose()
        await state.tools.aclose()
    assert caplog.text.count("1 records of calls of tools are lost") == 1
