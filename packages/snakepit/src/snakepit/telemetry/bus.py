"""The bus: who listens to which events, and telling them.

Nearly always nobody listens. So whoever has something to tell asks ``bus.listening`` first, one
truth test of a module's attribute, and makes nothing of an event that nobody wants.
"""

from __future__ import annotations

import fnmatch
import inspect
import itertools
import re
import threading
import time
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Protocol

from snakepit._logs import steady_logger
from snakepit.errors import ConfigurationError

Handler = Callable[[str, Mapping[str, float], Mapping[str, Any]], object]
"""Called with an event's name, its measurements and its metadata."""
TraceSource = Callable[[str], Mapping[str, str] | None]
"""Called with a call's correlation id; returns ``traceparent`` and perhaps ``tracestate``."""

#: Characters of an event's name.
NAME_LIMIT: Final = 128
#: What the names of this library's own events begin with.
OWN_PREFIX: Final = "snakepit."

#: Whether there is anything to tell to anybody.
listening = False
#: What tells the trace context of the running code, if anything does.
trace_source: TraceSource | None = None

logger = steady_logger("snakepit.telemetry")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_PATTERN: Final = re.compile(r"[a-z0-9_.*]+")
# Names whose handlers are remembered; further ones are looked up each time.
_ROUTES_KEPT: Final = 1024
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class _Attached(NamedTuple):
    """A handler, and what it listens to."""

    handler_id: int
    handler: Handler
    patterns: tuple[str, ...]
    matches: re.Pattern[str]


class Watcher(Protocol):
    """Wants to know when somebody begins or ends to listen."""

    def patterns_changed(self) -> None:
        """Called in the thread that attaches or detaches."""


_lock = threading.Lock()
_ids = itertools.count(1)
_attached: tuple[_Attached, ...] = ()
# By name. Replaced together with the handlers, and after them: what is added here by somebody who
# saw the old handlers is added to the old routes.
_routes: dict[str, tuple[_Attached, ...]] = {}
_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()


# --- listening -----------------------------------------------------------------------------------


def attach(events: str | Iterable[str], handler: Handler) -> int:
    """Have ``handler`` called for events; return the number by which it is detached.

    It is called as ``handler(event, measurements, metadata)`` where the event happens: those of a
    pool in its event loop's thread, in the middle of its work. So it must not block, and must not
    change what it is given. A handler that raises is detached, with one line in the log, and harms
    nobody. (KeyboardInterrupt and SystemExit pass, and so does what breaks off a running command;
    the handler stays.)

    Args:
        events: names, in which ``*`` stands for any characters: ``"snakepit.worker.*"``.
        handler: what to call. Handlers of one event are called in the order of their attaching.

    Raises:
        ConfigurationError: there is no event, a name is impossible, or the handler is no function,
            or a coroutine function.

    >>> from snakepit import telemetry
    >>> handler_id = telemetry.attach("shop.*", lambda event, *_: print(event))
    >>> telemetry.execute("shop.order")
    shop.order
    >>> telemetry.detach(handler_id)
    True
    """
    patterns = (events,) if isinstance(events, str) else tuple(events)
    for pattern in patterns:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            raise ConfigurationError(
                f"{pattern!r} names no event: use lower-case letters, digits, '_', '.', and '*' "
                "for any characters, as in 'snakepit.worker.*'"
            )
    if not patterns:
        raise ConfigurationError("no event is given; '*' stands for all")
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            f"the handler {handler!r} has to be a function that is called, not awaited"
        )
    return attach_in_place_of(0, patterns, handler)


def detach(handler_id: int) -> bool:
    """Have a handler called no more; whether it was attached.

    >>> from snakepit import telemetry
    >>> telemetry.detach(0)
    False
    """
    with _lock:
        rest = tuple(each for each in _attached if each.handler_id != handler_id)
        found = len(rest) < len(_attached)
        if found:
            _replace(rest)
    if found:
        _tell_watchers()
    return found


def attach_in_place_of(handler_id: int, patterns: Iterable[str], handler: Handler) -> int:
    """Attach a handler and detach another one, so that no event falls between; return its number.

    Without patterns it is detached only.
    """
    patterns = tuple(patterns)
    matches = re.compile("|".join(map(fnmatch.translate, patterns)))
    attached = _Attached(next(_ids), handler, patterns, matches)
    with _lock:
        rest = tuple(each for each in _attached if each.handler_id != handler_id)
        _replace((*rest, attached) if patterns else rest)
    _tell_watchers()
    return attached.handler_id


def set_trace_source(source: TraceSource | None) -> None:
    """Have calls carry the trace context that ``source`` tells, in the format of the W3C; None for
    no more.

    In the host it is asked for each call, in the context of the caller, after
    ``snakepit.call.start`` was told; in a worker for each call to a function of the host. It gets
    the call's correlation id, and returns a mapping with ``traceparent`` and perhaps
    ``tracestate``, or None; what is no valid context is left out. One that raises is asked no more,
    with one line in the log.

    Raises:
        ConfigurationError: it is no function.

    >>> from snakepit import telemetry
    >>> parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    >>> telemetry.set_trace_source(lambda correlation_id: {"traceparent": parent})
    >>> telemetry.set_trace_source(None)
    """
    if source is not None and not callable(source):
        raise ConfigurationError(f"the trace source {source!r} has to be a function or None")
    global trace_source  # noqa: PLW0603  # one for the process
    with _lock:
        trace_source = source
        _replace(_attached)


