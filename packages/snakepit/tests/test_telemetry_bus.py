"""The bus: who is told what, and that no handler harms those who tell."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit import telemetry
from snakepit.errors import ConfigurationError
from snakepit.telemetry import bus, trace
from snakepit.testing import EventRecorder

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _nobody_listens_at_the_end() -> Iterator[None]:
    yield
    left = bus.listening
    for attached in bus._attached:
        telemetry.detach(attached.handler_id)
    telemetry.set_trace_source(None)
    assert not left


# --- who is told ---------------------------------------------------------------------------------


def test_a_handler_is_told_name_measurements_and_metadata() -> None:
    with EventRecorder("shop.order") as recorder:
        telemetry.execute("shop.order", {"items": 3}, {"kind": "book"})
    assert recorder.events == [("shop.order", {"items": 3}, {"kind": "book"})]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("shop.order", ["shop.order"]),
        ("shop.*", ["shop.order", "shop.order.late"]),
        ("*", ["shop.order", "shop.order.late", "shopping"]),
        ("*.late", ["shop.order.late"]),
        ("sh*er", ["shop.order"]),
        (["shopping", "shop.order"], ["shop.order", "shopping"]),
        ("shop", []),
        ("order", []),
    ],
)
def test_patterns(pattern: str | list[str], told: list[str]) -> None:
    with EventRecorder(pattern) as recorder:
        for name in ("shop.order", "shop.order.late", "shopping"):
            telemetry.execute(name)
    assert recorder.names == told


def test_an_event_that_two_patterns_match_is_told_once() -> None:
    with EventRecorder(["shop.*", "*.order"]) as recorder:
        telemetry.execute("shop.order")
    assert recorder.names == ["shop.order"]


def test_handlers_are_called_in_the_order_of_their_attaching() -> None:
    called: list[str] = []
    ids = [telemetry.attach("*", lambda *_, n=name: called.append(n)) for name in "abc"]
    telemetry.execute("shop.order")
    assert called == ["a", "b", "c"]
    assert all(telemetry.detach(each) for each in ids)


def test_a_detached_handler_is_called_no_more() -> None:
    called: list[str] = []
    handler_id = telemetry.attach("*", lambda name, *_: called.append(name))
    telemetry.execute("first")
    assert telemetry.detach(handler_id)
    telemetry.execute("second")
    assert called == ["first"]
    assert not telemetry.detach(handler_id)


def test_what_was_told_before_is_not_kept() -> None:
    telemetry.execute("shop.order")
    with EventRecorder() as recorder:
        pass
    assert recorder.events == []


def test_the_sign_that_somebody_listens_follows_handlers_and_the_trace_source() -> None:
    seen = [bus.listening]
    first, second = (telemetry.attach("x", print) for _ in range(2))
    seen.append(bus.listening)
    telemetry.detach(first)
    seen.append(bus.listening)
    telemetry.set_trace_source(lambda _: None)
    telemetry.detach(second)
    seen.append(bus.listening)
    telemetry.set_trace_source(None)
    seen.append(bus.listening)
    assert seen == [False, True, True, True, False]


def test_a_handler_may_attach_detach_and_tell_further_events() -> None:
    called: list[str] = []

    def first(name: str, *_: Any) -> None:
        called.append(name)
        telemetry.detach(ids[0])
        ids.append(telemetry.attach("late", lambda name, *_: called.append(name)))
        telemetry.execute("late")

    ids = [telemetry.attach("early", first)]
    telemetry.execute("early")
    telemetry.execute("early")
    assert called == ["early", "late"]
    telemetry.detach(ids[1])


def test_more_names_than_are_remembered_are_told_all_the_same() -> None:
    with EventRecorder("shop.*") as recorder:
        for number in range(2 * bus._ROUTES_KEPT):
            telemetry.execute(f"shop.n{number}")
            assert len(bus._routes) <= bus._ROUTES_KEPT
    assert len(recorder.events) == 2 * bus._ROUTES_KEPT


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "Shop", "shop order", "shop..order", ".shop", "shop.", "1shop", "é", "x" * 129]
)
def test_impossible_names_are_refused_whether_anybody_listens_or_not(name: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be the name of an event"):
        telemetry.execute(name)
    with pytest.raises(ConfigurationError):
        telemetry.span(name)
    with EventRecorder(), pytest.raises(ConfigurationError):
        telemetry.execute(name)


@pytest.mark.parametrize("events", ["", [], "Shop.*", ["shop.*", 5], "shop.[ab]", "shop order"])
def test_impossible_patterns_are_refused(events: Any) -> None:
    with pytest.raises(ConfigurationError):
        telemetry.attach(events, print)


async def _awaited(*_: Any) -> None: ...


@pytest.mark.parametrize("handler", [None, "print", _awaited])
def test_handlers_that_can_not_be_called_are_refused(handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="handler"):
        telemetry.attach("*", handler)


@given(st.from_regex(bus._NAME, fullmatch=True).filter(lambda name: len(name) <= bus.NAME_LIMIT))
def test_every_possible_name_is_told(name: str) -> None:
    with EventRecorder(name) as recorder:
        telemetry.execute(name)
    assert recorder.names == [name]


# --- handlers that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("secret"), asyncio.CancelledError(), RecursionError()]
)
def test_a_handler_that_raises_is_detached_with_one_line(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> None:
        raise error

    telemetry.attach("shop.*", failing)
    with caplog.at_level(logging.ERROR, "snakepit.telemetry"), EventRecorder() as recorder:
        telemetry.execute("shop.order")
        telemetry.execute("shop.order")
    assert recorder.names == ["shop.order", "shop.order"]
    (record,) = caplog.records
    assert "failing" in record.getMessage()
    assert "shop.order" in record.getMessage()
    assert type(error).__name__ in record.getMessage()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_to_end_the_program_passes_and_the_handler_stays(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def ending(*_: Any) -> None:
        raise error

    handler_id = telemetry.attach("shop.*", ending)
    with pytest.raises(error):
        telemetry.execute("shop.order")
    assert telemetry.detach(handler_id)
    assert caplog.records == []


def test_a_handler_that_tells_the_event_it_handles_is_detached() -> None:
    handler_id = telemetry.attach("shop.order", lambda *_: telemetry.execute("shop.order"))
    telemetry.execute("shop.order")
    assert not telemetry.detach(handler_id)


def test_a_logging_handler_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = Failing()
    logging.getLogger("snakepit.telemetry").addHandler(handler)
    try:
        telemetry.attach("shop.order", lambda name: None)  # type: ignore[misc, arg-type]
        telemetry.execute("shop.order")
    finally:
        logging.getLogger("snakepit.telemetry").removeHandler(handler)


# --- threads -------------------------------------------------------------------------------------


def test_threads_that_attach_detach_and_tell_lose_nothing_of_a_steady_listener() -> None:
    count, threads = 300, 4
    steady: list[str] = []
    handler_id = telemetry.attach("t.*", lambda name, *_: steady.append(name))

    def work(number: int) -> None:
        for _ in range(count):
            mine = telemetry.attach("t.*", lambda *_: None)
            telemetry.execute(f"t.n{number}")
            assert telemetry.detach(mine)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(steady) == count * threads
    telemetry.detach(handler_id)


def test_an_attached_handler_is_replaced_without_losing_an_event() -> None:
    called: list[str] = []
    handler_id = bus.attach_in_place_of(0, ["a", "b"], lambda name, *_: called.append(name))
    handler_id = bus.attach_in_place_of(handler_id, ["b", "c"], lambda n, *_: called.append(n))
    for name in "abc":
        telemetry.execute(name)
    assert called == ["b", "c"]
    bus.attach_in_place_of(handler_id, [], print)
    assert not bus.listening


def test_workers_are_told_what_can_come_out_of_them() -> None:
    with EventRecorder(["snakepit.worker.*", "shop.*"]), EventRecorder(["*", "shop.*"]):
        assert bus.patterns_for_workers() == ["*", "shop.*"]
    with EventRecorder("snakepit.*"):
        assert bus.patterns_for_workers() == []


# --- spans ---------------------------------------------------------------------------------------


def test_a_span_tells_start_and_stop_with_what_the_block_adds() -> None:
    with EventRecorder() as recorder, telemetry.span("shop.delivery", {"kind": "book"}) as metadata:
        metadata["parcels"] = 2
    start, stop = recorder.events
    assert start == ("shop.delivery.start", {}, {"kind": "book"})
    assert (stop.name, stop.metadata) == ("shop.delivery.stop", {"kind": "book", "parcels": 2})
    assert stop.measurements["duration_s"] >= 0.0


@pytest.mark.parametrize("error", [ValueError("secret"), asyncio.CancelledError(), SystemExit(2)])
def test_a_span_tells_what_is_raised_by_its_type_alone(error: BaseException) -> None:
    with (
        EventRecorder() as recorder,
        pytest.raises(type(error)) as caught,
        telemetry.span("shop.delivery", {"kind": "book"}),
    ):
        raise error
    assert caught.value is error
    assert recorder.names == ["shop.delivery.start", "shop.delivery.exception"]
    told = recorder.events[1]
    assert told.metadata == {"kind": "book", "error_type": type(error).__name__}
    assert "secret" not in repr(told)


def test_a_span_that_began_while_nobody_listened_tells_nothing() -> None:
    span = telemetry.span("shop.delivery")
    with span as metadata:
        metadata["parcels"] = 2
        handler_id = telemetry.attach("*", lambda *_: pytest.fail("it was told"))
    telemetry.detach(handler_id)


def test_the_given_metadata_stays_as_it_is() -> None:
    given_metadata = {"kind": "book"}
    with EventRecorder(), telemetry.span("shop.delivery", given_metadata) as metadata:
        metadata["parcels"] = 2
    assert given_metadata == {"kind": "book"}


# --- trace context -------------------------------------------------------------------------------


def test_a_trace_source_is_asked_with_the_correlation_id() -> None:
    telemetry.set_trace_source(lambda correlation_id: {"traceparent": correlation_id})
    assert bus.trace_context("c-1") == {"traceparent": "c-1"}
    telemetry.set_trace_source(None)
    assert bus.trace_context("c-1") == {}


def test_a_trace_source_that_raises_is_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def failing(correlation_id: str) -> None:
        asked.append(correlation_id)
        raise ValueError

    telemetry.set_trace_source(failing)
    assert bus.trace_context("c-1") == bus.trace_context("c-2") == {}
    assert asked == ["c-1"]
    assert len(caplog.records) == 1
    with pytest.raises(ConfigurationError):
        telemetry.set_trace_source("00-...")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parent",
    [
        "", "00", TRACEPARENT[:-1], TRACEPARENT + "0", TRACEPARENT.upper(), 5, None,
        "ff" + TRACEPARENT[2:], TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16), TRACEPARENT.replace("-", "_"),
        TRACEPARENT + "\n",
    ],
)  # fmt: skip
def test_what_is_no_valid_parent_is_no_trace_context(parent: Any) -> None:
    assert trace.headers({"traceparent": parent, "tracestate": "a=1"}) == {}


def test_a_valid_context_is_passed_on_and_nothing_else() -> None:
    sent = {"traceparent": TRACEPARENT, "tracestate": "a=1,b=2", "baggage": "x=1"}
    assert trace.headers(sent) == {"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"}
    for state in ("", "x" * 513, "a=1\n", 5, None):
        assert trace.headers({**sent, "tracestate": state}) == {"traceparent": TRACEPARENT}
    assert trace.headers({}) == trace.headers(None) == {}


def test_correlation_ids_of_peers_are_short_and_printable() -> None:
    assert trace.correlation_id_of({"correlation_id": "default-1/17"}) == "default-1/17"
    for bad in ("", "x" * 201, "a b", "a\n", 5, None):
        assert trace.correlation_id_of({"correlation_id": bad}) is None
    assert trace.correlation_id_of(None) is None


def test_contexts_of_one_trace() -> None:
    ours = {"traceparent": TRACEPARENT}
    same = {"traceparent": TRACEPARENT.replace("00f067aa0ba902b7", "1" * 16)}
    other = {"traceparent": TRACEPARENT.replace("4bf9", "5bf9")}
    assert trace.in_same_trace(same, ours)
    assert not trace.in_same_trace(other, ours)
    assert not trace.in_same_trace(same, {})
