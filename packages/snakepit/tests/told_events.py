"""What the tests of events share: a recorder that holds every event to the catalogue, and the mark
by which a test says which events it proves."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from snakepit.telemetry.catalogue import EVENTS
from snakepit.testing import EventRecorder

_Test = TypeVar("_Test", bound=Callable[..., object])
SPECS = {spec.full_name: spec for spec in EVENTS}


def proves(*names: str) -> Callable[[_Test], _Test]:
    """Mark a test that provokes these events and looks at them. See test_telemetry_catalogue.py."""
    unknown = set(names) - {spec.name for spec in EVENTS}
    assert not unknown, unknown
    return lambda test: test


class told(EventRecorder):
    """Records all of this library's events; each has to be as the catalogue says."""

    def __init__(self) -> None:
        super().__init__("snakepit.*")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        if exc_type is None:
            for name, measurements, metadata in self.events:
                spec = SPECS[name]
                assert set(measurements) == set(spec.measurements), name
                assert set(metadata) == set(spec.metadata), name
                numbers = [type(value) for value in measurements.values()]
                assert set(numbers) <= {int, float}, name
                durations = {key: value for key, value in measurements.items() if key[-2:] == "_s"}
                assert all(0.0 <= value < 600.0 for value in durations.values()), (name, durations)
