"""Which call runs on which worker. Pure: no IO, no clock, no task.

A worker has as many slots as its concurrency. A call goes to the least loaded worker with a free
slot (ties rotate), or into a bounded FIFO queue. A call of a session prefers the worker that
served the session before (affinity ``hint``), or waits for that one (``strict_queue``).

When no slot is free, a call that is expected to be short may be sent *ahead*: to a worker that
still runs another short one, so that the worker need not wait for the host between the two. It is
called back when the other one turns out slow.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from snakepit.calls import Call
from snakepit.errors import PoolSaturated

# Sessions whose worker is remembered; the least recently used are forgotten, which costs only warm
# caches.
_REMEMBERED_SESSIONS = 100_000


class _Slots:
    """The slots of one worker."""

    __slots__ = ("ahead", "capacity", "closed", "held", "load", "worker_id")

    def __init__(self, worker_id: str, capacity: int, ahead: int) -> None:
        self.worker_id = worker_id
        self.capacity = capacity
        #: How many calls it may be sent beyond its capacity.
        self.ahead = ahead
        self.load = 0
        self.closed = False
        #: Whether the call it runs is not known to be short, so that nothing is to wait behind it.
        self.held = False

    def room(self, *, ahead: bool) -> bool:
        """Whether it can take a call: in a free slot, or ahead."""
        limit = self.capacity + self.ahead if ahead and not self.held else self.capacity
        return self.load < limit and not self.closed


class Scheduler:
    """The slots of a pool's workers, the queue and the sessions' workers."""

    def __init__(self, queue_limit: int) -> None:
        self._queue_limit = queue_limit
        self._queue: deque[Call] = deque()
        self._workers: dict[str, _Slots] = {}
        # The open workers by load, each level in the order they came to it: so the first of the
        # first level that is not empty is the least loaded, and the longest unused of those.
        self._levels: list[OrderedDict[str, _Slots]] = [OrderedDict()]
        self._capacity = 0
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self.session_hits = 0
        self.session_misses = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    def waiting(self) -> Iterator[Call]:
        """The calls that wait, first come first."""
        return iter(self._queue)

    def has_free_slot(self) -> bool:
        """Whether some worker could take a call now."""
        return self._least_loaded(ahead=False) is not None

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
        """
        # Whoever waits can't run now: all are asked again when a slot becomes free. So the new call
        # overtakes only those that wait for a worker it does not need. None goes ahead of those
        # that wait, or the slots would never become free for a call that is not short.
        worker_id = self._place(call, short=short, ahead=short and not self._queue)
        if worker_id is not None:
            return worker_id
        if len(self._queue) >= self._queue_limit:
            raise PoolSaturated(
                f"{len(self._queue)} calls wait already, which is the limit; "
                "retry later, or raise the pool's size or queue_limit",
                details={"queued": len(self._queue), "queue_limit": self._queue_limit},
            )
        self._queue.append(call)
        return None

    def borrowed(self, call: Call, worker_id: str) -> None:
        """A call runs in the slot of another one; what it keeps of its session is there."""
        if call.session_id is not None and self.home_of(call.session_id) is None:
            self._bind(call.session_id, worker_id)

    def withdraw(self, call: Call) -> None:
        """Take a call that has not started out of the queue."""
        self._queue.remove(call)

    def release(self, worker_id: str) -> None:
        """Give back a slot of a worker; one that is gone is ignored."""
        slots = self._workers.get(worker_id)
        if slots is not None:
            slots.held = False
            self._set_load(slots, slots.load - 1)

    def recalled(self, call: Call, worker_id: str) -> None:
        """A call that was sent ahead has not started: it is the next to be placed.

        Several are reported in the reverse order of their sending.
        """
        slots = self._workers.get(worker_id)
        if slots is not None:
            self._set_load(slots, slots.load - 1)
        self._queue.appendleft(call)

    def hold(self, worker_id: str) -> None:
        """Send a worker nothing ahead until it has ended the call it runs, which is slow."""
        slots = self._workers.get(worker_id)
        if slots is not None:
            slots.held = True

    def next(self, is_short: Callable[[Call], bool] = lambda _: False) -> tuple[Call, str] | None:
        """The next queued call that can be sent, and its worker; a slot is taken for it.

        ``is_short`` says whether a call may be sent ahead. Only the first in the queue may.
        """
        if not self._queue:
            return None
        first = self._queue[0]
        short = is_short(first)
        worker_id = self._place(first, short=short, ahead=short)
        if worker_id is not None:
            return self._queue.popleft(), worker_id
        if self.has_free_slot():
            for call in self._queue:
                worker_id = self._place(call, short=is_short(call), ahead=False)
                if worker_id is not None:
                    self._queue.remove(call)
                    return call, worker_id
        return None

    def _place(self, call: Call, *, short: bool, ahead: bool) -> str | None:
        session_id = call.session_id
        slots = None
        if session_id is None:
            slots = self._least_loaded(ahead=ahead)
        else:
            home = self._home(session_id)
            if home is not None and home.room(ahead=False):
                slots = home
            elif home is not None and call.strict:
                slots = home if home.room(ahead=ahead) else None
            else:
                slots = self._least_loaded(ahead=ahead)
            if slots is not None:
                self._bind(session_id, slots.worker_id)
        if slots is None:
            return None
        if not short:
            slots.held = True
        self._set_load(slots, slots.load + 1)
        return slots.worker_id

    def home_of(self, session_id: str | None) -> str | None:
        """The worker a session is bound to, if it lives and takes calls: where strict calls run."""
        home = None if session_id is None else self._home(session_id)
        return None if home is None else home.worker_id

    def _home(self, session_id: str) -> _Slots | None:
        slots = self._workers.get(self._sessions.get(session_id, ""))
        return slots if slots is not None and not slots.closed else None

    def _least_loaded(self, *, ahead: bool) -> _Slots | None:
        # Above the capacity there is room only ahead: a full pool needs no look at all workers.
        levels = self._levels if ahead else self._levels[: self._capacity]
        for level in levels:
            for slots in level.values():
                if slots.room(ahead=ahead):
                    return slots
        return None

    def _set_load(self, slots: _Slots, load: int) -> None:
        if not slots.closed:
            del self._levels[slots.load][slots.worker_id]
            if load == len(self._levels):
                self._levels.append(OrderedDict())
            self._levels[load][slots.worker_id] = slots
        slots.load = load

    # --- sessions ----------------------------------------------------------------------------

    def _bind(self, session_id: str, worker_id: str) -> None:
        before = self._sessions.get(session_id)
        if before == worker_id:
            self.session_hits += 1
        elif before is not None:
            self.session_misses += 1
        self._sessions[session_id] = worker_id
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > _REMEMBERED_SESSIONS:
            self._sessions.popitem(last=False)

    def release_session(self, session_id: str) -> bool:
        """Forget which worker a session is bound to; whether it was bound."""
        return self._sessions.pop(session_id, None) is not None

    # --- workers -----------------------------------------------------------------------------

    def add_worker(self, worker_id: str, capacity: int, *, ahead: int = 0) -> None:
        """A worker is ready to take calls. It is the first to get one.

        ``ahead``: how many calls it may be sent beyond those it runs.
        """
        slots = self._workers[worker_id] = _Slots(worker_id, capacity, ahead)
        self._capacity = max(self._capacity, capacity)
        idle = self._levels[0]
        idle[worker_id] = slots
        idle.move_to_end(worker_id, last=False)

    def close_worker(self, worker_id: str) -> None:
        """Assign nothing more to a worker; the calls it has go on."""
        slots = self._workers.get(worker_id)
        if slots is not None and not slots.closed:
            slots.closed = True
            del self._levels[slots.load][worker_id]

    def remove_worker(self, worker_id: str) -> None:
        """A worker is gone with its slots; its sessions are bound anew by their next call."""
        self.close_worker(worker_id)
        self._workers.pop(worker_id, None)
