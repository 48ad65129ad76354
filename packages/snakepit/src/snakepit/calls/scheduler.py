"""Which call runs on which worker. Pure: no IO, no clock, no task.

A worker has as many slots as its concurrency. A call goes to the least loaded worker with a free
slot (ties rotate), or into a bounded queue (see :mod:`snakepit.calls.call_queue` for its order).

A session is bound to the worker that served it last. With affinity ``hint`` a call of it prefers
that worker, and moves the session when it runs elsewhere. A strict call runs on that worker or not
at all: it waits for it (``strict_queue``) or is refused while it is busy (``strict_fail_fast``).
When that worker leaves, what it kept of the session is lost, and strict calls are refused until the
caller has taken note: by releasing the session, or by a call with ``hint``, which binds it anew.

When no slot is free, a call that is expected to be short may be sent *ahead*: to a worker that
still runs another short one, so that the worker need not wait for the host between the two. It is
called back when the other one turns out slow.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from snakepit.calls.call import PRIORITIES, Call
from snakepit.calls.call_queue import CallQueue, WaitsFor
from snakepit.errors import PoolSaturated, SessionWorkerUnavailable, WorkerBusy
from snakepit.telemetry import bus

# The lowest level where no worker takes calls.
_NOWHERE: Final = sys.maxsize
#: Sessions whose worker is remembered; the least recently used are forgotten.
SESSION_LIMIT = 10_000


class _Slots:
    """The slots of one worker."""

    __slots__ = ("capacity", "closed", "held", "limit", "load", "recalling", "worker_id")

    def __init__(self, worker_id: str, capacity: int, ahead: int) -> None:
        self.worker_id = worker_id
        self.capacity = capacity
        #: How many calls it may be sent, those ahead included.
        self.limit = capacity + ahead
        self.load = 0
        self.closed = False
        #: Whether the call it runs is not known to be short, so that nothing is to wait behind it.
        self.held = False
        #: Whether it was told to give calls back, and has not said which: what is sent to it now
        #: would overtake them.
        self.recalling = False

    def room(self, *, ahead: bool) -> bool:
        """Whether it can take a call: in a free slot, or ahead."""
        limit = self.limit if ahead and not self.held and not self.recalling else self.capacity
        return self.load < limit and not self.closed


class Rebinding(NamedTuple):
    """That a session was bound to another worker, or to none. ``reason``: why it left ``before``,
    if it was bound.
    """

    session_id: str
    before: str | None
    after: str | None
    reason: str


class Scheduler:
    """The slots of a pool's workers, the queue and the sessions' workers."""

    def __init__(self, queue_limit: int, session_limit: int = SESSION_LIMIT) -> None:
        self._queue_limit = queue_limit
        self._session_limit = session_limit
        self.queue = CallQueue()
        self._workers: dict[str, _Slots] = {}
        # The open workers by load, each level in the order they came to it: so the first of the
        # first level that is not empty is the least loaded, and the longest unused of those.
        self._levels: list[OrderedDict[str, _Slots]] = [OrderedDict()]
        # The first level with workers.
        self._lowest = _NOWHERE
        # A worker with so much load has no free slot, or can't be sent anything, whichever it is.
        self._capacity = 0
        self._limit = 0
        #: How many calls all workers were sent beyond those they can run.
        self.ahead = 0
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self.session_hits = 0
        self.session_misses = 0
        # What has not been told yet; kept only where somebody listens.
        self._rebindings: list[Rebinding] = []

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self.queue.size

    def waiting(self) -> Iterator[Call]:
        """The calls that wait, as they would be served."""
        return iter(self.queue)

    @property
    def open_workers(self) -> int:
        """How many workers take calls."""
        return sum(map(len, self._levels))

    @property
    def sessions(self) -> int:
        """How many sessions are remembered."""
        return len(self._sessions)

    def gauges(self) -> dict[str, int]:
        """Its part of a pool's statistics."""
        return {
            "queued": self.queue.size,
            "queued_high": self.queue.count(PRIORITIES.index("high")),
            "queued_low": self.queue.count(PRIORITIES.index("low")),
            "queued_for_one_worker": self.queue.parked(),
            "sessions": len(self._sessions),
            "session_hits": self.session_hits,
            "session_misses": self.session_misses,
        }

    @property
    def load(self) -> int:
        """How many slots are taken of the workers that take calls."""
        open_slots = (slots for slots in self._workers.values() if not slots.closed)
        return sum(min(slots.load, slots.capacity) for slots in open_slots)

    @property
    def waiting_for_any(self) -> int:
        """How many calls wait that are not known to need one certain worker."""
        return self.queue.size - self.queue.parked() + self.ahead

    @property
    def waits_since(self) -> float | None:
        """When the call was submitted that has waited longest of those that are to be served next
        and that any worker could serve; None if there is none.
        """
        firsts = self.queue.next_in_turn(lambda call: not self._needs_its_worker(call))
        return min((call.submitted_at for call in firsts), default=None)

    def _needs_its_worker(self, call: Call) -> bool:
        return call.strict and self._home(call.session_id) is not None

    def sessions_by_worker(self) -> Mapping[str, int]:
        """How many sessions are bound to each worker that has some."""
        return Counter(self._sessions.values())

    def has_free_slot(self) -> bool:
        """Whether some worker could take a call now."""
        return self._least_loaded(False) is not None

    def can_start(self, call: Call) -> bool:
        """Whether a new call could be given a slot now."""
        return not self.waits_behind_its_session(call) and self.find(call) is not None

    def load_of(self, worker_id: str) -> int:
        """How many slots of a worker are taken; more than its capacity when calls are ahead."""
        return self._workers[worker_id].load

    def ahead_of(self, worker_id: str) -> int:
        """How many calls a worker was sent that it can't have started."""
        slots = self._workers.get(worker_id)
        return 0 if slots is None else max(0, slots.load - slots.capacity)

    def worker_of(self, session_id: str) -> str | None:
        """The worker a session is bound to, if that worker still exists."""
        worker_id = self._sessions.get(session_id)
        return worker_id if worker_id in self._workers else None

    # --- calls -----------------------------------------------------------------------------

    def submit(self, call: Call, *, short: bool = False) -> str | None:
        """Take a slot for a call and return its worker, or queue the call and return None.

        ``short``: it may be sent ahead.

        Raises:
            PoolSaturated: the queue is full.
            SessionWorkerUnavailable: it is strict, and its session's worker has left.
            WorkerBusy: it must not wait for its session's worker, and would have to.
        """
        behind = False
        if call.session_id is not None:
            self.require_worker(call)
            behind = self.waits_behind_its_session(call)
        # Whoever waits can't run now: all are asked again when a slot becomes free. So the new call
        # overtakes only those that wait for a worker it does not need. None goes ahead of those
        # that wait, or the slots would never become free for a call that is not short.
        worker_id = None if behind else self._place(call, short, short and not self.queue.size)
        if worker_id is None:
            self.require_space()
            self.queue.push(call)
        return worker_id

    def waits_behind_its_session(self, call: Call) -> bool:
        """Whether earlier calls of its session wait: they are served first come, first served."""
        if call.session_id is None or not self.queue.size:
            return False
        return self.queue.has_lane(call.session_id, call.priority)

    def require_worker(self, call: Call) -> None:
        """Refuse a strict call that can't run on its session's worker, or must not wait for it.

        Raises:
            SessionWorkerUnavailable, WorkerBusy: it is not made.
        """
        if call.session_id is None or not call.strict:
            return
        bound_to = self._sessions.get(call.session_id)
        home = self._home(call.session_id)
        if home is None and bound_to is not None:
            raise self.lost_worker_error(call)
        if call.fail_fast:
            busy = home is not None and not home.room(ahead=False)
            if busy or self.waits_behind_its_session(call):
                raise WorkerBusy(
                    f"worker {bound_to} of session {call.session_id!r} has no free slot"
                    if busy
                    else f"earlier calls of session {call.session_id!r} wait for a worker",
                    details={"session_id": call.session_id, "worker_id": bound_to},
                )

    def lost_worker_error(self, call: Call) -> SessionWorkerUnavailable:
        """The error of a strict call whose session's worker has left."""
        worker_id = self.bound_to(call.session_id)
        return SessionWorkerUnavailable(
            f"worker {worker_id}, to which session {call.session_id!r} is bound, has left, and "
            "what it kept of the session is lost; release the session, build it again, then retry",
            details={"session_id": call.session_id, "worker_id": worker_id},
        )

    def require_space(self) -> None:
        """Refuse what the queue has no space for.

        Raises:
            PoolSaturated: it is full.
        """
        if self.queue.size >= self._queue_limit:
            raise PoolSaturated(
                f"{self.queue.size} calls wait already, which is the limit; "
                "retry later, or raise the pool's size or queue_limit",
                details={"queued": self.queue.size, "queue_limit": self._queue_limit},
            )

    def borrowed(self, call: Call, worker_id: str) -> None:
        """A call runs in the slot of another one; what it keeps of its session is there."""
        if call.session_id is not None and self.home_of(call.session_id) is None:
            self._bind(call.session_id, worker_id)

    def withdraw(self, call: Call) -> None:
        """Take a call that has not started out of the queue; what waited behind it may start."""
        self.queue.remove(call)

    def stranded(self, worker_id: str) -> list[Call]:
        """The waiting calls that could run only on a worker that has left."""
        slots = self._workers.get(worker_id)
        if slots is not None and not slots.closed:
            return []
        bound = (each for each in self.queue.sessions() if self._sessions.get(each) == worker_id)
        return [call for each in bound for call in self.queue.of_session(each) if call.strict]

    def release(self, worker_id: str) -> None:
        """Give back a slot of a worker; one that is gone is ignored."""
        slots = self._workers.get(worker_id)
        if slots is None:
            return
        slots.held = False
        load = slots.load
        slots.load = load - 1
        if load > slots.capacity:
            self.ahead -= 1
        if not slots.closed:
            levels = self._levels
            level = levels[load]
            del level[worker_id]
            levels[load - 1][worker_id] = slots
            if load <= self._lowest:
                self._lowest = load - 1
        if self.queue.size:
            self.queue.worker_has_room(worker_id)

    def recalled(self, call: Call, worker_id: str) -> None:
        """A call that was sent ahead has not started: it is the next to be placed.

        Several are reported in the reverse order of their sending.
        """
        slots = self._workers.get(worker_id)
        held = slots is not None and slots.held
        self.release(worker_id)
        if slots is not None:
            slots.held = held
        self.queue.push_front(call)

    def hold(self, worker_id: str) -> None:
        """Send a worker nothing ahead until it has ended the call it runs, which is slow, and has
        given back what it has not started.
        """
        slots = self._workers.get(worker_id)
        if slots is not None:
            slots.held = slots.recalling = True

    def recall_ended(self, worker_id: str) -> None:
        """A worker has given back all it will give back."""
        slots = self._workers.get(worker_id)
        if slots is not None:
            slots.recalling = False

    def next(self, is_short: Callable[[Call], bool] = lambda _: False) -> tuple[Call, str] | None:
        """The next queued call that can be sent, and its worker; a slot is taken for it.

        ``is_short`` says whether a call may be sent ahead.
        """

        queue = self.queue
        if not queue.size or not self._has_room():
            return None
        call = queue.only_candidate()
        if call is not None:
            short = is_short(call)
            slots = self._least_loaded(short)
            if slots is None:
                return None
            queue.pop_candidate()
            return call, self._take_slot(slots, short)

        def place(call: Call) -> str | WaitsFor | None:
            short = is_short(call)
            worker_id = self._place(call, short, short)
            if worker_id is None and call.strict:
                home = self._home(call.session_id)
                return None if home is None else WaitsFor(home.worker_id)
            return worker_id

        return queue.take(place)

    def _place(self, call: Call, short: bool, ahead: bool) -> str | None:
        """Take a slot for a call that is ``short`` or not, in a busy worker only if ``ahead``."""
        if not self._has_room():
            return None
        session_id = call.session_id
        slots = self._least_loaded(ahead) if session_id is None else self._find(call, ahead)
        if slots is None:
            return None
        if session_id is not None:
            self._bind(session_id, slots.worker_id)
        return self._take_slot(slots, short)

    def _take_slot(self, slots: _Slots, short: bool) -> str:
        """Count a call that is ``short`` or not as sent to a worker, and return which it is."""
        worker_id = slots.worker_id
        if not short:
            slots.held = True
        levels, load = self._levels, slots.load
        if load >= slots.capacity:
            self.ahead += 1
        level = levels[load]
        del level[worker_id]
        slots.load = load + 1
        levels[load + 1][worker_id] = slots
        if not level and load == self._lowest:
            self._lowest = load + 1
        return worker_id

    def find(self, call: Call, *, short: bool = False) -> str | None:
        """The worker that a call would be sent to now, if it were the only one that waits."""
        slots = self._find(call, short)
        return None if slots is None else slots.worker_id

    def _find(self, call: Call, ahead: bool) -> _Slots | None:
        session_id = call.session_id
        if session_id is None:
            return self._least_loaded(ahead)
        home = self._home(session_id)
        if home is None:
            # It will be bound to the worker it is sent to, so that one must really run it.
            return self._least_loaded(False)
        if home.room(ahead=False):
            return home
        slots = None if call.strict else self._least_loaded(False)
        if slots is None and ahead and self._may_go_ahead(call, home):
            return home
        return slots

    def _has_room(self) -> bool:
        """Whether any worker can be sent anything: to know at a look that a busy pool can't."""
        return self._lowest < self._limit

    def _may_go_ahead(self, call: Call, slots: _Slots) -> bool:
        """Whether a call may be sent to a busy worker, and overtakes nobody who waits for it."""
        if not slots.room(ahead=True):
            return False
        parked_at = None if call.lane is None else call.lane.parked_at
        return parked_at == slots.worker_id or not self.queue.is_awaited(slots.worker_id)

    def home_of(self, session_id: str | None) -> str | None:
        """The worker a session is bound to, if it lives and takes calls: where strict calls run."""
        home = self._home(session_id)
        return None if home is None else home.worker_id

    def bound_to(self, session_id: str | None) -> str | None:
        """The worker a session is bound to, even if it has left."""
        return None if session_id is None else self._sessions.get(session_id)

    def _home(self, session_id: str | None) -> _Slots | None:
        worker_id = self.bound_to(session_id)
        slots = None if worker_id is None else self._workers.get(worker_id)
        return slots if slots is not None and not slots.closed else None

    def _least_loaded(self, ahead: bool) -> _Slots | None:
        load = self._lowest
        end = self._limit if ahead else self._capacity
        while load < end:
            for slots in self._levels[load].values():
                if load < slots.capacity:
                    return slots
                if ahead and slots.room(ahead=True) and not self.queue.is_awaited(slots.worker_id):
                    return slots
            load += 1
        return None

    # --- sessions ----------------------------------------------------------------------------

    def _bind(self, session_id: str, worker_id: str) -> None:
        before = self._sessions.get(session_id)
        if before == worker_id:
            self.session_hits += 1
        else:
            if bus.listening:
                reason = "worker_busy" if self._home(session_id) else "worker_left"
                self._rebindings.append(Rebinding(session_id, before, worker_id, reason))
            if before is not None:
                self.session_misses += 1
                self.queue.session_moved(session_id)
        self._sessions[session_id] = worker_id
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > self._session_limit:
            forgotten, bound_to = self._sessions.popitem(last=False)
            self.queue.session_moved(forgotten)
            if bus.listening:
                self._rebindings.append(Rebinding(forgotten, bound_to, None, "forgotten"))

    def take_rebindings(self) -> list[Rebinding]:
        """The sessions that were bound anew since this was asked for last."""
        rebindings, self._rebindings = self._rebindings, []
        return rebindings

    def release_session(self, session_id: str) -> bool:
        """Forget which worker a session is bound to; whether it was bound."""
        self.queue.session_moved(session_id)
        return self._sessions.pop(session_id, None) is not None

    # --- workers -----------------------------------------------------------------------------

    def add_worker(self, worker_id: str, capacity: int, *, ahead: int = 0) -> None:
        """A worker is ready to take calls. It is the first to get one.

        ``ahead``: how many calls it may be sent beyond those it runs.
        """
        slots = self._workers[worker_id] = _Slots(worker_id, capacity, ahead)
        self._capacity = max(self._capacity, capacity)
        self._limit = max(self._limit, slots.limit)
        while len(self._levels) <= slots.limit:
            self._levels.append(OrderedDict())
        self._lowest = 0
        idle = self._levels[0]
        idle[worker_id] = slots
        idle.move_to_end(worker_id, last=False)

    def close_worker(self, worker_id: str) -> None:
        """Assign nothing more to a worker; the calls it has go on."""
        slots = self._workers.get(worker_id)
        if slots is not None and not slots.closed:
            slots.closed = True
            del self._levels[slots.load][worker_id]
            self._lowest = next((i for i, each in enumerate(self._levels) if each), _NOWHERE)
            self.queue.worker_left(worker_id)

    def remove_worker(self, worker_id: str) -> None:
        """A worker is gone with its slots."""
        self.ahead -= self.ahead_of(worker_id)
        self.close_worker(worker_id)
        self._workers.pop(worker_id, None)
