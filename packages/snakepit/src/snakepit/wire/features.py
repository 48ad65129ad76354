"""What a peer may do beyond the least: each side names it in the handshake, and only what both have
named is used.
"""

from __future__ import annotations

from typing import Final

from snakepit.wire.memory import is_supported

#: Large buffers travel in shared memory.
SEGMENTS_FEATURE: Final = "segments"
#: A worker gives back calls that wait there, so it may be sent some ahead.
RECALL_FEATURE: Final = "recall"
#: A worker tells the events of its code.
EVENTS_FEATURE: Final = "events"


def own_features() -> list[str]:
    """What this side can do beyond the least, for the handshake."""
    return [RECALL_FEATURE, EVENTS_FEATURE, *([SEGMENTS_FEATURE] if is_supported() else [])]


def common_features(theirs: object) -> list[str]:
    """What both sides can do; a peer that says nothing can do nothing."""
    return [name for name in own_features() if isinstance(theirs, list) and name in theirs]
