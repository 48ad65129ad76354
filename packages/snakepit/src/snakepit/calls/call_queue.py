"""The calls that wait for a worker, in the order in which they are served. Pure: no IO, no clock.

Priority classes are strict: while a call of a higher class can run, none of a lower one does.
Inside a class, sessions take turns, a call each, so that nobody waits behind the ten thousand calls
of another session. Inside a session, and among all the calls that belong to none, it is first come,
first served.

A call may be bound to one worker (strict affinity). A session whose first call waits for a worker
with no free slot is *parked* under that worker, and costs nothing until that worker has room. It
was the next to be served when it was parked, so when its worker has room it comes first.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from snakepit.calls.call import NORMAL_PRIORITY, PRIORITIES, Call

# Calls that were taken out of the middle stay in a lane's deque as holes, up to this many or as
# many as still wait, whichever is more. So taking one out costs the same however long the queue is.
_HOLES = 32


class WaitsFor(NamedTuple):
    """A call can run on one worker only, which has no free slot."""

    worker_id: str


Place = Callable[[Call], str | WaitsFor | None]
"""Finds the worker for a call and takes a slot there; None if no call can run anywhere."""


class Lane:
    """The waiting calls of one session in one priority class. Its first is never a hole."""

    __slots__ = ("calls", "holes", "parked_at", "session_id")

    def __init__(self, session_id: str | None) -> None:
        self.session_id = session_id
        self.calls: deque[Call] = deque()
        self.holes = 0
        #: The worker its first call waits for, if it is known to wait for one.
        self.parked_at: str | None = None

    def __iter__(self) -> Iterator[Call]:
        return (call for call in self.calls if call.lane is self)

    def __len__(self) -> int:
        return len(self.calls) - self.holes

    def drop(self) -> None:
        """Note that a call of the lane waits no more: its place is a hole."""
        self.holes += 1
        self.skip_holes()
        if self.holes > max(_HOLES, len(self)):
            self.calls = deque(self)
            self.holes = 0

    def skip_holes(self) -> None:
        """Have a waiting call in front again."""
        calls = self.calls
        while self.holes and calls[0].lane is not self:
            calls.popleft()
            self.holes -= 1


Ring = OrderedDict[str | None, Lane]
"""Lanes by session; the first is served next."""


class _PriorityClass:
    """The lanes of one class. One with calls is in the ring or parked, an empty one in neither.

    ``awaited`` is shared by all classes: how many lanes are parked under each worker.
    """

    __slots__ = ("awaited", "lanes", "parked", "ring")

    def __init__(self, awaited: dict[str, int]) -> None:
        self.awaited = awaited
        # The lane of calls without a session is kept when it is empty: most pools use no other.
        self.lanes: dict[str | None, Lane] = {None: Lane(None)}
        self.ring: Ring = OrderedDict()
        self.parked: dict[str, Ring] = {}

    def in_turn(self) -> Iterator[Lane]:
        """Its lanes with calls, those that wait for a worker first."""
        for parked in self.parked.values():
            yield from parked.values()
        yield from self.ring.values()

    def open_lane(self, session_id: str | None) -> Lane:
        """A lane for a session that has none."""
        lane = self.lanes[session_id] = Lane(session_id)
        return lane

    def leave(self, lane: Lane) -> None:
        """Take a lane out of the ring, or from where it is parked."""
        worker_id = lane.parked_at
        if worker_id is None:
            del self.ring[lane.session_id]
            return
        lane.parked_at = None
        parked = self.parked[worker_id]
        del parked[lane.session_id]
        if not parked:
            del self.parked[worker_id]
        self.awaited[worker_id] -= 1
        if not self.awaited[worker_id]:
            del self.awaited[worker_id]

    def close_if_empty(self, lane: Lane) -> bool:
        """Forget a lane without calls."""
        if lane.calls:
            return False
        self.leave(lane)
        if lane.session_id is not None:
            del self.lanes[lane.session_id]
        return True

    def park(self, lane: Lane, worker_id: str) -> None:
        """Set a lane aside until a worker has room."""
        self.leave(lane)
        self.parked.setdefault(worker_id, OrderedDict())[lane.session_id] = lane
        lane.parked_at = worker_id
        self.awaited[worker_id] = self.awaited.get(worker_id, 0) + 1

    def put_first(self, lane: Lane) -> None:
        """Make a lane, parked or not, the next to be served."""
        if lane.parked_at is not None:
            self.leave(lane)
        self.ring[lane.session_id] = lane
        self.ring.move_to_end(lane.session_id, last=False)


class CallQueue:
    """The waiting calls of a pool.

    Putting a call in, taking it out and finding the next one take the same time however many wait.
    """

    def __init__(self) -> None:
        self._awaited: dict[str, int] = {}
        self._classes = tuple(_PriorityClass(self._awaited) for _ in PRIORITIES)
        # What most pools use alone: the lane of calls without a session, in the normal class.
        self._common = self._classes[NORMAL_PRIORITY].lanes[None]
        #: How many calls wait.
        self.size = 0
        # Workers for which lanes are parked and that have had room since.
        self._with_room: dict[str, None] = {}

    def __iter__(self) -> Iterator[Call]:
        """The waiting calls, as they would be served if each could run on any worker."""
        for in_class in self._classes:
            turns = deque(map(iter, in_class.in_turn()))
            while turns:
                lane = turns.popleft()
                call = next(lane, None)
                if call is not None:
                    yield call
                    turns.append(lane)

    def of_session(self, session_id: str) -> Iterator[Call]:
        """The waiting calls of a session, those of higher classes first."""
        for in_class in self._classes:
            yield from in_class.lanes.get(session_id, ())

    def sessions(self) -> set[str]:
        """The sessions with waiting calls."""
        return {key for each in self._classes for key in each.lanes if key is not None}

    def has_lane(self, session_id: str, priority: int) -> bool:
        """Whether calls of a session wait in a class: a new one has to wait behind them."""
        return session_id in self._classes[priority].lanes

    def count(self, priority: int) -> int:
        """How many calls of a class wait."""
        return sum(map(len, self._classes[priority].in_turn()))

    def parked(self) -> int:
        """How many calls are known to wait for one certain worker, or behind one that does."""
        rings = (ring for in_class in self._classes for ring in in_class.parked.values())
        return sum(len(lane) for ring in rings for lane in ring.values())

    def next_in_turn(self, may_run: Callable[[Call], bool]) -> Iterator[Call]:
        """The call that is to be served next of each class with one that is not parked; only such
        as ``may_run``.
        """
        for in_class in self._classes:
            firsts = (lane.calls[0] for lane in in_class.ring.values())
            yield from itertools.islice(filter(may_run, firsts), 1)

    def ahead_of(self, session_id: str | None, priority: int) -> int:
        """How many of the waiting calls would be served before a new one."""
        higher = sum(map(self.count, range(priority)))
        own = self._classes[priority].lanes.get(session_id, ())
        # Each other session gets a turn for each call of this one, the new one included.
        others = (lane for lane in self._classes[priority].in_turn() if lane is not own)
        return higher + len(own) + sum(min(len(lane), len(own) + 1) for lane in others)

    # --- calls -----------------------------------------------------------------------------------

    def push(self, call: Call) -> None:
        """Put in a call, behind those of its session."""
        in_class = self._classes[call.priority]
        lane = in_class.lanes.get(call.session_id)
        if lane is None:
            lane = in_class.open_lane(call.session_id)
        if not lane.calls:
            in_class.ring[call.session_id] = lane
        lane.calls.append(call)
        call.lane = lane
        self.size += 1

    def push_front(self, call: Call) -> None:
        """Put back a call that was taken and could not run after all. It is the next to be served.

        Of several, the one taken first is put back last.
        """
        in_class = self._classes[call.priority]
        lane = in_class.lanes.get(call.session_id)
        if lane is None:
            lane = in_class.open_lane(call.session_id)
        lane.calls.appendleft(call)
        call.lane = lane
        in_class.put_first(lane)
        self.size += 1

    def remove(self, call: Call) -> None:
        """Take out a waiting call, for good. What waited behind it may be able to run now."""
        lane = call.lane
        assert lane is not None, "the call waits"
        call.lane = None
        self.size -= 1
        in_class = self._classes[call.priority]
        first = lane.calls[0]
        lane.drop()
        if not in_class.close_if_empty(lane) and first is call and lane.parked_at is not None:
            in_class.put_first(lane)

    def only_candidate(self) -> Call | None:
        """The next call, if those that wait differ in nothing but their order: the usual case, to
        cost hardly more than a deque.
        """
        common = self._common
        if self.size == len(common.calls) and not common.holes:
            return common.calls[0]
        return None

    def pop_candidate(self) -> None:
        """Take out that call."""
        calls = self._common.calls
        calls.popleft().lane = None
        self.size -= 1
        if not calls:
            del self._classes[NORMAL_PRIORITY].ring[None]

    def take(self, place: Place) -> tuple[Call, str] | None:
        """Take out the next call that can run, and return it with its worker."""
        for in_class in self._classes:
            if self._with_room and in_class.parked:
                found = self._take_parked(in_class, place)
                if found is not None:
                    return found
            ring = in_class.ring
            while ring:
                lane = next(iter(ring.values()))
                call = lane.calls[0]
                worker = place(call)
                if isinstance(worker, str):
                    self._serve(in_class, lane)
                    return call, worker
                if worker is None:
                    return None
                in_class.park(lane, worker.worker_id)
        return None

    def _take_parked(self, in_class: _PriorityClass, place: Place) -> tuple[Call, str] | None:
        for worker_id in tuple(self._with_room):
            parked = in_class.parked.get(worker_id)
            if parked is None:
                continue
            lane = next(iter(parked.values()))
            call = lane.calls[0]
            worker = place(call)
            if isinstance(worker, str):
                self._serve(in_class, lane)
                return call, worker
            del self._with_room[worker_id]
        return None

    def _serve(self, in_class: _PriorityClass, lane: Lane) -> None:
        """Take the first call out of a lane, which then waits for its next turn."""
        calls = lane.calls
        calls.popleft().lane = None
        self.size -= 1
        lane.skip_holes()
        if in_class.close_if_empty(lane):
            return
        if lane.parked_at is not None:
            in_class.leave(lane)
            in_class.ring[lane.session_id] = lane
        elif len(in_class.ring) > 1:
            in_class.ring.move_to_end(lane.session_id)

    # --- workers and sessions --------------------------------------------------------------------

    def worker_has_room(self, worker_id: str) -> None:
        """A worker has a free slot: what is parked under it can be taken."""
        if worker_id in self._awaited:
            self._with_room[worker_id] = None

    def is_awaited(self, worker_id: str) -> bool:
        """Whether calls are parked that can run on no other worker."""
        return worker_id in self._awaited

    def worker_left(self, worker_id: str) -> None:
        """No call can wait for a worker any more: what is parked under it is next to be served."""
        self._with_room.pop(worker_id, None)
        for in_class in self._classes:
            for lane in reversed(tuple(in_class.parked.get(worker_id, {}).values())):
                in_class.put_first(lane)

    def session_moved(self, session_id: str) -> None:
        """A session is bound to another worker, or to none: it waits no longer for the old one."""
        for in_class in self._classes:
            lane = in_class.lanes.get(session_id)
            if lane is not None and lane.parked_at is not None:
                in_class.put_first(lane)
