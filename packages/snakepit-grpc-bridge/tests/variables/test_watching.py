"""Watching variables: what is told, in which order, and to whom."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from state_services import State, running_state

from snakepit_grpc_bridge.errors import SessionNotFound
from snakepit_grpc_bridge.variables import VariableChange, Watch
from snakepit_grpc_bridge.variables.types import Secret


def told(change: VariableChange) -> tuple[Any, ...]:
    return change.name, change.kind, change.old_value, change.value


async def next_of(watch: Watch) -> tuple[Any, ...]:
    return told(await asyncio.wait_for(anext(watch), 30))


async def rest_of(state: State, watch: Watch) -> list[tuple[Any, ...]]:
    """All that was told until now: the end of a session ends its watches."""
    await state.sessions.close(watch.session_id)
    return [told(change) async for change in watch]


async def test_the_life_of_a_variable_is_told_as_it_happens(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.put("s", "t", 1)
        async with await variables.watch("s", "t") as watch:
            assert await next_of(watch) == ("t", "initial", None, 1)
            await variables.put("s", "t", 2, by="worker-1")
            change = await anext(watch)
            assert told(change) == ("t", "updated", 1, 2)
            assert (change.version, change.updated_by, change.session_id) == (1, "worker-1", "s")
            assert change.updated_at.timestamp() == state.clock.now
            await variables.delete("s", "t")
            assert await next_of(watch) == ("t", "deleted", 2, None)
            await variables.update_many("s", {"t": 3, "other": 1})
            assert await next_of(watch) == ("t", "created", None, 3)
            await variables.rollback("s", "t", 0)
            assert await next_of(watch) == ("t", "updated", 3, 1)


async def test_what_comes_after_a_forgotten_deletion_is_told() -> None:
    async with running_state() as state:
        variables, place = state.variables, state.sessions.global_id
        await variables.put(place, "n", 1)
        watch = await variables.watch(place, "n", initial=False)
        await variables.delete(place, "n")
        assert await next_of(watch) == ("n", "deleted", 1, None)
        state.clock.now += 31 * 86_400
        await state.sessions.sweep()
        assert (await variables.put(place, "n", 2)).version == 0
        assert await next_of(watch) == ("n", "created", None, 2)


async def test_a_secret_that_is_written_again_is_not_told(storage_url: str) -> None:
    keys = [Secret(Fernet.generate_key().decode())]
    async with running_state(storage_url, secret_keys=keys) as state:
        await state.variables.create("s", "key", "secret", "one")
        watch = await state.variables.watch("s", "key")
        assert await next_of(watch) == ("key", "initial", None, Secret("one"))
        await state.variables.set("s", "key", "one")
        await state.variables.set("s", "key", "two")
        change = await anext(watch)
        assert told(change) == ("key", "updated", Secret("one"), Secret("two"))
        assert change.missed == 0


async def test_a_secret_whose_key_is_gone_is_overwritten_and_told(sqlite_url: str) -> None:
    old, new = (Secret(Fernet.generate_key().decode()) for _ in range(2))
    async with running_state(sqlite_url, secret_keys=[old]) as state:
        await state.variables.create("s", "key", "secret", "one")
    async with running_state(sqlite_url, secret_keys=[new]) as state:
        watch = await state.variables.watch("s", "other")
        await state.variables.set("s", "key", "two")
        assert await state.variables.get("s", "key") == Secret("two")
        await state.variables.put("s", "other", 1)
        assert await next_of(watch) == ("other", "created", None, 1)


async def test_only_what_is_watched_is_told() -> None:
    async with running_state() as state:
        variables = state.variables
        await state.sessions.start("other")
        some = await variables.watch("s", "a", "b", initial=False)
        every = await variables.watch("s")
        for session_id in ("other", "global", "s"):
            for name in "cab":
                await variables.put(session_id, name, session_id)
        assert [name for name, *_ in await rest_of(state, some)] == ["a", "b"]
        assert sorted(name for name, *_ in [told(change) async for change in every]) == [*"abc"]


async def test_a_write_that_changes_nothing_is_not_told() -> None:
    nan = float("nan")
    async with running_state() as state:
        same = {
            "number": nan, "text": "a", "map": {"a": [1, nan]}, "grid": np.array([[1.0, nan]]),
        }  # fmt: skip
        await state.variables.update_many("s", same)
        watch = await state.variables.watch("s", initial=False)
        await state.variables.update_many("s", same)
        for name in same:
            await state.variables.update("s", name, lambda value: value)
        with pytest.raises(ZeroDivisionError):
            await state.variables.update("s", "number", lambda value: 1 / 0)
        # But these are changes: of the sign, of the type of a number, of an element.
        await state.variables.create("s", "zero", "float", 0.0)
        await state.variables.set("s", "zero", -0.0)
        await state.variables.set("s", "map", {"a": [1.0, nan]})
        await state.variables.set("s", "grid", np.array([[1.0, 2.0]]))
        assert [name for name, *_ in await rest_of(state, watch)] == ["zero", "map", "grid"]


async def test_without_initial_values_the_first_change_is_known_by_its_old_value() -> None:
    async with running_state() as state:
        await state.variables.put("s", "t", 1)
        async with await state.variables.watch("s", initial=False) as watch:
            await state.variables.put("s", "t", 2)
            assert await next_of(watch) == ("t", "updated", 1, 2)


async def test_a_slow_watcher_gets_the_newest_and_how_many_it_missed() -> None:
    async with running_state() as state, await state.variables.watch("s") as watch:
        for number in range(100):
            await state.variables.put("s", "n", number)
        await state.variables.put("s", "gone", 1)
        await state.variables.delete("s", "gone")
        change = await anext(watch)
        assert (change.kind, change.value, change.missed) == ("created", 99, 99)
        await state.variables.put("s", "n", 5)
        assert await next_of(watch) == ("n", "updated", 99, 5)
        assert await rest_of(state, watch) == []


async def test_no_change_is_missed_between_the_first_look_and_the_watch() -> None:
    async with running_state() as state:
        await state.variables.put("s", "n", 0)
        stop = False

        async def write() -> None:
            while not stop:
                await state.variables.update("s", "n", lambda number: number + 1)
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        for _ in range(50):
            async with await state.variables.watch("s", "n") as watch:
                seen = (await anext(watch)).value
                for _ in range(3):
                    change = await anext(watch)
                    # As if every change was told: what was missed is counted.
                    assert change.old_value == seen
                    assert change.value == seen + 1 + change.missed
                    seen = change.value
        stop = True
        await writing


async def test_a_callback_is_told_in_order_whatever_it_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []
    told_of: asyncio.Queue[int] = asyncio.Queue()

    async def later(change: VariableChange) -> None:
        await asyncio.sleep(0)
        seen.append(change.value)
        told_of.put_nowait(change.value)
        if change.value == 1:
            raise RuntimeError("not that one")
        if change.value == 2:
            raise asyncio.CancelledError("of something that it waited for")

    async with running_state() as state:
        with caplog.at_level(logging.ERROR):
            watch = await state.variables.watch("s", "n", callback=later)
            for number in range(4):
                await state.variables.put("s", "n", number)
                assert await told_of.get() == number
        assert "not that one" in caplog.text
        assert "of something that it waited for" in caplog.text
        assert "the callback of a watch on variable 'n'" in caplog.text
        watch.close()
        await state.variables.watch(
            "s", callback=lambda change: told_of.put_nowait(-change.value), initial=False
        )
        await state.variables.put("s", "n", 4)
        assert await told_of.get() == -4
        assert seen == [0, 1, 2, 3]


async def test_a_watch_ends_with_its_session_after_what_was_told() -> None:
    async with running_state() as state:
        watch = await state.variables.watch("s")
        await state.variables.put("s", "a", 1)
        assert await rest_of(state, watch) == [("a", "created", None, 1)]
        with pytest.raises(SessionNotFound):
            await state.variables.watch("s")
        waiting = asyncio.create_task(anext(await state.variables.watch("global"), None))
        await asyncio.sleep(0)
    assert await waiting is None  # the platform has ended


async def test_a_variable_whose_time_is_over_is_told_as_deleted() -> None:
    async with running_state() as state:
        await state.variables.create("s", "code", "string", "1", ttl=5)
        watch = await state.variables.watch("s", initial=False)
        state.clock.now += 5
        await state.sessions.sweep()
        assert await rest_of(state, watch) == [("code", "deleted", "1", None)]


async def test_what_another_host_writes_is_told(database_url: str) -> None:
    async with running_state(database_url) as one, running_state(database_url) as other:
        await one.variables.put("s", "n", 1)
        async with await one.variables.watch("s") as watch:
            assert await next_of(watch) == ("n", "initial", None, 1)
            await other.variables.put("s", "n", 2)
            assert await next_of(watch) == ("n", "updated", 1, 2)
            await other.variables.put("s", "m", 1)
            assert await next_of(watch) == ("m", "created", None, 1)
            await other.variables.delete("s", "n")
            assert await next_of(watch) == ("n", "deleted", 2, None)
            await one.variables.put("s", "n", 7)
            assert await next_of(watch) == ("n", "created", None, 7)
            await other.sessions.close("s")
            assert [change async for change in watch] == []


async def test_looking_for_what_others_write_is_no_use_of_a_session(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as one, running_state(sqlite_url) as other:
        await one.sessions.start("watched", ttl=10)
        await one.variables.watch("watched")
        watch = await one.variables.watch("s")
        one.clock.now = other.clock.now = one.clock.now + 9
        await other.variables.put("s", "n", 1)
        # Sessions are looked at in the order in which they came to be watched.
        assert await next_of(watch) == ("n", "created", None, 1)
        one.clock.now += 1
        assert await one.sessions.exists("watched") is False
