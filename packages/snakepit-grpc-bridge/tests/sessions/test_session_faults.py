"""Sessions when callers go away, rows can't be read, and the storage is gone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from state_services import State, running_state

from snakepit.testing import until
from snakepit_grpc_bridge.errors import OutcomeUnknown, StorageUnavailable
from snakepit_grpc_bridge.sessions.rows import SESSIONS
from snakepit_grpc_bridge.storage import Transaction
from snakepit_grpc_bridge.variables.writing import ANY_VERSION


class Stop:
    """A place in a transaction, which runs in a thread, where it waits for a test."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.go = threading.Event()

    def __call__(self, *_: object) -> int:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self.go.wait(30)
        return 1


async def cancel_at(stop: Stop, task: asyncio.Task[object]) -> None:
    await stop.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stop.go.set()


async def test_a_session_whose_closing_was_cancelled_is_released(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as state:
        stop, released = Stop(), asyncio.Event()

        async def release(_: str) -> None:
            released.set()

        state.sessions.on_end(stop)
        state.sessions.on_close(release)
        watch = await state.variables.watch("s")
        await cancel_at(stop, asyncio.create_task(state.sessions.close("s")))
        async with asyncio.timeout(30):
            await released.wait()
            assert [change async for change in watch] == []
        assert not await state.sessions.exists("s")


async def test_a_write_whose_caller_was_cancelled_is_told(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as state:
        await state.variables.put("s", "n", 0)
        stop, watch = Stop(), await state.variables.watch("s", "n", initial=False)
        await cancel_at(stop, asyncio.create_task(state.variables.update("s", "n", stop)))
        await state.variables.put("s", "later", 0)
        change = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
        assert change.done()  # and not only when it is looked for what other hosts have written
        assert (change.result().kind, change.result().value) == ("updated", 1)


async def test_a_row_that_can_not_be_read_does_not_keep_others_from_expiring(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    async with running_state(url) as state:
        await state.sessions.start("short", ttl=5)
        await state.variables.create("s", "bad", "list", [1], ttl=1)
    with closing(sqlite3.connect(tmp_path / "state.db")) as database, database:
        database.execute("UPDATE variables SET value = x'c1'")
    async with running_state(url) as state:
        swept = asyncio.Event()

        async def sweeper() -> None:
            swept.set()

        state.sessions.on_sweep(sweeper)
        state.clock.now += 10
        assert await state.sessions.sweep() == 1
        assert swept.is_set()
        assert "variables" in caplog.text


async def test_a_session_that_is_used_while_others_are_swept_goes_on() -> None:
    async with running_state() as state:
        await state.sessions.start("busy", ttl=100)
        for number in range(30):
            await state.sessions.start(f"idle-{number}", ttl=1)

        async def use(_: str) -> None:
            if state.clock.now < 1_000_099.0:
                state.clock.now = 1_000_099.0
                await state.sessions.get("busy")
                state.clock.now = 1_000_101.0

        state.sessions.on_close(use)
        state.clock.now += 2
        assert await state.sessions.sweep() == 30
        assert await state.sessions.exists("busy")


async def test_a_storage_that_is_gone_does_not_hide_why_a_block_was_left() -> None:
    async with running_state() as state:

        async def fail() -> None:
            async with state.sessions.open():
                await state.storage.aclose()
                raise ValueError("first")

        with pytest.raises(ValueError, match="first"):
            await fail()


async def test_what_was_done_in_a_temporary_session_is_done_although_the_storage_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_state() as state:
        released = []

        async def release(session_id: str) -> None:
            released.append(session_id)

        state.sessions.on_close(release)
        async with state.sessions.open_temporary() as session_id:
            await state.variables.put(session_id, "n", 1)
            await state.storage.aclose()
        assert released == [session_id]
        assert "was not closed" in caplog.text
        with pytest.raises(StorageUnavailable):
            await state.sessions.close("s")


async def test_a_temporary_session_that_has_written_nothing_ends_without_the_storage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_state() as state:
        async with state.sessions.open_temporary() as session_id:
            assert await state.variables.get(session_id, "n", None) is None
            await state.storage.aclose()
        assert "was not closed" not in caplog.text


async def test_what_a_temporary_session_has_come_to_hold_goes_with_it(storage_url: str) -> None:
    def tool() -> None: ...

    async with running_state(storage_url) as state:
        ways: list[Callable[[str], Awaitable[object]]] = [
            lambda session: state.variables.put(session, "n", 1),
            lambda session: state.access.put_from_worker(session, "n", 1, ANY_VERSION, "a worker"),
            lambda session: state.tools.register("tool", tool, session_id=session),
        ]
        for hold in ways:
            async with state.sessions.open_temporary() as session_id:
                await hold(session_id)
                assert await state.storage.read(lambda tx: tx.count(SESSIONS.span())) == 3
            assert await state.storage.read(lambda tx: tx.count(SESSIONS.span())) == 2


def lose_the_next_answer(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction is committed, and nobody is told."""
    transact = state.storage.transact

    async def committed(work: Callable[[Transaction], Any]) -> None:
        monkeypatch.setattr(state.storage, "transact", transact)
        await transact(work)
        raise OutcomeUnknown("the answer was lost")

    monkeypatch.setattr(state.storage, "transact", committed)


@pytest.mark.parametrize("end", ["close", "sweep"])
async def test_a_session_that_ended_without_an_answer_is_released(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_state() as state:
        released: list[str] = []

        async def release(session_id: str) -> None:
            released.append(session_id)

        state.sessions.on_close(release)
        await state.sessions.start("held", ttl=10)
        async with state.sessions.turn("held"):
            pass
        await state.sessions.sweep()
        if end == "close":
            ending: Awaitable[object] = state.sessions.close("held")
        else:
            state.clock.now += 11
            ending = state.sessions.sweep()
        lose_the_next_answer(state, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await ending
        assert released == []
        await state.sessions.sweep()
        assert released == ["held"]


async def test_a_write_without_an_answer_is_told_to_those_who_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_state() as state:
        await state.variables.put("s", "n", 0)
        looks: list[str] = []

        async def look() -> str:
            looks.append("the same as ever")
            return looks[0]

        monkeypatch.setattr(state.storage, "foreign_version", look)
        watch = await state.variables.watch("s", "n", initial=False)
        # When it looks a second time for what others have written, it has seen all there was.
        await until(lambda: len(looks) == 2, "it looks again")
        lose_the_next_answer(state, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await state.variables.put("s", "n", 1)
        async with asyncio.timeout(30):
            assert (await anext(watch)).value == 1
