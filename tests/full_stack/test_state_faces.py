"""Variables and tools through the faces that users have."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

import dspex
from dspex.errors import (
    CallDepthExceeded,
    CallTimeout,
    NotAllowed,
    QuotaExceeded,
    StreamingNotSupported,
    ToolExecutionFailed,
    ToolNotFound,
    ValidationFailed,
    VariableExists,
    VariableNotFound,
)
from snakepit.testing import wait_until
from snakepit_grpc_bridge.sessions import Quotas
from snakepit_grpc_bridge.testing import ScriptedModel

ANSWERS = ScriptedModel(matches={"": {"answer": "Paris"}})


@pytest.fixture(scope="module")
def client() -> Iterator[dspex.Client]:
    with dspex.Client(
        model=ANSWERS, workers=1, import_allow=("dspy", "stack_programs"), timeout=30
    ) as client:
        yield client


@dataclass
class Search:
    query: str
    limit: int = 10


class Checked(BaseModel):
    limit: int
    ratio: float = 0.5


def test_variables_are_a_mapping(client: dspex.Client) -> None:
    with client.start_session() as session:
        variables = session.variables
        variables["temperature"] = 0.2
        variables.update({"a": 1, "b": [1, 2]})
        assert dict(variables) == {"a": 1, "b": [1, 2], "temperature": 0.2}
        assert len(variables) == 3
        assert "a" in variables
        assert "c" not in variables
        assert variables.pop("a") == 1
        assert variables.get("a", "none") == "none"
        with pytest.raises(KeyError, match="'a'"):
            variables["a"]
        with pytest.raises(VariableNotFound):
            del variables["a"]


def test_updates_of_many_threads_are_all_counted(client: dspex.Client) -> None:
    with client.start_session() as session, ThreadPoolExecutor(8) as threads:
        session.set_variable("visits", 0)
        done = [
            threads.submit(session.update_variable, "visits", lambda visits: visits + 1)
            for _ in range(40)
        ]
        assert sorted(each.result() for each in done) == list(range(1, 41))
        with pytest.raises(VariableNotFound):
            session.update_variable("missing", lambda value: value)


def test_what_has_no_method_is_run_on_the_platform(client: dspex.Client) -> None:
    with client.start_session() as session:
        variables = session.platform.variables
        for limit in (1, 2):
            session.set_variable("limit", limit)
        history = session.run(variables.history(session.id, "limit"))
        assert [version.value for version in history] == [1]

        async def increment() -> None:
            async with variables.transaction(session.id) as transaction:
                transaction.set("limit", await transaction.get("limit") + 1)

        client.run(increment())
        assert dict(session.variables) == {"limit": 3}


def test_variables_are_fields_of_a_class(client: dspex.Client) -> None:
    with client.start_session() as session:
        session.write_variables_from(Search("snakes", 3))
        assert session.variables["limit"] == 3
        assert session.read_variables_as(Search) == Search("snakes", 3)
        assert session.read_variables_as(Checked) == Checked(limit=3, ratio=0.5)
        session.delete_variable("query")
        with pytest.raises(ValidationFailed, match="not set: query"):
            session.read_variables_as(Search)
        with pytest.raises(ValidationFailed):
            session.write_variables_from({"limit": 1})


def test_a_declared_variable_keeps_its_constraints(client: dspex.Client) -> None:
    with client.start_session() as session:
        session.create_variable("limit", "integer", 10, constraints={"max": 100})
        with pytest.raises(VariableExists):
            session.create_variable("limit", "integer", 1)
        with pytest.raises(ValidationFailed, match="at most 100"):
            session.variables["limit"] = 101
        assert session.variables["limit"] == 10


def test_a_watch_is_iterated_over_and_ends(client: dspex.Client) -> None:
    with client.start_session() as session:
        session.variables["x"] = 1
        with session.watch_variables("x") as watch:
            assert (next(watch).kind, session.set_variable("x", 2)) == ("initial", None)
            change = next(watch)
            assert (change.kind, change.old_value, change.value) == ("updated", 1, 2)
        assert list(watch) == []
        watch.close()
        seen: list[Any] = []
        other = session.watch_variables(initial=False)
        reader = threading.Thread(target=lambda: seen.extend(change.name for change in other))
        reader.start()
        session.variables["y"] = 1
        session.close()  # the watch ends with it
        reader.join(30)
        assert not reader.is_alive()
        assert seen == ["y"]


def test_a_callback_of_a_watch_may_use_the_client(client: dspex.Client) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with client.start_session() as session:

        def tell(change: Any) -> None:
            told.put((change.name, session.variables[change.name]))

        with session.watch_variables("x", callback=tell):
            session.variables["x"] = 1
            assert told.get(timeout=30) == ("x", 1)


def test_a_session_takes_its_options(client: dspex.Client) -> None:
    with client.start_session(
        metadata={"user": "ada"}, ttl=timedelta(minutes=5), quotas=Quotas(variables=1)
    ) as session:
        session.variables["x"] = 1
        with pytest.raises(QuotaExceeded, match="variables"):
            session.variables["y"] = 1
        found = client.find_session(session.id)
        assert found.variables["x"] == 1


def test_tools_take_their_options(client: dspex.Client) -> None:
    with client.start_session("team-a") as ours, client.start_session("team-b") as theirs:
        entered = threading.Event()

        @client.tool(allow=["team-a"], timeout=0.05, replace=True)
        def slow() -> None:
            entered.wait(30)

        def numbers(count: int) -> Iterator[int]:
            yield from range(count)

        with pytest.raises(CallTimeout, match="'slow'"):
            ours.call_tool("slow")
        entered.set()
        with pytest.raises(NotAllowed):
            theirs.call_tool("slow")
        ours.register_tool("numbers", numbers)
        with pytest.raises(StreamingNotSupported, match=r"stream_tool\(\)"):
            ours.call_tool("numbers", {"count": 2})
        client.unregister_tool("slow")
        with pytest.raises(ToolNotFound):
            ours.call_tool("slow")


def test_what_a_tool_yields_is_iterated_over(client: dspex.Client) -> None:
    ended: list[str] = []

    def numbers(start: int) -> Iterator[int]:
        try:
            yield from itertools.count(start)
        finally:
            ended.append("numbers")

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    with client.start_session() as session:
        session.register_tool("numbers", numbers, concurrency=1)
        for _ in range(2):  # its place is free again at once
            with contextlib.closing(session.stream_tool("numbers", {"start": 5})) as items:
                assert [next(items), next(items)] == [5, 6]
        wait_until(lambda: ended == ["numbers"] * 2, "both are closed, in their threads")
        with pytest.raises(ToolNotFound):
            next(client.stream_tool("numbers", {"start": 5}))
        session.register_tool("broken", broken)
        items = session.stream_tool("broken")
        assert next(items) == 1
        with pytest.raises(ToolExecutionFailed, match="KeyError: 'x'"):
            next(items)
        session.register_tool("plain", lambda: 1)
        with pytest.raises(StreamingNotSupported, match=r"call_tool\(\)"):
            next(session.stream_tool("plain"))


def test_a_plain_tool_that_calls_itself_ends_with_a_typed_error(client: dspex.Client) -> None:
    with client.start_session() as session:
        depths: list[int] = []

        def again(depth: int) -> int:
            depths.append(depth)
            return session.call_tool("again", {"depth": depth + 1}) if depth else 0

        # It runs within its limit: none of its calls waits for the place of another.
        session.register_tool("again", again, concurrency=1)
        assert session.call_tool("again", {"depth": 0}) == 0
        depths.clear()
        with pytest.raises(CallDepthExceeded, match="33 calls deep"):
            session.call_tool("again", {"depth": 1})
        assert depths == [*range(1, 33)]


def test_a_function_of_the_workers_becomes_a_tool(client: dspex.Client) -> None:
    with client.start_session() as session:
        session.register_python_function("add", "stack_programs:add", idempotent=True)
        assert session.call_tool("add", {"left": 1, "right": 2}) == 3
        with pytest.raises(ValidationFailed, match="right"):
            session.call_tool("add", {"left": 1})
        with pytest.raises(NotAllowed):
            session.register_python_function("system", "os:system")
