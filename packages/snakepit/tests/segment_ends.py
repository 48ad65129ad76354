"""Both ends of an exchange of segments in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit.wire.codec import encode_fields, resolve
from snakepit.wire.memory import SharedMemory, create_memory
from snakepit.wire.placing import SharedBody
from snakepit.wire.segments import (
    SEGMENT_THRESHOLD,
    IncomingSegments,
    Leases,
    OutgoingSegments,
)

#: Elements of 8 bytes that are worth a segment.
LARGE = SEGMENT_THRESHOLD // 8
MEGABYTE = 1 << 20


def no_fetch(_: Callable[[], bool]) -> None:
    """The announcement does not come."""


class Ends:
    """Both ends of one direction, joined without a socket."""

    def __init__(self, create: Callable[[int], SharedMemory] = create_memory) -> None:
        self.incoming = IncomingSegments(no_fetch, lambda: None)
        self.outgoing = OutgoingSegments(self._announce, self._discard, create=create)

    def _announce(self, segment_id: int, size: int, fd: int) -> bool:
        self.incoming.opened(segment_id, size, fd)
        return True

    def _discard(self, ids: list[int]) -> None:
        self.incoming.discarded(ids)

    def send(self, value: Any) -> Any:
        body = encode_fields([value], ["value"], segments=self.outgoing)
        assert type(body) is SharedBody
        return resolve(body, Leases(self.incoming)).content()[0]

    def release(self) -> None:
        self.outgoing.released(*self.incoming.take_released())

    def close(self) -> None:
        self.outgoing.close()
        self.incoming.close()
