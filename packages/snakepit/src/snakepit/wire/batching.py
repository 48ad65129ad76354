"""Small items that a stream yields quickly, gathered into common frames. Pure.

A frame for each item costs both sides a system call and a look at a header: more than twice what an
item costs that travels with others. But no item may wait for the next one to be made. So an item is
gathered only after a run of quick ones, and whoever gathers sends what the producer does not: in a
worker a thread, in the host the next turn of the event loop.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Final

from snakepit.wire.credit import SendWindow
from snakepit.wire.frames import FrameType, encode_frame
from snakepit.wire.messages import joined_items

#: An item is quick if it comes so many seconds after the one before, whatever its stream.
QUICK: Final = 100e-6
#: So many quick items in a row are sent one by one; those after them are gathered.
RUN: Final = 8
#: So many at most are gathered, of at most so many bytes each.
MOST_ITEMS: Final = 16
MOST_BYTES: Final = 1024


class ItemBatches:
    """The items of all streams of a connection that wait to be sent. Pure: it takes ``now``."""

    def __init__(self) -> None:
        #: Call, body and window of each item that waits.
        self.gathered: list[tuple[int, bytes, SendWindow]] = []
        self._run = 0
        self._last = 0.0

    def add(self, call_id: int, body: bytes, window: SendWindow, now: float) -> bool:
        """Add an ``ITEM``'s body with one item; whether all has to be sent at once."""
        self._run = self._run + 1 if now - self._last < QUICK else 0
        self._last = now
        self.gathered.append((call_id, body, window))
        window.spend(1, len(body))
        return self._run < RUN or len(self.gathered) >= MOST_ITEMS or len(body) > MOST_BYTES

    def sent(self, now: float) -> None:
        """Note when sending has ended: the time it took is not the producer's."""
        self._last = now

    def take(self) -> bytes:
        """The frames of all that was gathered, in order; then nothing is gathered."""
        gathered, self.gathered = self.gathered, []
        if len(gathered) == 1:
            ((call_id, body, _),) = gathered
            return encode_frame(FrameType.ITEM, call_id, body)
        return b"".join(
            _frame_of(call_id, [(body, window) for _, body, window in group])
            for call_id, group in groupby(gathered, key=itemgetter(0))
        )


def _frame_of(call_id: int, items: list[tuple[bytes, SendWindow]]) -> bytes:
    body = joined_items([body for body, _ in items])
    # Together they take a little less than each for itself, and the consumer grants again only what
    # it got.
    items[0][1].spend(0, len(body) - sum([len(body) for body, _ in items]))
    return encode_frame(FrameType.ITEM, call_id, body)
