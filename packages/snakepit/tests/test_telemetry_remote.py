"""What workers tell reaches the host: events, if somebody listens; correlation ids; traces."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import until
from telemetry_worker import Worker
from told_events import proves, told

from snakepit import Pool, PythonAdapter, telemetry
from snakepit.errors import ProtocolError, RemoteError
from snakepit.link.remote_events import BURST, RATE, Budget
from snakepit.telemetry import bus
from snakepit.testing import EventRecorder, Gate
from snakepit.wire.codec import encode
from snakepit.wire.events import (
    BODY_BYTES,
    Event,
    encode_event,
    events_frame,
    fitting,
    read_events,
    read_listen,
)
from snakepit.wire.frames import Frame, FrameDecoder, FrameType

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHILD = TRACEPARENT.replace("00f067aa0ba902b7", "1111111111111111")
OTHER = CHILD.replace("4bf9", "5bf9")
SHOP = {"pool": "shop", "worker_id": "shop-1"}


def new_pool(**options: Any) -> Pool:
    config = options.pop("config", None)
    adapter = PythonAdapter("telemetry_worker:Worker", config=config)
    return Pool(adapter, **{"size": 1, "name": "shop", **options})


# --- events of workers ---------------------------------------------------------------------------


async def test_an_event_of_a_command_reaches_who_listens_in_the_host() -> None:
    async with new_pool() as pool:
        with EventRecorder("shop.*") as events:
            args = {"name": "shop.order", "measurements": {"items": 3}, "metadata": {"kind": "b"}}
            correlation_id = await pool.execute("tell", args)
            told = await events.wait_for("shop.order")
    assert told.measurements == {"items": 3}
    assert told.metadata == {"kind": "b", **SHOP, "correlation_id": correlation_id}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_event_names_the_call_it_was_told_in(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        with EventRecorder("shop.*") as events:
            calls = (pool.execute("tell_async", {"name": f"shop.n{n}"}) for n in range(6))
            ids = await asyncio.gather(*calls)
            for number, correlation_id in enumerate(ids):
                told = await events.wait_for(f"shop.n{number}")
                assert told.metadata["correlation_id"] == correlation_id


async def test_the_call_is_named_the_same_in_its_own_events_and_in_those_of_its_code() -> None:
    async with new_pool() as pool:
        with EventRecorder(["snakepit.call.*", "shop.*"]) as events:
            correlation_id = await pool.execute("tell", {"name": "shop.order"})
            told = await events.wait_for("shop.order")
    stop = events.assert_told("snakepit.call.stop")
    assert stop.metadata["correlation_id"] == told.metadata["correlation_id"] == correlation_id


async def test_an_event_that_is_told_after_its_call_names_no_call() -> None:
    async with new_pool() as pool:
        with EventRecorder("shop.*") as events, Gate() as gate:
            await pool.execute("tell_later", {"gate": gate.key})
            await gate.reached()
            gate.open()
            late = await events.wait_for("shop.late")
    assert late.metadata == {**SHOP, "correlation_id": None}


async def test_nobody_pays_while_nobody_listens_and_changes_reach_workers_that_run() -> None:
    async with new_pool(size=2) as pool:
        await pool.await_ready(20.0)
        assert not await pool.execute("listens")
        with EventRecorder("snakepit.*"):
            assert not await pool.execute("listens"), "nothing of that can come from a worker"
        await pool.execute("tell", {"name": "shop.order"})
        with EventRecorder("shop.*") as events:
            await pool.execute("tell", {"name": "depot.order"})
            await pool.execute("tell", {"name": "shop.second"})
            await events.wait_for("shop.second")
            with EventRecorder("depot.*") as more:
                await pool.execute("tell", {"name": "depot.order"})
                await more.wait_for("depot.order")
        assert events.names == ["shop.second"]
        assert more.names == ["depot.order"]
        assert not await pool.execute("listens")


async def test_workers_that_start_later_are_told_what_is_listened_to() -> None:
    with EventRecorder("shop.*") as events:
        async with new_pool(config={"told_at_birth": 2}) as pool:
            await until(lambda: len(events.events) == 2, "those of the first worker have come")
            pool.recycle("shop-1")
            await until(lambda: len(events.events) == 4, "those of its successor, too")
    workers = [event.metadata["worker_id"] for event in events.events]
    assert workers == ["shop-1", "shop-1", "shop-2", "shop-2"]
    assert {event.metadata["correlation_id"] for event in events.events} == {None}


async def test_spans_in_workers_reach_the_host() -> None:
    async with new_pool() as pool:
        with EventRecorder("shop.delivery.*") as events:
            await pool.execute("span", {"fail": False})
            with pytest.raises(RemoteError):
                await pool.execute("span", {"fail": True})
            await events.wait_for("shop.delivery.exception", error_type="ValueError")
    stop = events.assert_told("shop.delivery.stop", kind="book", parcels=2)
    assert stop.measurements["duration_s"] >= 0.0
    assert "do not tell" not in repr(events.events)


async def test_events_from_many_threads_all_arrive_in_their_order() -> None:
    async with new_pool() as pool:
        with EventRecorder("shop.*") as events:
            await pool.execute("tell_in_threads", {"threads": 4, "count": 50})
            await until(lambda: len(events.events) == 200, "all have come")
    for thread in range(4):
        numbers = [e.measurements["number"] for e in events.told("shop.order", thread=thread)]
        assert numbers == list(range(50))


@proves("telemetry.dropped")
async def test_what_can_not_travel_is_dropped_and_counted() -> None:
    async with new_pool() as pool:
        with told() as own, EventRecorder("shop.*") as events:
            correlation_id = await pool.execute("tell_what_can_not_travel")
            await events.wait_for("shop.order", correlation_id=correlation_id)
            dropped = await own.wait_for("snakepit.telemetry.dropped")
    (event,) = events.events
    assert event.measurements["items"] == 3
    assert math.isnan(event.measurements["ratio"])
    assert event.metadata == {
        "paid": True, "to": None, **SHOP, "correlation_id": correlation_id
    }  # fmt: skip
    assert dropped.metadata == {**SHOP, "by": "worker"}
    counts = [each.measurements["events"] for each in own.told("snakepit.telemetry.dropped")]
    assert sum(counts) == 4


async def test_a_worker_never_waits_for_a_host_that_does_not_read() -> None:
    async with new_pool() as pool:
        with told() as own, EventRecorder("shop.*") as events:
            worker: Any = pool._workforce.workers["shop-1"]
            loop, control = asyncio.get_running_loop(), worker._control
            loop.remove_reader(control._sock)
            # More than its buffer, the socket's and this process's can hold.
            await pool.execute("tell_many", {"count": 5000, "padding": 1000})
            assert events.events == []
            loop.add_reader(control._sock, control._on_readable)

            def dropped() -> float:
                found = own.told("snakepit.telemetry.dropped", by="worker")
                return sum(event.measurements["events"] for event in found)

            await until(lambda: len(events.events) + dropped() == 5000, "all are told of")
    numbers = [event.measurements["number"] for event in events.events]
    assert numbers[:1024] == list(range(1024)), "what came first was kept"
    assert numbers == sorted(set(numbers))
    assert dropped() > 0


async def test_a_worker_can_not_tell_events_of_the_library() -> None:
    async with new_pool() as pool:
        with told() as own, EventRecorder("*") as events:
            await pool.execute("tell", {"name": "snakepit.call.stop", "metadata": {"pool": "x"}})
            await pool.execute("tell", {"name": "shop.order"})
            await events.wait_for("shop.order")
    assert {event.metadata["pool"] for event in own.told("snakepit.call.stop")} == {"shop"}


async def test_a_worker_can_not_claim_to_be_another() -> None:
    async with new_pool() as pool:
        with EventRecorder("shop.*") as events:
            forged = {"pool": "depot", "worker_id": "depot-1", "correlation_id": "x"}
            args = {"name": "shop.order", "metadata": forged}
            correlation_id = await pool.execute("tell", args)
            told = await events.wait_for("shop.order")
    assert told.metadata == {**SHOP, "correlation_id": correlation_id}


async def test_a_worker_that_floods_is_cut_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.link.remote_events.BURST", 10.0)
    monkeypatch.setattr("snakepit.link.remote_events.RATE", 0.0)
    async with new_pool() as pool:
        with told() as own, EventRecorder("shop.*") as events:
            await pool.execute("tell_many", {"count": 100})

            def dropped() -> float:
                found = own.told("snakepit.telemetry.dropped", by="host")
                return sum(event.measurements["events"] for event in found)

            await until(lambda: dropped() == 90, "the rest is counted")
            assert [e.measurements["number"] for e in events.events] == list(range(10))
            assert await pool.execute("listens")


async def test_a_failing_handler_of_a_workers_event_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(*_: Any) -> None:
        raise ValueError

    async with new_pool() as pool:
        handler_id = telemetry.attach("shop.*", failing)
        await pool.execute("tell", {"name": "shop.order"})
        await until(lambda: "failing" in caplog.text, "it has failed")
        assert not telemetry.detach(handler_id)
        assert pool.stats().workers_lost == 0


# --- events in workers ---------------------------------------------------------------------------


@proves("command.start", "command.stop", "command.exception")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_commands_tell_those_who_listen_in_their_worker(concurrency: int) -> None:
    async with new_pool(concurrency=concurrency) as pool:
        await pool.execute("listen_here", {"pattern": "snakepit.command.*"})
        await pool.execute("context", session_id="ada")
        assert [item async for item in pool.execute_stream("count", {"n": 2})] == [0, 1]
        with pytest.raises(RemoteError):
            await pool.execute("fail", {"message": "do not tell"})
        found = [
            event for event in await pool.execute("told_here") if event[2]["command"] != "told_here"
        ]
    events = [(name.rpartition(".")[2], metadata["command"]) for name, _, metadata in found]
    # It began to listen in the middle of the first one.
    assert [e for e in events if e[1] != "listen_here"] == [
        ("start", "context"), ("stop", "context"), ("start", "count"), ("stop", "count"),
        ("start", "fail"), ("exception", "fail"),
    ]  # fmt: skip
    _, measurements, metadata = next(e for e in found if e[0] == "snakepit.command.exception")
    assert measurements["duration_s"] >= 0.0
    assert (metadata["error"], metadata["error_type"]) == ("remote_error", "KeyError")
    assert metadata["worker_id"] == "shop-1"
    assert {m["session_id"] for _, _, m in found if m["command"] == "context"} == {"ada"}
    assert "do not tell" not in repr(found)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_command_that_is_stopped_is_told_in_its_worker(
    concurrency: int, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    async with new_pool(concurrency=concurrency) as pool:
        await pool.execute("listen_here", {"pattern": "snakepit.command.exception"})
        call = asyncio.create_task(pool.execute("wait_for_ever", {"started": str(started)}))
        await until(started.exists, "it runs")
        call.cancel()
        await asyncio.wait([call])
        await until(lambda: pool.stats().stopping == 0, "it has stopped")
        ((name, _, metadata),) = await pool.execute("told_here")
    assert (name, metadata["error"]) == ("snakepit.command.exception", "cancelled")


# --- the rate, the bounds and the frames ---------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.0, 10.0)), max_size=50))
def test_a_budget_lets_no_more_pass_than_burst_and_rate(steps: list[tuple[int, float]]) -> None:
    now, passed = 100.0, 0
    budget = Budget(now)
    for wanted, pause in steps:
        now += pause
        taken = budget.take(wanted, now)
        assert 0 <= taken <= wanted
        passed += taken
        assert passed <= BURST + RATE * (now - 100.0)
    assert Budget(0.0).take(10, -5.0) == 10  # a clock that went back costs nothing


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
EVENTS = st.builds(
    Event,
    st.from_regex(r"shop(\.[a-z0-9_]{1,9}){1,3}", fullmatch=True),
    st.dictionaries(st.text(max_size=9), st.integers(-1000, 1000) | st.floats(), max_size=4),
    st.dictionaries(st.text(max_size=9), PLAIN, max_size=4),
    st.integers(0, 1 << 40),
)


@given(st.lists(EVENTS, max_size=40), st.integers(0, 5000))
def test_events_are_read_as_they_were_sent(events: list[Event], dropped: int) -> None:
    encoded = [data for event in events if (data := encode_event(event)) is not None]
    (frame,) = FrameDecoder().feed(events_frame(encoded, dropped))
    found = read_events(frame)
    assert repr(found.events) == repr(events)
    assert found.dropped == dropped


@given(st.lists(st.binary(min_size=1, max_size=4096), max_size=60))
def test_a_frame_takes_as_many_events_as_fit(events: list[bytes]) -> None:
    count = fitting(events)
    size = len(events_frame(events[:count], 0))
    assert size <= BODY_BYTES + 16
    if count < len(events):
        assert len(events_frame(events[: count + 1], 0)) > BODY_BYTES


@pytest.mark.parametrize(
    "event",
    [
        Event("snakepit.call.stop", {}, {}, 0),
        Event("Shop", {}, {}, 0),
        Event("shop." + "x" * 124, {}, {}, 0),
        Event("shop", {"x": True}, {}, 0),
        Event("shop", {"x" * 65: 1}, {}, 0),
        Event("shop", {}, {"x": [1]}, 0),
        Event("shop", {}, {"x": "y" * 1025}, 0),
        Event("shop", {}, {str(n): n for n in range(33)}, 0),
        Event("shop", {}, {str(n): "y" * 1000 for n in range(5)}, 0),
        Event("shop", {}, {"x": "\ud800"}, 0),
    ],
)
def test_events_over_the_bounds_are_not_sent_and_not_taken(event: Event) -> None:
    assert encode_event(event) is None
    if event.may_leave_a_worker:
        return  # only its size or its encoding stands against it
    name, measurements, metadata, call_id = event
    body = encode([[[name, measurements, metadata, call_id]], 2])
    assert read_events(Frame(FrameType.EVENTS, 0, 0, body)) == ([], 3)


@pytest.mark.parametrize(
    "body",
    [
        [], [[]], [{}, 0], [[], -1], [[], "0"], [[[]], 0], [["shop"], 0], [[["shop", {}, {}]], 0],
        [[[5, {}, {}, 0]], 0], [[["shop", [], {}, 0]], 0], [[["shop", {}, None, 0]], 0],
        [[["shop", {}, {}, "1"]], 0],
    ],
)  # fmt: skip
def test_a_malformed_frame_of_events_is_a_protocol_error(body: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read_events(Frame(FrameType.EVENTS, 0, 0, encode(body)))


def test_a_frame_of_events_that_is_too_large_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        read_events(Frame(FrameType.EVENTS, 0, 0, encode([[], 0]) + bytes(BODY_BYTES)))


def test_later_versions_may_append() -> None:
    body = encode([[["shop", {}, {}, 0, "new"]], 1, "new"])
    assert read_events(Frame(FrameType.EVENTS, 0, 0, body)) == ([Event("shop", {}, {}, 0)], 1)
    listen = encode([7, ["shop.*"], "new"])
    assert read_listen(Frame(FrameType.LISTEN, 0, 0, listen)) == (7, ["shop.*"])


@pytest.mark.parametrize("body", [[], [1], ["1", []], [1, None], [1, "shop"], [1, [5]]])
def test_a_malformed_listen_is_a_protocol_error(body: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read_listen(Frame(FrameType.LISTEN, 0, 0, encode(body)))


def test_the_worker_of_these_tests_is_no_worker_here() -> None:
    Worker()
    assert not bus.listening
