"""Variables as code in real workers sees them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from running_platform import running_platform
from variable_values import same

from snakepit.errors import ConfigurationError, EncodeError, WorkerLost
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.errors import (
    NotAllowed,
    QuotaExceeded,
    ReadOnlyVariable,
    UnsupportedType,
    ValidationFailed,
    VariableNotFound,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, Quotas
from snakepit_grpc_bridge.variables.types import DatasetHandle, ModelHandle, Secret, VariableType

pytestmark = pytest.mark.slow

VALUES: dict[str, Any] = {
    "text": "zwölf", "whole": -(10**40), "number": float("inf"), "yes": False, "bytes": b"\0\xff",
    "list": [1, [2.5, None]], "map": {"a": {"b": [True]}}, "nothing": {},
    "moment": datetime(2024, 2, 29, 12, 0, 0, 7, timezone(timedelta(hours=-3))),
    "nan": float("nan"), "minus-zero": -0.0, "none": None, "any": {"a": [{1, 2}, Decimal("1.10")]},
}  # fmt: skip
#: A type, a value that the host writes, another that the worker does, and constraints.
DECLARED: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("datetime", VALUES["moment"], datetime(2024, 2, 29, tzinfo=UTC), {}),
    ("choice", "a", 2, {"choices": ["a", 2]}),
    ("module", "dspy.Predict", "dspy.ReAct", {}),
    ("any", {1, 2}, Decimal("1.10"), {}),
    ("integer", None, 1, {"nullable": True}),
    ("float", 0.5, None, {"nullable": True}),
    ("float", float("nan"), -0.0, {}),
    ("float", -0.0, float("nan"), {}),
    ("embedding", (0.1, 2.0), (1.0, -0.0), {}),
]
ARRAYS = [
    np.arange(6, dtype="<i2").reshape(2, 3),
    np.arange(6, dtype=">i4"),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(20, dtype=np.uint8)[::-3],
    np.empty((0, 4), np.float32),
    np.array(2.0 + 3.0j),
    np.array([1.5, 2.5], np.float16),
]


async def run(platform: Platform, session_id: str | None, function: str, *args: Any) -> Any:
    return await platform.python.call(f"state_programs.{function}", args, session_id=session_id)


async def test_values_of_every_type_go_both_ways() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        variables, home = platform.variables, session.id
        for name, value in VALUES.items():
            await variables.put(home, name, value)
            assert same(await run(platform, home, "read", name), value)
            back = f"{name}-back"
            assert same(await run(platform, home, "write_and_read", back, value), value)
            assert same(await variables.get(home, back), value)
        for number, (type_name, first, second, constraints) in enumerate(DECLARED):
            name = f"declared-{number}"
            await variables.create(home, name, type_name, first, constraints=constraints)
            assert same(await run(platform, home, "read", name), first)
            assert same(await run(platform, home, "write_and_read", name, second), second)
            assert same(await variables.get(home, name), second)
        for number, array in enumerate(ARRAYS):
            name = f"array-{number}"
            await variables.create_tensor(home, name, array)
            seen = await run(platform, home, "describe", name)
            assert (seen["type"], seen["writeable"]) == ("ndarray", False)
            assert (seen["dtype"], seen["shape"]) == (array.dtype.str, list(array.shape))
            assert seen["fortran"] == (array.flags.f_contiguous and not array.flags.c_contiguous)
            assert seen["sum"] == array.sum()
            await run(platform, home, "write", f"{name}-back", array)
            back = await variables.get(home, f"{name}-back")
            assert back.dtype == array.dtype
            assert np.array_equal(back, array)
        await variables.create_embedding(home, "embedding", [1, 2.5])
        seen = await run(platform, home, "describe", "embedding")
        here = await variables.get(home, "embedding")
        assert (seen["type"], seen["value"]) == (type(here).__name__, here)


async def test_handles_secrets_and_types_of_ones_own() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        variables, home = platform.variables, session.id
        await variables.create_model(home, "model", ModelHandle("file:///m.gguf", {"size": 3}))
        await variables.create_dataset(home, "dataset", DatasetHandle("s3://bucket/d"))
        await variables.put(home, "key", Secret("hush"))
        assert await run(platform, home, "describe", "model") == {
            "type": "ModelHandle", "location": "file:///m.gguf", "metadata": {"size": 3},
        }  # fmt: skip
        assert await run(platform, home, "describe", "dataset") == {
            "type": "DatasetHandle", "location": "s3://bucket/d", "metadata": {},
        }  # fmt: skip
        for name, what in {"model": "object", "new": "function", "any": "type"}.items():
            with pytest.raises(EncodeError):
                await run(platform, home, "write_live", name, what)
        assert (await variables.get(home, "model")).location == "file:///m.gguf"
        assert await variables.exists(home, "new") is False
        counter = await platform.dspy.create_instance("bridge_programs.Counter", session_id=home)
        await variables.set(home, "model", ModelHandle(f"stored.{counter}"))
        handle = await variables.get(home, "model")
        assert await platform.dspy.call(handle.location, session_id=home) == 1
        assert await run(platform, home, "describe", "key") == {
            "type": "Secret", "text": "Secret('***')", "inside": "hush",
        }  # fmt: skip
        with pytest.raises(UnsupportedType, match="written by the host only"):
            await run(platform, home, "write_secret", "key")
        variables.types.register_type(
            VariableType(
                name="price", expects="an amount", read=Decimal, to_plain=str, from_plain=Decimal
            )
        )
        await variables.create(home, "price", "price", "1.10")
        # The worker does not know that type: it sees what is stored.
        assert await run(platform, home, "read", "price") == "1.10"
        await run(platform, home, "write", "price", "2.20")
        assert await variables.get(home, "price") == Decimal("2.20")


async def test_a_handle_that_a_worker_writes_stays_what_it_is() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        variables, home, location = platform.variables, session.id, "s3://bucket/it"
        classes = ["ModelHandle", "DatasetHandle", "ModelHandle"]
        assert await run(platform, home, "write_handles", location) == classes
        assert {each.name: (each.type, each.value) for each in await variables.list(home)} == {
            "new-model": ("model", ModelHandle(location, {"size": 3})),
            "new-dataset": ("dataset", DatasetHandle(location)),
            "updated-model": ("model", ModelHandle(location, {"size": 3})),
        }
        await variables.create_dataset(home, "new-model", location, overwrite=True)
        with pytest.raises(ValidationFailed, match="takes a DatasetHandle, not"):
            await run(platform, home, "write_handles", location)


async def test_a_private_type_of_ones_own_is_a_secret_in_workers_and_in_the_storage(
    tmp_path: Path,
) -> None:
    keys = (Secret(Fernet.generate_key().decode()),)
    url = f"sqlite:///{tmp_path}/state.db"
    async with (
        running_platform(storage=url, secret_keys=keys) as platform,
        platform.sessions.open() as session,
    ):
        variables, home = platform.variables, session.id
        variables.types.register_type(
            VariableType(name="pin", expects="a PIN", read=read_pin, private=True)
        )
        await variables.create(home, "pin", "pin", "1234")
        with pytest.raises(ValidationFailed, match="takes a PIN, not this value"):
            await variables.set(home, "pin", "12345")
        assert await variables.get(home, "pin") == Secret("1234")
        assert await run(platform, home, "describe", "pin") == {
            "type": "Secret", "text": "Secret('***')", "inside": "1234",
        }  # fmt: skip
        variables.types.register_type(
            VariableType(name="bare", expects="text", read=str, private=True)
        )
        with pytest.raises(ConfigurationError, match="'bare' is private, so its `read` has to"):
            await variables.create(home, "bare", "bare", "x")


def read_pin(value: Any) -> Secret:
    secret = value if type(value) is Secret else Secret(value)
    if len(secret.reveal()) != 4:
        raise ValueError
    return secret


async def test_a_call_reaches_its_own_session_and_the_global_one() -> None:
    async with (
        running_platform() as platform,
        platform.sessions.open() as one,
        platform.sessions.open() as other,
    ):
        await platform.variables.put(GLOBAL_SESSION, "x", "everybody's")
        await platform.variables.put(one.id, "x", "one's")
        await platform.variables.put(one.id, "private", 1)
        assert await run(platform, one.id, "read", "x") == "one's"
        assert await run(platform, other.id, "read", "x") == "everybody's"
        assert await run(platform, None, "read", "x") == "everybody's"
        for session_id in (other.id, None):
            with pytest.raises(VariableNotFound, match="'private'"):
                await run(platform, session_id, "read", "private")
        await run(platform, other.id, "write", "x", "other's")
        assert await platform.variables.get(GLOBAL_SESSION, "x") == "everybody's"
        assert await run(platform, one.id, "read", "x") == "one's"
        # Of a call without a session nothing is left.
        assert await run(platform, None, "write_and_read", "x", "nobody's") == "nobody's"
        assert await run(platform, None, "read", "x") == "everybody's"


async def test_what_is_refused_is_refused_in_the_worker_too() -> None:
    async with running_platform() as platform:
        session = await platform.sessions.start("s", quotas=Quotas(variables=3))
        variables = platform.variables
        await variables.create("s", "t", "float", 1.0, constraints={"max": 2})
        await variables.create("s", "pi", "float", 3.14, read_only=True)
        with pytest.raises(VariableNotFound) as caught:
            await run(platform, "s", "read", "q")
        assert (caught.value.details["name"], caught.value.similar) == ("q", [])
        with pytest.raises(VariableNotFound, match="similar names: 'pi'") as caught:
            await run(platform, "s", "read", "pie")
        assert caught.value.similar == ["pi"]
        with pytest.raises(ValidationFailed, match="at most"):
            await run(platform, "s", "write", "t", 3.0)
        with pytest.raises(ReadOnlyVariable):
            await run(platform, "s", "write", "pi", 3)
        with pytest.raises(ValidationFailed, match="no variable name"):
            await run(platform, "s", "write", "no name", 3)
        await run(platform, "s", "write", "last", 1)
        with pytest.raises(QuotaExceeded):
            await run(platform, "s", "write", "too-many", 1)
        assert await variables.get("s", "t") == 1.0
        await variables.delete("s", "last")
        await variables.create("s", "key", "secret", "host's")
        with pytest.raises(NotAllowed, match="by the host only"):
            await run(platform, "s", "write", "key", "worker's")
        assert (await variables.get("s", "key")).reveal() == "host's"
        assert session.quotas.variables == 3


async def test_reading_again_asks_nobody_and_is_never_too_old() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        variables, home = platform.variables, session.id
        await variables.update_many(home, {"a": 1, "b": [1]})
        await variables.put(GLOBAL_SESSION, "g", 1)

        async def questions(*names: str) -> int:
            return int(await run(platform, home, "questions_for", list(names)))

        assert await questions("a", "a", "b", "g", "none", "none") == 4
        assert await questions("a", "b", "g", "none") == 0
        assert await run(platform, home, "change_what_was_read", "b") == [1]
        for write in (
            variables.put(home, "a", 2), variables.put(GLOBAL_SESSION, "g", 2),
            variables.delete(home, "a"), variables.put(home, "none", 0),
        ):  # fmt: skip
            await write
            assert await questions("a", "a") == 1
            assert await questions("a") == 0
        # What a worker writes it need not ask for.
        await run(platform, home, "write", "a", 5)
        assert await questions("a") in (0, 1)
        # What has a time to live is not kept.
        await variables.create(home, "short", "integer", 1, ttl=60)
        await questions("short")
        assert await questions("short", "short") == 2


async def test_every_acknowledged_write_is_seen_by_the_calls_after_it() -> None:
    rng = random.Random(7)
    async with running_platform(workers=2) as platform:
        sessions = [(await platform.sessions.start(concurrency=2)).id for _ in range(3)]
        expected: dict[tuple[str, str], int] = {}
        for number in range(150):
            home, name = rng.choice([*sessions, GLOBAL_SESSION]), rng.choice("ab")
            if rng.random() < 0.3 and home != GLOBAL_SESSION:
                await run(platform, home, "write", name, number)
            else:
                await platform.variables.put(home, name, number)
            expected[home, name] = number
            reader = rng.choice(sessions)
            want = expected.get((reader, name), expected.get((GLOBAL_SESSION, name), -1))
            seen = await asyncio.gather(
                *(run(platform, reader, "read_or", name, -1) for _ in range(2))
            )
            assert seen == [want, want], number


async def test_a_session_that_is_opened_anew_sees_nothing_of_the_one_before() -> None:
    async with running_platform() as platform:
        for number in range(3):
            async with platform.sessions.open("again"):
                assert await run(platform, "again", "read_or", "x", None) is None
                await platform.variables.put("again", "x", number)
                assert await run(platform, "again", "read", "x") == number


async def test_who_wrote_is_known_and_watchers_are_told() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        async with await platform.variables.watch(session.id) as watch:
            await run(platform, session.id, "write", "x", 1)
            change = await asyncio.wait_for(anext(watch), 30)
            identity = platform.pool.workers()[0].worker_id
            assert (change.name, change.value, change.updated_by) == ("x", 1, identity)
        (variable,) = await platform.variables.list(session.id)
        assert variable.updated_by == identity


async def test_workers_list_and_delete_variables_and_ask_whether_there_are_any() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        variables, home = platform.variables, session.id
        shared = await variables.put(GLOBAL_SESSION, "a", "everybody's")
        await variables.put(home, "a", 1)
        made = await variables.put(home, "b", 0.5)
        await variables.create(home, "key", "secret", "hush")
        own = await variables.get_variable(home, "a")
        assert await run(platform, home, "names_of_variables", "?") == [
            ["a", "integer", 0, "session", own.id], ["b", "float", 0, "session", made.id],
        ]  # fmt: skip
        async with await variables.watch(home, "a", initial=False) as watch:
            # Its own one hides the global one, which is there again.
            seen = await run(platform, home, "delete", "a")
            assert seen == [1, True, True, "everybody's"]
            change = await asyncio.wait_for(anext(watch), 30)
            worker_id = platform.pool.workers()[0].worker_id
            assert (change.kind, change.source, change.updated_by) == (
                "deleted", "worker", worker_id,
            )  # fmt: skip
        assert await run(platform, home, "delete", "a") == [
            "everybody's", False, True, "everybody's",
        ]  # fmt: skip
        assert await run(platform, home, "names_of_variables", "a") == [
            ["a", "string", 0, "global", shared.id],
        ]  # fmt: skip
        assert await run(platform, home, "delete_async", "b") == [True, 0.5, True, False, []]
        with pytest.raises(NotAllowed, match="by the host only"):
            await run(platform, home, "delete", "key")
        assert [one.name for one in await variables.list(home)] == ["key"]


async def test_an_id_means_the_same_variable_in_workers(storage_url: str) -> None:
    async with (
        running_platform(storage=storage_url) as platform,
        platform.sessions.open() as session,
    ):
        variables, home = platform.variables, session.id
        shared = await variables.put(GLOBAL_SESSION, "n", -1)
        first = await variables.put(home, "n", 1)
        seen = await run(platform, home, "write_by_id", "n", first.id, 10)
        assert seen == [1, 1, 10, 10, 11, 11, 12, 12]
        assert await run(platform, home, "read", shared.id) == -1
        assert await run(platform, home, "read", "n") == 12
        with pytest.raises(VariableNotFound, match="another session"):
            await run(platform, home, "write", shared.id, 0)
        assert (await variables.get_variable(home, first.id)).source == "worker"
        assert await run(platform, home, "delete", first.id) == [12, True, False, None]
        second = await variables.put(home, "n", 5)
        uses: dict[str, list[Any]] = {"read": [], "write": [7], "update_with": ["double"]}
        for function, given in uses.items():
            with pytest.raises(VariableNotFound) as caught:
                await run(platform, home, function, first.id, *given)
            assert caught.value.details["successor"] == second.id
        assert await run(platform, home, "read_or", first.id, "gone") == "gone"
        assert await run(platform, home, "delete", first.id) == [None, False, False, None]
        assert await run(platform, home, "read", "n") == 5


async def test_threads_and_coroutines_of_a_call() -> None:
    async with running_platform() as platform, platform.sessions.open() as session:
        await platform.variables.put(session.id, "x", 1)
        assert await run(platform, session.id, "read_in_threads", "x", 8) == [1] * 8
        assert await run(platform, session.id, "read_and_write_async", "x", 2) == [1, 2]
        assert await platform.variables.get(session.id, "x") == 2


async def test_a_large_array_arrives_as_a_read_only_view() -> None:
    array = np.random.default_rng(1).random(2_000_000)
    async with running_platform() as platform, platform.sessions.open() as session:
        await platform.variables.put(session.id, "weights", array)
        array[:] = 0  # what was put is not what the caller goes on with
        seen = await run(platform, session.id, "describe", "weights")
        again = await run(platform, session.id, "describe", "weights")
        stored = await platform.variables.get(session.id, "weights")
        # Nothing was copied: what the worker sees is the memory that it shares with the host.
        assert await run(platform, session.id, "memory_of", "weights") == "mmap"
        assert not stored.flags.writeable
        assert seen == again
        assert (seen["writeable"], seen["sum"]) == (False, stored.sum())
        assert stored.sum() > 0


async def test_updates_from_workers_lose_nothing() -> None:
    async with running_platform(workers=2) as platform:
        session = await platform.sessions.start("s", concurrency=4)
        await asyncio.gather(
            *(run(platform, "s", "count_up_variable", "n", 25) for _ in range(2)),
            *(run(platform, "s", "count_up_together", "n", 5, 5) for _ in range(2)),
        )
        assert await platform.variables.get("s", "n") == 100
        # The global one is what a session begins with; it writes its own.
        await platform.variables.put(GLOBAL_SESSION, "m", 7)
        assert await run(platform, session.id, "update_with", "m", "double") == 14
        assert await platform.variables.get(GLOBAL_SESSION, "m") == 7
        for what, error in {
            "text": ValidationFailed, "error": ZeroDivisionError,
        }.items():  # fmt: skip
            with pytest.raises(error):
                await run(platform, session.id, "update_with", "m", what)
        with pytest.raises(VariableNotFound):
            await run(platform, session.id, "update_with", "never", "double")
        assert await platform.variables.get("s", "m") == 14
        begun = await run(platform, session.id, "update_in_place", ["first", "second"])
        assert begun == [["ada"], ["ada"], []]


async def test_calls_and_streams_of_a_strict_session_go_on_with_another_worker() -> None:
    async with running_platform(workers=2) as platform:
        session = await platform.sessions.start("s", affinity="strict_queue")
        await platform.tools.register("nothing", lambda: None)
        for use in ("call", "stream"):
            before = await run(platform, session.id, "pid")
            with pytest.raises(WorkerLost):
                await run(platform, session.id, "dies_after_calling", "nothing")
            if use == "stream":
                items = platform.python.stream(
                    "state_programs.count_up", [2], session_id=session.id
                )
                assert [item async for item in items] == [0, 1]
            assert await run(platform, session.id, "pid") != before


async def test_a_session_may_have_a_process_of_its_own() -> None:
    async with running_platform() as platform:
        await platform.sessions.start("alone", isolation="session")
        await platform.sessions.start("shared")
        await platform.variables.put("alone", "x", 1)
        pids = {name: await run(platform, name, "pid") for name in ("alone", "shared")}
        assert pids["alone"] != pids["shared"] == platform.pool.workers()[0].pid
        assert await run(platform, "alone", "pid") == pids["alone"]
        assert await run(platform, "alone", "keep", "secret") == ["secret"]
        assert await run(platform, "shared", "keep", "other") == ["other"]
        assert await run(platform, "alone", "write_and_read", "x", 2) == 2
        counter = await platform.dspy.create_instance("bridge_programs.Counter", session_id="alone")
        assert await platform.dspy.call(f"stored.{counter}", session_id="alone") == 1
        await platform.sessions.close("alone")
        with pytest.raises(ProcessLookupError):
            os.kill(pids["alone"], 0)
        await platform.sessions.start("alone", isolation="session")
        assert await run(platform, "alone", "keep", "new") == ["new"]


async def test_a_tool_may_close_the_session_that_has_a_process_of_its_own() -> None:
    async with running_platform() as platform:
        await platform.sessions.start("alone", isolation="session")

        async def close() -> bool:
            return await platform.sessions.close("alone")

        await platform.tools.register("close", close)
        # Or closing would wait for the call, and the call for the tool.
        assert await run(platform, "alone", "call", "close", {}) is True
        assert not await platform.sessions.exists("alone")


async def test_workers_of_two_hosts_see_each_others_writes(sqlite_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(running_platform(storage=sqlite_url)) for _ in range(2)
        ]
        await one.sessions.start("s")
        for number in range(10):
            writer, reader = (one, other) if number % 2 else (other, one)
            await run(writer, "s", "write", "x", number)
            assert await run(reader, "s", "read", "x") == number
        assert dataclasses.asdict((await other.sessions.get("s")).quotas)["variables"] == 1000
