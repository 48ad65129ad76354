"""Which calls one worker was told to give back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snakepit.calls.call import Call
from snakepit.errors import ProtocolError
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import read_ids, value_frame


class Recalls:
    """The calls of one worker that were called back and are not given back yet."""

    def __init__(self) -> None:
        self._asked: frozenset[int] = frozenset()

    @property
    def pending(self) -> bool:
        """Whether the worker has not answered yet."""
        return bool(self._asked)

    def recall(self, calls: Sequence[Call]) -> bytes:
        """The frame that calls these back, at least one."""
        ids = [call.wire_id for call in calls]
        self._asked = frozenset(ids)
        return value_frame(FrameType.RECALL, 0, ids)

    def given_back(self, frame: Frame, calls: Mapping[int, Call]) -> list[Call]:
        """Which of the open ``calls`` a ``RECALLED`` gives back. All it names are looked at before
        anything is done with one: what is taken out, and then not settled, would have no end.

        Raises:
            ProtocolError: one was not called back, has ended, or is named twice.
        """
        asked, self._asked = self._asked, frozenset()
        ids = read_ids(frame)
        found = [calls[each] for each in ids if each in asked and each in calls]
        if len(found) != len(ids) or len(set(ids)) != len(ids):
            raise ProtocolError(f"calls {ids} were given back, of which {sorted(asked)} were asked")
        return found
