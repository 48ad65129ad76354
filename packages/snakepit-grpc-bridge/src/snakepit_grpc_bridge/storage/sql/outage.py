"""What the connections of a storage tell each other of a server that is away."""

from __future__ import annotations

import time

__all__ = ["Outage"]


class Outage:
    """When a server was last found to be away, and how that was seen. Used by several threads."""

    def __init__(self) -> None:
        self._found: tuple[float, BaseException] | None = None

    def notice(self, cause: BaseException) -> None:
        """An attempt has failed because of it."""
        self._found = time.monotonic(), cause

    def is_over(self) -> None:
        """The server was reached."""
        self._found = None

    def seen_since(self, moment: float) -> BaseException | None:
        """How it was seen, if that was after a moment of ``time.monotonic``."""
        found = self._found
        return found[1] if found is not None and found[0] >= moment else None
