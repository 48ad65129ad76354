"""The events of the platform: each is provoked, says what the catalogue has, and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_platform import running_platform
from state_services import running_state

from snakepit.telemetry import bus
from snakepit.testing import EventRecorder
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.errors import ToolExecutionFailed, ValidationFailed, VariableNotFound
from snakepit_grpc_bridge.telemetry import EVENTS
from snakepit_grpc_bridge.variables import Secret

DOCUMENT = Path(__file__).parents[3] / "docs" / "telemetry.md"
SPECS = {spec.full_name: spec for spec in EVENTS}
SECRET = "hunter2-hunter2"


@pytest.fixture
def events() -> Iterator[EventRecorder]:
    with EventRecorder("snakepit_grpc_bridge.*") as events:
        yield events
    for name, measurements, metadata in events.events:
        spec = SPECS[name]
        assert set(measurements) == set(spec.measurements), name
        assert set(metadata) == set(spec.metadata), name
        assert 0.0 <= measurements.get("duration_s", 0.0) < 600.0
        assert SECRET not in repr(metadata)


def ends(events: EventRecorder, name: str, **labels: Any) -> list[dict[str, Any]]:
    told = events.told(f"snakepit_grpc_bridge.{name}", **labels)
    return [dict(event.metadata) for event in told]


def sizes(events: EventRecorder, end: str) -> list[float]:
    told = events.told(f"snakepit_grpc_bridge.tools.execution.{end}")
    return [event.measurements["parameters_bytes"] for event in told]


async def test_operations_are_told_with_their_outcome(events: EventRecorder) -> None:
    async with running_state() as state:
        await state.sessions.start("t", ttl=10)
        await state.variables.create("t", "x", "string", SECRET)
        await state.variables.put(session_id="t", name="y", value=Secret(SECRET))
        assert await state.variables.get("t", "x") == SECRET
        with pytest.raises(VariableNotFound):
            await state.variables.get("t", "z")
        with pytest.raises(ValidationFailed):
            await state.variables.set("t", "x", 5)
        await state.tools.register("tool", lambda: 1, session_id="t")
        await state.sessions.close("t")
        await state.sessions.start("u", ttl=10)
        state.clock.now += 20
        await state.sessions.sweep()
    common = {"session_id": "t", "error": None, "error_type": None, "success": True}
    operations = ends(events, "variables.operation")
    assert operations[:3] == [
        {"operation": "create", "name": "x", **common},
        {"operation": "put", "name": "y", **common},
        {"operation": "get", "name": "x", **common},
    ]
    failed = {"success": False, "session_id": "t"}
    assert operations[3:] == [
        {"operation": "get", "name": "z", **failed, "error": "variable_not_found",
         "error_type": "VariableNotFound"},
        {"operation": "set", "name": "x", **failed, "error": "validation_failed",
         "error_type": "ValidationFailed"},
    ]  # fmt: skip
    assert ends(events, "tools.operation") == [{"operation": "register", "name": "tool", **common}]
    told = [each["operation"] for each in ends(events, "sessions.operation", session_id="t")]
    assert told == ["start", "close"]
    assert ends(events, "session.ended") == [
        {"session_id": "t", "reason": "closed"},
        {"session_id": "u", "reason": "expired"},
    ]


async def test_another_hosts_closing_is_told(events: EventRecorder, sqlite_url: str) -> None:
    async with running_state(sqlite_url) as one, running_state(sqlite_url) as other:
        await one.sessions.start("t")
        async with one.sessions.turn("t"):
            pass
        await other.sessions.close("t")
        events.events.clear()
        await one.sessions.sweep()
    assert ends(events, "session.ended") == [{"session_id": "t", "reason": "another host"}]


@pytest.mark.slow
async def test_tools_and_programs_are_told(
    events: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "snakepit_grpc_bridge.platform")
    async with running_platform() as platform, platform.sessions.open("s"):
        assert "platform started: sessions, variables, tools; workers: 1" in caplog.messages

        def fails(text: str) -> None:
            raise LookupError(text)

        await platform.tools.register("fails", fails)
        with pytest.raises(ToolExecutionFailed):
            await run(platform, "call", "fails", {"text": SECRET})
        assert await run(platform, "pid") == platform.pool.workers()[0].pid
        worker_id = platform.pool.workers()[0].worker_id
    labels = {"tool": "fails", "session_id": "s", "kind": "host", "worker_id": worker_id}
    assert ends(events, "tools.execution.start") == [labels]
    assert sizes(events, "start") == sizes(events, "exception") == [8 + len("text" + SECRET)]
    (failed,) = ends(events, "tools.execution.exception")
    assert failed == {
        **labels,
        "success": False,
        "error": "tool_execution_failed",
        "error_type": "ToolExecutionFailed",
    }
    programs = ends(events, "program.start")
    assert programs == [
        {"command": "python.call", "target": f"state_programs.{name}", "session_id": "s"}
        for name in ("call", "pid")
    ]
    assert [each["success"] for each in ends(events, "program.exception")] == [False]
    assert [each["target"] for each in ends(events, "program.stop")] == ["state_programs.pid"]
    assert not ends(events, "tools.execution.stop")


@pytest.mark.slow
async def test_successful_calls_of_tools_are_told(events: EventRecorder) -> None:
    async with running_platform() as platform, platform.sessions.open("s"):
        tools = platform.tools

        async def letters(text: str) -> AsyncIterator[str]:
            for letter in text:
                yield letter

        await tools.register("one", lambda: 1)
        await tools.register("letters", letters)
        await tools.register_python_function("pid", "state_programs:pid")
        await tools.register_python_function("count", "state_programs:count_up")
        worker = platform.pool.workers()[0]
        assert await tools.call("one", {}, "s") == 1
        assert await run(platform, "call", "one", {}) == 1
        assert await tools.call("pid", {}, "s") == worker.pid
        assert await run(platform, "call", "pid", {}) == worker.pid
        for name, given in (("letters", {"text": SECRET}), ("count", {"to": 3})):
            items = [item async for item in tools.stream(name, given, "s")]
            assert await run(platform, "stream", name, given) == items
    expected: list[dict[str, Any]] = [
        {"tool": tool, "session_id": "s", "kind": kind, "worker_id": worker_id}
        for tool, kind in (("one", "host"), ("pid", "worker"), ("letters", "host"),
                           ("count", "worker"))
        for worker_id in (None, worker.worker_id)
    ]  # fmt: skip
    assert ends(events, "tools.execution.start") == expected
    success = {"success": True, "error": None, "error_type": None}
    assert ends(events, "tools.execution.stop") == [labels | success for labels in expected]
    assert not ends(events, "tools.execution.exception")
    assert sizes(events, "start") == sizes(events, "stop") == [0] * 4 + [27] * 2 + [18] * 2


async def test_measuring_parameters_harms_no_call(events: EventRecorder) -> None:
    async with running_state() as state:

        def take(value: Any) -> int:
            return len(value)

        await state.tools.register("take", take)
        endless: list[Any] = []
        endless.append(endless)
        assert await state.tools.call("take", {"value": endless}) == 1
        assert await state.tools.call("take", {"value": np.zeros(8)}) == 8
    endless_size, array_size = sizes(events, "stop")
    assert endless_size < 50_000
    assert array_size == 8 + len("value") + 64


async def run(platform: Platform, function: str, *args: Any) -> Any:
    return await platform.python.call(f"state_programs.{function}", args, session_id="s")


async def test_nothing_is_told_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(bus, "tell", lambda event, *_: told.append(event))
    async with running_state() as state:
        await state.variables.put("s", "x", 1)
        await state.sessions.close("s")
    assert told == []


def test_the_document_has_the_table_of_all_events() -> None:
    documented = re.findall(r"^\| `snakepit_grpc_bridge\..*\|$", DOCUMENT.read_text(), re.M)
    assert documented == [row(*spec) for spec in EVENTS]


def row(name: str, measurements: tuple[str, ...], metadata: tuple[str, ...], when: str) -> str:
    numbers, texts = (", ".join(f"`{each}`" for each in cell) for cell in (measurements, metadata))
    return f"| `snakepit_grpc_bridge.{name}` | {numbers} | {texts} | {when} |"
