"""The life of a pool, and why one takes no calls."""

from __future__ import annotations

from enum import Enum
from typing import Final


class PoolState(Enum):
    """A pool's life, in order."""

    NEW = "new"
    STARTING = "starting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


WHY_CLOSED: Final = {
    PoolState.NEW: "is not started; enter it with `async with`",
    PoolState.STARTING: "is still starting; wait for `async with` to enter",
    PoolState.CLOSING: "is closing",
    PoolState.CLOSED: "is closed",
}
