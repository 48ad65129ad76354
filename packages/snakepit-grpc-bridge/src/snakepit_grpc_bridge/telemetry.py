"""The events of the platform: what is done with sessions, variables and tools, and in programs.

They are told on the bus of :mod:`snakepit.telemetry`, beside those of the pools that programs run
in, and say how long something took and how it ended. No value, argument, result, or text of an
error is ever in them. What workers ask of the host is told as ``snakepit.host_call.*``.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from snakepit.telemetry import bus, catalogue
from snakepit.telemetry.labels import error_labels

__all__ = ["EVENTS", "EventSpec", "operation", "program", "session_ended", "tool_execution"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class EventSpec(catalogue.EventSpec):
    """One event of the platform."""

    __slots__ = ()

    @property
    def full_name(self) -> str:
        """The name by which it is attached to."""
        return f"snakepit_grpc_bridge.{self.name}"


# Of the arguments of an operation only these are told.
_WHAT: Final = ("session_id", "name")
_END: Final = ("success", "error", "error_type")
_TOOL: Final = ("tool", "session_id", "kind", "worker_id")
_SIZE: Final = "parameters_bytes"
_PROGRAM: Final = ("command", "target", "session_id")

#: All events, with what each of them says; None where there is nothing to say.
EVENTS: Final = (
    EventSpec(
        "sessions.operation", ("duration_s",), ("operation", "session_id", "name", *_END),
        "a method of `platform.sessions` has ended",
    ),
    EventSpec(
        "session.ended", (), ("session_id", "reason"),
        "a session is gone with what it held: it was `closed`, has `expired`, or `another host` "
        "has ended it",
    ),
    EventSpec(
        "variables.operation", ("duration_s",), ("operation", "session_id", "name", *_END),
        "a method of `platform.variables` has ended",
    ),
    EventSpec(
        "tools.operation", ("duration_s",), ("operation", "session_id", "name", *_END),
        "a tool was registered, removed or looked for",
    ),
    EventSpec(
        "tools.execution.start", (_SIZE,), _TOOL,
        "a tool is called, by a worker or the host, with parameters of about that size",
    ),
    EventSpec("tools.execution.stop", ("duration_s", _SIZE), (*_TOOL, *_END), "it has returned"),
    EventSpec(
        "tools.execution.exception", ("duration_s", _SIZE), (*_TOOL, *_END), "it has failed"
    ),
    EventSpec("program.start", (), _PROGRAM, "the platform has a worker run something"),
    EventSpec("program.stop", ("duration_s",), (*_PROGRAM, *_END), "it has a result"),
    EventSpec("program.exception", ("duration_s",), (*_PROGRAM, *_END), "it has failed"),
)  # fmt: skip


def operation(
    service: str,
) -> Callable[
    [Callable[Concatenate[S, P], Coroutine[Any, Any, T]]],
    Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
]:
    """Have the calls of a method told as ``<service>.operation``."""
    event = f"snakepit_grpc_bridge.{service}.operation"

    def decorate(
        method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
        parameters = [*inspect.signature(method).parameters][1:]

        @functools.wraps(method)
        def tell(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
            work = method(self, *args, **kwargs)
            if not bus.listening:
                return work
            given: dict[str, Any] = {**dict(zip(parameters, args, strict=False)), **kwargs}
            labels = {"operation": method.__name__, **{key: given.get(key) for key in _WHAT}}
            return _told(event, labels, work)

        return tell

    return decorate


async def _told(event: str, labels: dict[str, Any], work: Coroutine[Any, Any, T]) -> T:
    began_at = time.monotonic()
    try:
        result = await work
    except BaseException as error:
        bus.tell(event, _since(began_at), {**labels, **_failure(error)})
        raise
    bus.tell(event, _since(began_at), {**labels, **_SUCCESS})
    return result


def session_ended(session_id: str, reason: str) -> None:
    """A session is gone with what it held."""
    labels = {"session_id": session_id, "reason": reason}
    bus.tell("snakepit_grpc_bridge.session.ended", {}, labels)


def tool_execution(
    tool: str, session_id: str, kind: str, worker_id: str | None, parameters_bytes: int
) -> AbstractContextManager[None]:
    """Tell the beginning and the end of a tool's call."""
    if not bus.listening:
        return nullcontext()
    labels = {"tool": tool, "session_id": session_id, "kind": kind, "worker_id": worker_id}
    return _span("snakepit_grpc_bridge.tools.execution", labels, {_SIZE: parameters_bytes})


def program(
    command: str, arguments: Mapping[str, Any], session_id: str
) -> AbstractContextManager[None]:
    """Tell the beginning and the end of what a worker runs for the platform."""
    if not bus.listening:
        return nullcontext()
    target = arguments.get("class_path", arguments.get("path"))
    labels = {"command": command, "target": target, "session_id": session_id}
    return _span("snakepit_grpc_bridge.program", labels, {})


@contextmanager
def _span(event: str, labels: Mapping[str, Any], measured: Mapping[str, float]) -> Iterator[None]:
    began_at = time.monotonic()
    bus.tell(f"{event}.start", measured, labels)
    try:
        yield
    except BaseException as error:
        measured = {**_since(began_at), **measured}
        bus.tell(f"{event}.exception", measured, {**labels, **_failure(error)})
        raise
    bus.tell(f"{event}.stop", {**_since(began_at), **measured}, {**labels, **_SUCCESS})


_SUCCESS: Final = {"success": True, "error": None, "error_type": None}


def _failure(error: BaseException) -> dict[str, Any]:
    return {"success": False, **error_labels(error)}


def _since(began_at: float) -> dict[str, float]:
    return {"duration_s": time.monotonic() - began_at}
