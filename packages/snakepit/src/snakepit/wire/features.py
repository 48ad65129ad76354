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
#: A worker tells what its threads do when it is asked by a frame.
STACKS_FEATURE: Final = "stacks"


def own_features() -> list[str]:
    """What this side can do beyond the least, for the handshake."""
    in_anonymous_files = [SEGMENTS_FEATURE, STACKS_FEATURE] if is_supported() else []
    return [RECALL_FEATURE, EVENTS_FEATURE, *in_anonymous_files]


def common_features(theirs: object) -> list[str]:
    """What both sides can do; a peer that says nothing can do nothing."""
    return [name for name in own_features() if isinstance(theirs, list) and name in theirs]
