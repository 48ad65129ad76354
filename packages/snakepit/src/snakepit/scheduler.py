"""Which call runs on which worker. Pure: no IO, no clock, no task.

A worker has as many slots as its concurrency. A call goes to the least loaded worker with a free
slot (ties rotate), or into a bounded FIFO queue. A call of a session prefers the worker that
served the session before (affinity ``hint``), or waits for that one (``strict_queue``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from snakepit.calls import Call
from snakepit.errors import PoolSaturated

# Sessions whose worker is remembered; the least recently used are forgotten, which costs only warm
# caches.
_REMEMBERED_SESSIONS = 100_000


@dataclass(slots=True)
class _Slots:
    capacity: int
    load: int = 0
    closed: bool = False


class Scheduler:
    """The slots of a pool's workers, the queue and the sessions' workers."""

    def __init__(self, queue_limit: int) -> None:
        self._queue_limit = queue_limit
        self._queue: deque[Call] = deque()
        # In order of their last assignment, so that among equals the longest unused comes first.
        self._workers: OrderedDict[str, _Slots] = OrderedDict()
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
        return self._least_loaded() is not None

    def load_of(self, worker_id: str) -> int:
        """How many slots of a worker are taken."""
        return self._workers[worker_id].load

    def worker_of(self, session_id: str) -> str | None:
        """The worker a session is bound to, if that worker still exists."""
        worker_id = self._sessions.get(session_id)
        return worker_id if worker_id in self._workers else None

    # --- calls -----------------------------------------------------------------------------

    def submit(self, call: Call) -> str | None:
        """Take a slot for a call and return its worker, or queue the call and return None.

        Raises:
            PoolSaturated: the queue is full.
        """
        # Whoever waits can't run now: all are asked again when a slot becomes free. So the new call
        # overtakes only those that wait for a worker it does not need.
        worker_id = self._place(call)
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
            slots.load -= 1

    def next(self) -> tuple[Call, str] | None:
        """The next queued call that can start, and its worker; a slot is taken for it."""
        if not self._queue or not self.has_free_slot():
            return None
        for call in self._queue:
            worker_id = self._place(call)
            if worker_id is not None:
                self._queue.remove(call)
                return call, worker_id
        return None

    def _place(self, call: Call) -> str | None:
        worker_id = self._bound(call.session_id)
        if worker_id is None and not (call.strict and self.home_of(call.session_id)):
            worker_id = self._least_loaded()
        if worker_id is None:
            return None
        self._workers[worker_id].load += 1
        self._workers.move_to_end(worker_id)
        if call.session_id is not None:
            self._bind(call.session_id, worker_id)
        return worker_id

    def home_of(self, session_id: str | None) -> str | None:
        """The worker a session is bound to, if it lives and takes calls: where strict calls run."""
        worker_id = None if session_id is None else self._sessions.get(session_id)
        slots = None if worker_id is None else self._workers.get(worker_id)
        return worker_id if slots is not None and not slots.closed else None

    def _bound(self, session_id: str | None) -> str | None:
        worker_id = None if session_id is None else self._sessions.get(session_id)
        slots = None if worker_id is None else self._workers.get(worker_id)
        free = slots is not None and not slots.closed and slots.load < slots.capacity
        return worker_id if free else None

    def _least_loaded(self) -> str | None:
        best, best_load = None, 0
        for worker_id, slots in self._workers.items():
            if slots.closed or slots.load >= slots.capacity:
                continue
            if best is None or slots.load < best_load:
                best, best_load = worker_id, slots.load
                if best_load == 0:
                    break
        return best

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

    def add_worker(self, worker_id: str, capacity: int) -> None:
        """A worker is ready to take calls. It is the first to get one."""
        self._workers[worker_id] = _Slots(capacity)
        self._workers.move_to_end(worker_id, last=False)

    def close_worker(self, worker_id: str) -> None:
        """Assign nothing more to a worker; the calls it has go on."""
        slots = self._workers.get(worker_id)
        if slots is not None:
            slots.closed = True

    def remove_worker(self, worker_id: str) -> None:
        """A worker is gone with its slots; its sessions are bound anew by their next call."""
        self._workers.pop(worker_id, None)