def _replace(attached: tuple[_Attached, ...]) -> None:
    """Holds the lock."""
    global _attached, _routes, listening  # noqa: PLW0603  # the bus is the process's
    _attached = attached
    _routes = {}
    listening = bool(attached) or trace_source is not None


# --- telling -------------------------------------------------------------------------------------


def execute(
    event: str,
    measurements: Mapping[str, float] = _NOTHING,
    metadata: Mapping[str, Any] = _NOTHING,
) -> None:
    """Tell an event to whoever listens to it.

    In a worker process it reaches the handlers of that process, and those of its host that listen
    to the name, with ``pool``, ``worker_id`` and ``correlation_id`` added; see docs/telemetry.md.
    It never blocks and nothing that a handler does is raised here.

    Args:
        event: its name: lower-case words of letters, digits and ``_``, joined by dots. Names that
            begin with ``snakepit.`` are this library's own, and leave no worker.
        measurements: numbers; their names end with the unit, as in ``duration_s``.
        metadata: what describes the event. What is to leave a worker has to be text, numbers,
            booleans and None.

    Raises:
        ConfigurationError: the name is impossible.

    >>> from snakepit import telemetry
    >>> telemetry.execute("shop.order", {"items": 3}, {"kind": "book"})
    """
    require_name(event)
    if listening:
        tell(event, measurements, metadata)


def wants(event: str) -> bool:
    """Whether anybody listens to an event."""
    return bool(_handlers_of(event))


def tell(event: str, measurements: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
    """As :func:`execute`, for names that are known to be possible."""
    for attached in _handlers_of(event):
        try:
            attached.handler(event, measurements, metadata)
        except (Exception, CancelledError) as error:
            # CancelledError: it would look as if the one who tells was cancelled.
            if detach(attached.handler_id):
                _log_failure(f"the handler {attached.handler!r} of {event}", "detached", error)


def trace_context(correlation_id: str) -> Mapping[str, str]:
    """What the trace source says; nothing where there is none, or it has nothing to say."""
    source = trace_source
    if source is None:
        return _NOTHING
    try:
        return dict(source(correlation_id) or _NOTHING)
    except (Exception, CancelledError) as error:
        set_trace_source(None)
        _log_failure(f"the trace source {source!r}", "asked no more", error)
        return _NOTHING


@lru_cache(maxsize=_ROUTES_KEPT)
def require_name(event: str) -> None:
    """Refuse what can't be an event's name.

    Raises:
        ConfigurationError: it has other characters, or too many.
    """
    if not isinstance(event, str) or len(event) > NAME_LIMIT or not _NAME.fullmatch(event):
        raise ConfigurationError(
            f"{event!r} can't be the name of an event: use lower-case words of letters, digits and "
            f"'_', joined by dots, {NAME_LIMIT} characters at most"
        )


def _handlers_of(event: str) -> tuple[_Attached, ...]:
    routes = _routes  # before the handlers: see there
    found = routes.get(event)
    if found is None:
        found = tuple(each for each in _attached if each.matches.match(event))
        if len(routes) < _ROUTES_KEPT:
            routes[event] = found
    return found


def _log_failure(who: str, consequence: str, error: BaseException) -> None:
    logger.error("%s raised %s and is %s", who, type(error).__name__, consequence, exc_info=error)


# --- listening from afar -------------------------------------------------------------------------


def watch(watcher: Watcher) -> None:
    """Have ``watcher`` told, as long as it lives, when what is listened to has changed."""
    with _lock:
        _watchers.add(watcher)


def patterns_for_workers() -> list[str]:
    """What is listened to, as far as events that come out of workers can match it."""
    patterns = {pattern for attached in _attached for pattern in attached.patterns}
    return sorted(pattern for pattern in patterns if not pattern.startswith(OWN_PREFIX))


def _tell_watchers() -> None:
    with _lock:
        watchers = tuple(_watchers)
    for watcher in watchers:
        watcher.patterns_changed()


# --- spans ---------------------------------------------------------------------------------------


class Span:
    """What :func:`span` returns: a context manager that tells its beginning and its end."""

    __slots__ = ("_event", "_metadata", "_started_at")

    def __init__(self, event: str, metadata: Mapping[str, Any]) -> None:
        self._event = event
        self._metadata = dict(metadata)
        self._started_at: float | None = None

    def __enter__(self) -> dict[str, Any]:
        if listening:
            self._started_at = time.monotonic()
            tell(f"{self._event}.start", _NOTHING, dict(self._metadata))
        return self._metadata

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._started_at is None:
            return
        measurements = {"duration_s": time.monotonic() - self._started_at}
        if exc_type is None:
            tell(f"{self._event}.stop", measurements, self._metadata)
        else:
            metadata = {**self._metadata, "error_type": exc_type.__qualname__}
            tell(f"{self._event}.exception", measurements, metadata)


def span(event: str, metadata: Mapping[str, Any] = _NOTHING) -> Span:
    """Tell the beginning and the end of a block: ``event`` with ``.start``, and with ``.stop`` or,
    when the block raises, ``.exception``.

    The end has the measurement ``duration_s``, and the metadata that the block adds to the mapping
    it gets. An exception is told by ``error_type`` alone, and goes on.

    Raises:
        ConfigurationError: the name is impossible; see :func:`execute`.

    >>> from snakepit import telemetry
    >>> with telemetry.span("shop.delivery", {"kind": "book"}) as metadata:
    ...     metadata["parcels"] = 2
    """
    require_name(event)
    return Span(event, metadata)
