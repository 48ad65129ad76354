"""How far the producer of a stream may be ahead of its consumer. Pure.

The consumer grants credit, in items and in bytes; the producer may send while it has some of both.
So a producer of small items is bounded by their number and one of large items by their size, and an
item that is larger than all the credit there is still passes, alone.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from snakepit.errors import ProtocolError

#: The most that may be granted at once.
MAX_CREDIT_ITEMS: Final = 65_536
MAX_CREDIT_BYTES: Final = 1 << 40


class Credit(NamedTuple):
    """What a consumer will take. The bytes are those of the bodies of ``ITEM`` frames, and of what
    these refer to in segments.
    """

    items: int
    bytes: int


#: That of a call that does not stream.
NO_CREDIT: Final = Credit(items=0, bytes=0)
#: What a consumer takes before it grants more; granted again in halves, to keep the producer busy.
WINDOW: Final = Credit(items=64, bytes=1 << 20)


def checked_credit(items: Any, size: Any) -> Credit:
    """Credit as it came from the peer.

    Raises:
        ProtocolError: it is no pair of numbers within the limits.
    """
    # The very type: a bool is an int too.
    whole = type(items) is int and type(size) is int
    if not whole or not 1 <= items <= MAX_CREDIT_ITEMS or not 1 <= size <= MAX_CREDIT_BYTES:
        raise ProtocolError(
            f"credit of {items!r} items and {size!r} bytes; from 1 to {MAX_CREDIT_ITEMS} items "
            f"and from 1 to {MAX_CREDIT_BYTES} bytes can be granted"
        )
    return Credit(items, size)


class SendWindow:
    """What a producer may send. One thread may grant while another one spends."""

    __slots__ = ("_granted_bytes", "_granted_items", "_sent_bytes", "_sent_items")

    def __init__(self, credit: Credit) -> None:
        self._granted_items, self._granted_bytes = credit
        self._sent_items = self._sent_bytes = 0

    @property
    def items(self) -> int:
        """How many items may be sent, as far as their number goes."""
        return self._granted_items - self._sent_items

    @property
    def is_open(self) -> bool:
        """Whether something may be sent now."""
        return self._granted_items > self._sent_items and self._granted_bytes > self._sent_bytes

    def grant(self, credit: Credit) -> None:
        """The consumer takes that much more."""
        self._granted_bytes += credit.bytes
        self._granted_items += credit.items

    def spend(self, items: int, size: int) -> None:
        """Items were sent in a frame that takes ``size`` bytes."""
        self._sent_items += items
        self._sent_bytes += size


class ReceiveWindow:
    """What a consumer has granted, and what it has to grant again."""

    __slots__ = ("_bytes", "_consumed_bytes", "_consumed_items", "_items", "_window")

    def __init__(self, window: Credit = WINDOW) -> None:
        self._window = window
        self._items, self._bytes = window
        self._consumed_items = self._consumed_bytes = 0

    def arrived(self, items: int, size: int) -> None:
        """Note a frame of items.

        Raises:
            ProtocolError: it holds none, or its producer had no credit for it.
        """
        if not items:
            raise ProtocolError("a stream brought a frame without items")
        if items > self._items or self._bytes <= 0:
            raise ProtocolError(
                f"a stream brought {items} items when {self._items} items and {self._bytes} bytes "
                "were granted"
            )
        self._items -= items
        self._bytes -= size

    def consumed(self, items: int, size: int) -> Credit | None:
        """Note that the items of a frame were used up; what is to be granted now, if anything."""
        self._consumed_items += items
        self._consumed_bytes += size
        if (
            self._consumed_items * 2 < self._window.items
            and self._consumed_bytes * 2 < self._window.bytes
        ):
            return None
        due = Credit(
            min(self._consumed_items, MAX_CREDIT_ITEMS),
            min(self._consumed_bytes, MAX_CREDIT_BYTES),
        )
        self._consumed_items -= due.items
        self._consumed_bytes -= due.bytes
        self._items += due.items
        self._bytes += due.bytes
        return due
