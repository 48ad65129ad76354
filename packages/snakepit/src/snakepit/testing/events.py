"""What a test sees of the events that a program tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from snakepit import telemetry
from snakepit.testing.waiting import until


class RecordedEvent(NamedTuple):
    """One event, as its handlers got it."""

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]


class EventRecorder:
    """Keeps the events that match ``events`` while its ``with`` block runs.

    >>> from snakepit import telemetry
    >>> from snakepit.testing import EventRecorder
    >>> with EventRecorder("shop.*") as recorder:
    ...     telemetry.execute("shop.order", {"items": 3}, {"kind": "book"})
    >>> recorder.assert_told("shop.order", kind="book").measurements
    {'items': 3}
    """

    def __init__(self, events: str | Iterable[str] = "*") -> None:
        self._patterns = events
        self._handler_id = 0
        #: In the order in which they were told.
        self.events: list[RecordedEvent] = []

    def __enter__(self) -> Self:
        self._handler_id = telemetry.attach(self._patterns, self._record)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        telemetry.detach(self._handler_id)

    def _record(
        self, name: str, measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        self.events.append(RecordedEvent(name, dict(measurements), dict(metadata)))

    @property
    def names(self) -> list[str]:
        """What has happened so far."""
        return [event.name for event in self.events]

    def told(self, name: str, **metadata: Any) -> list[RecordedEvent]:
        """The events of that name with at least that metadata."""
        wanted = metadata.items()
        return [e for e in self.events if e.name == name and wanted <= e.metadata.items()]

    def assert_told(self, name: str, **metadata: Any) -> RecordedEvent:
        """The one event of that name with at least that metadata.

        Raises:
            AssertionError: there is none, or more than one.
        """
        found = self.told(name, **metadata)
        if len(found) != 1:
            others = [event for event in self.events if event.name == name] or self.names
            raise AssertionError(f"{len(found)} events {name} with {metadata}, among {others}")
        return found[0]

    async def wait_for(self, name: str, **metadata: Any) -> RecordedEvent:
        """Wait for an event of that name with at least that metadata; return the first.

        Raises:
            AssertionError: it has not happened within 10 s.
        """
        await until(lambda: bool(self.told(name, **metadata)), f"{name} is told")
        return self.told(name, **metadata)[0]
