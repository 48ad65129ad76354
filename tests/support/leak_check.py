"""The leak check around every test of this repository; what it looks at is snakepit.testing's."""

from __future__ import annotations

from snakepit.testing.leaks import Snapshot, find_leaks, kill_new_processes

WAIT = 2.0

__all__ = ["WAIT", "Snapshot", "kill_new_processes", "leaks_since"]


def leaks_since(before: Snapshot) -> list[str]:
    """Describe what is new since `before`; it has up to two seconds to go away."""
    return [str(leak) for leak in find_leaks(before, WAIT)]
