"""Sessions in the host alone: their records, their ends, their time and their limits."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from state_services import State, running_state

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import (
    QuotaExceeded,
    SessionExpired,
    SessionNotFound,
    ValidationFailed,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, Quotas
from snakepit_grpc_bridge.sessions.activity import Activity


async def test_records(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        sessions, clock = state.sessions, state.clock
        given = {"user": "ada", "tags": ["a"]}
        async with sessions.open(
            metadata=given, ttl=timedelta(minutes=10), affinity="strict_queue", concurrency=3,
            isolation="session", quotas=Quotas(variables=5),
        ) as session:  # fmt: skip
            given["tags"] = []
            assert session.id.startswith("session_")
            assert session.metadata == {"user": "ada", "tags": ["a"]}
            with pytest.raises(TypeError):
                session.metadata["user"] = "eve"  # type: ignore[index]
            assert session.created.timestamp() == session.last_used.timestamp() == clock.now
            assert session.expires is not None
            assert (session.ttl, session.expires.timestamp()) == (600, clock.now + 600)
            assert (session.affinity, session.concurrency) == ("strict_queue", 3)
            assert (session.isolation, session.quotas.variables) == ("session", 5)
            clock.now += 5
            later = await sessions.get(session.id)
            assert later.last_used - session.last_used == timedelta(seconds=5)
            assert later.created == session.created
            open_ones = [known.id for known in await sessions.list()]
            assert open_ones == sorted([GLOBAL_SESSION, "s", session.id])
        assert await sessions.exists(session.id) is False


async def test_an_id_is_used_once_at_a_time() -> None:
    async with running_state() as state:
        with pytest.raises(ValidationFailed, match="open already"):
            await state.sessions.start("s")
        with pytest.raises(ValidationFailed, match="open already"):
            await state.sessions.start(GLOBAL_SESSION)
        await state.sessions.close("s")
        await state.sessions.start("s")
        ends = await asyncio.gather(
            *(state.sessions.start("twice") for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(end, ValidationFailed) for end in ends) == 4


@pytest.mark.parametrize("wrong", ["", " ", "a\nb", "x" * 300, 7, "a\0", "\ud800"])
async def test_bad_ids(wrong: Any) -> None:
    async with running_state() as state:
        with pytest.raises(ValidationFailed, match="no session id"):
            await state.sessions.start(wrong)
        for use in (state.sessions.exists, state.sessions.close, state.variables.list):
            with pytest.raises(ValidationFailed, match="no session id"):
                await use(wrong)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ttl", 0), ("ttl", -1), ("ttl", float("nan")), ("ttl", 1e12), ("ttl", 1e300),
        ("concurrency", 0), ("concurrency", True),
        ("affinity", "sometimes"), ("isolation", "total"),
    ],
)  # fmt: skip
async def test_bad_options(option: str, value: Any) -> None:
    async with running_state() as state:
        with pytest.raises(ConfigurationError, match=option):
            await state.sessions.start("x", **{option: value})
        assert await state.sessions.exists("x") is False


async def test_metadata_is_plain_data() -> None:
    async with running_state() as state:
        for metadata in ({"a": object()}, {1: 2}, ["a"], {"a": "\ud800"}):
            with pytest.raises(ValidationFailed, match="metadata are a mapping of text"):
                await state.sessions.start("x", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="variables"):
        Quotas(variables=-1)


MANY = {f"key-{number}": 0 for number in range(32)}
LARGE = {"text": "x" * 4087}


@pytest.mark.parametrize(
    ("fits", "too_large", "says"),
    [
        (MANY, MANY | {"one": 0}, r"metadata of 33 entries .* 32 entries and 4096 bytes"),
        (LARGE, {"text": "x" * 4088}, r"metadata of 4097 bytes .* 32 entries and 4096 bytes"),
    ],
    ids=["many", "large"],
)
async def test_metadata_are_small(fits: Any, too_large: Any, says: str) -> None:
    async with running_state() as state:
        variables = state.variables
        await state.sessions.start("fits", metadata=fits)
        await variables.create("s", "fits", "integer", 0, metadata=fits)
        await state.tools.register("fits", a_tool, metadata=fits)
        await variables.set("s", "fits", 1, metadata=fits)
        await variables.create("s", "other", "integer", 0, metadata={"one": 0})
        for refused in (
            state.sessions.start("x", metadata=too_large),
            variables.create("s", "x", "integer", 0, metadata=too_large),
            variables.set("s", "other", 1, metadata=too_large),
            state.tools.register("x", a_tool, metadata=too_large),
        ):
            with pytest.raises(ValidationFailed, match=says):
                await refused
        with pytest.raises(ValidationFailed, match=r"metadata of (33 entries|4101 bytes)"):
            await variables.set("s", "other", 1, metadata=fits)  # together
        other = await variables.get_variable("s", "other")
        assert (other.value, other.metadata) == (0, {"one": 0})


async def test_sessions_end_with_what_they_hold(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        await state.variables.put("s", "x", 1)
        await state.variables.put("s", "x", 2)
        assert await state.sessions.close("s") is True
        assert await state.sessions.close("s") is False
        for use in (
            state.variables.get("s", "x", None),
            state.variables.put("s", "x", 1),
            state.variables.list("s"),
            state.variables.watch("s"),
            state.tools.list(session_id="s"),
            state.sessions.get("s"),
        ):
            with pytest.raises(SessionNotFound) as caught:
                await use
            assert caught.value.session_id == "s"
            assert not isinstance(caught.value, SessionExpired)
        await state.sessions.start("s")
        assert await state.variables.exists("s", "x") is False
        assert await state.variables.history("s", "x") == []


async def test_the_global_session_is_emptied_not_closed(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        await state.variables.put(GLOBAL_SESSION, "x", 1)
        watch = await state.variables.watch(GLOBAL_SESSION)
        open_meanwhile: list[bool] = []

        async def look(session_id: str) -> None:
            open_meanwhile.append(await state.sessions.exists(session_id))

        state.sessions.on_close(look)
        await state.sessions.clear_global()
        assert open_meanwhile == [True]
        assert [change.kind async for change in watch] == ["initial"]
        assert await state.variables.exists("s", "x") is False
        assert await state.sessions.exists(GLOBAL_SESSION)
        await state.variables.put(GLOBAL_SESSION, "x", 1)


async def test_a_failing_close_hook_does_not_keep_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_state() as state:
        closed: list[str] = []

        async def broken(session_id: str) -> None:
            raise RuntimeError("disk on fire")

        async def working(session_id: str) -> None:
            closed.append(session_id)

        state.sessions.on_close(broken)
        state.sessions.on_close(working)
        with caplog.at_level(logging.ERROR):
            await state.sessions.close("s")
        assert closed == ["s"]
        assert "disk on fire" in caplog.text


# --- time -----------------------------------------------------------------------------------------


async def test_a_session_that_is_not_used_expires(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        sessions, clock = state.sessions, state.clock
        await sessions.start("short", ttl=60)
        await sessions.start("for-ever", ttl=None)
        await state.variables.put("short", "x", 1)
        clock.now += 59
        assert await state.variables.get("short", "x") == 1  # a use of it
        clock.now += 59
        assert await sessions.exists("short")  # asking is none
        clock.now += 1
        for _ in range(2):
            with pytest.raises(SessionExpired, match="not used for 60 s") as caught:
                await state.variables.get("short", "x")
            assert isinstance(caught.value, SessionNotFound)
            assert await sessions.exists("short") is False
            await sessions.sweep()
        assert "short" not in [session.id for session in await sessions.list()]
        assert await sessions.close("short") is False
        await sessions.start("short")
        assert await state.variables.exists("short", "x") is False
        clock.now += 10**8
        assert await sessions.exists("for-ever")


async def test_what_a_sweep_ends_is_released() -> None:
    async with running_state() as state:
        released: list[str] = []

        async def release(session_id: str) -> None:
            released.append(session_id)

        state.sessions.on_close(release)
        for number in range(50):
            await state.sessions.start(f"short-{number:02}", ttl=10)
        watch = await state.variables.watch("short-07")
        state.clock.now += 10
        assert await state.sessions.sweep() == 50
        assert await state.sessions.sweep() == 0
        assert sorted(released) == [f"short-{number:02}" for number in range(50)]
        assert [change async for change in watch] == []
        # That they have expired is known for a day, and then forgotten.
        state.clock.now += 86_401
        await state.sessions.sweep()
        with pytest.raises(SessionNotFound) as caught:
            await state.sessions.get("short-07")
        assert not isinstance(caught.value, SessionExpired)


async def test_uses_are_written_down_before_another_host_could_miss_them(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as one, running_state(sqlite_url) as other:
        await one.sessions.start("shared", ttl=100)
        one.sessions.start_sweeping()
        other.clock.now = one.clock.now = one.clock.now + 95
        await one.variables.list("shared")
        # It is swept by the one that knows, within a tenth of the time to live.
        while (await other.sessions.get("shared")).last_used.timestamp() < one.clock.now:
            one.clock.now += 0.01
            await asyncio.sleep(0)  # its own sweeper has a turn
        other.clock.now += 99
        assert await other.sessions.exists("shared")


async def test_a_long_call_is_written_down_in_time_again_and_again(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as one, running_state(sqlite_url) as other:
        await one.sessions.start("busy", ttl=0.5)
        await one.variables.put("busy", "x", 1)
        one.sessions.start_sweeping()
        async with one.sessions.turn("busy"), asyncio.timeout(30):
            for _ in range(10):  # ordinary sweeps would take ten times ten seconds for it
                one.clock.now += 0.4375
                while await last_use(other, "busy") < one.clock.now:
                    pass  # each look waits for a thread, and the sweeper has its turn
                other.clock.now = one.clock.now
                assert await other.sessions.sweep() == 0
            assert await other.variables.get("busy", "x") == 1


async def last_use(state: State, session_id: str) -> float:
    """As it is written down."""
    found = {each.id: each.last_used for each in await state.sessions.list()}
    return found[session_id].timestamp()


def test_what_serves_a_call_is_due_again_after_each_time() -> None:
    activity = Activity()
    assert activity.pause(0.0) == 10.0
    for session_id, ttl in (("read", 1.0), ("busy", 20.0), ("quick", 5.0), ("long", 1e6)):
        activity.note(session_id, ttl, 0.0)
    for session_id in ("busy", "quick", "long"):
        activity.enter(session_id)
    assert activity.pause(0.0) == 0.1
    assert activity.to_write(1.0) == {"read": 0.0, "busy": 1.0, "quick": 1.0, "long": 1.0}
    assert activity.pause(1.0) == 0.5
    activity.forget("quick")  # it has been closed under its call
    assert activity.pause(1.0) == 2.0
    activity.to_write(3.0)
    assert activity.pause(4.0) == 1.0
    activity.leave("busy")
    activity.to_write(5.0)
    assert activity.pause(5.0) == 10.0
    assert activity.pause(64.0) == 1.0  # the one that is long serves a call still


async def test_writing_uses_down_keeps_nobody_waiting_and_forgets_none() -> None:
    async with running_state() as state:
        sessions = [f"s-{number}" for number in range(1000)]
        for session_id in sessions:
            await state.sessions.start(session_id, ttl=100)
        state.clock.now += 99
        for session_id in sessions:
            await state.variables.list(session_id)
        state.clock.now += 2
        sweep = asyncio.create_task(state.sessions.sweep())
        turns = 0
        while not sweep.done():
            # Of those that are not written down yet it is known that they are used.
            assert await state.sessions.exists(sessions[-1])
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 5
        assert await sweep == 0
        used = {session.last_used.timestamp() for session in await state.sessions.list()}
        assert used == {1_000_000.0, state.clock.now - 2}  # the global one and "s"; all others


def a_tool() -> int:
    return 1


async def test_what_another_host_has_ended_is_released_here(sqlite_url: str) -> None:
    async with running_state(sqlite_url) as one, running_state(sqlite_url) as other:
        released: list[str] = []

        async def release(session_id: str) -> None:
            released.append(session_id)

        one.sessions.on_close(release)
        for session_id in ("closed", "anew", "open", "asked", "listed"):
            await one.sessions.start(session_id)
            await one.tools.register("tool", a_tool, session_id=session_id)
        async with one.sessions.open_temporary() as temporary, one.sessions.turn(temporary):
            for session_id in ("closed", "anew", "asked", "listed"):
                await other.sessions.close(session_id)
            for session_id in ("anew", "asked", "listed"):
                await other.sessions.start(session_id)
            async with one.sessions.turn("asked"):
                assert released == ["asked"]
            assert await one.tools.list(session_id="listed") == []
            assert await one.sessions.sweep() == 0
            assert sorted(released) == ["anew", "asked", "closed", "listed"]
            tools = [await one.tools.list(session_id=known) for known in ("anew", "asked", "open")]
            assert list(map(len, tools)) == [0, 0, 1]


async def test_a_session_does_not_expire_while_it_serves_a_call() -> None:
    async with running_state() as state:
        await state.sessions.start("busy", ttl=10)
        async with state.sessions.turn("busy"):
            state.clock.now += 100
            assert await state.sessions.exists("busy")
            await state.sessions.sweep()
            await state.variables.put("busy", "x", 1)
        state.clock.now += 9
        assert await state.sessions.exists("busy")
        state.clock.now += 1
        assert await state.sessions.exists("busy") is False


async def test_expired_sessions_are_swept_without_being_asked() -> None:
    async with running_state(default_ttl=0.05) as state:
        gone = asyncio.Event()

        async def release(session_id: str) -> None:
            gone.set()

        state.sessions.on_close(release)
        await state.sessions.start("short")
        state.clock.now += 1
        state.sessions.start_sweeping()
        await state.sessions.start("other")  # does not keep the sweep from its work
        await asyncio.wait_for(gone.wait(), 30)


# --- limits ---------------------------------------------------------------------------------------


async def test_there_are_no_more_sessions_than_may_be(storage_url: str) -> None:
    async with running_state(storage_url, max_sessions=3) as state:
        await state.sessions.start("two")
        await state.sessions.start("three")
        with pytest.raises(QuotaExceeded, match="4 sessions would be more than the 3"):
            await state.sessions.start("four")
        await state.sessions.close("two")
        await state.sessions.start("four")


async def test_a_temporary_session_is_stored_only_if_it_holds_something() -> None:
    async with running_state() as state:
        async with state.sessions.open_temporary() as temporary:
            assert await state.variables.get(temporary, "x", None) is None
            assert (await state.sessions.get(temporary)).id == temporary
            assert temporary in [session.id for session in await state.sessions.list()]
            await state.variables.put(temporary, "x", 1)
            assert await state.variables.get(temporary, "x") == 1
            await state.variables.put(temporary, "y", 1)
        assert await state.sessions.exists(temporary) is False
        with pytest.raises(SessionNotFound):
            await state.variables.get(temporary, "x")
