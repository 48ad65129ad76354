"""The worker that `snakepit doctor` starts."""

from __future__ import annotations

from snakepit.worker.registry import command


class Probe:
    """Does as little as a worker can."""

    @command
    def echo(self, value: object) -> object:
        """Return the value."""
        return value
