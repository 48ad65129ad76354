"""What would become of a call, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.calls.call import PRIORITIES, Call, Priority
from snakepit.calls.scheduler import Scheduler
from snakepit.errors import SnakepitError
from snakepit.options import Affinity


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a pool would do with a call at this moment.

    Attributes:
        command: the command asked for.
        session_id: the session asked for.
        affinity: what would apply, with the pool's default filled in.
        priority: what was asked for.
        runs_now: whether it would start at once.
        worker_id: where it would be sent, or the one worker that it would wait for.
        ahead: whether it would be sent to a worker that still runs another call, and wait there.
        position: how many waiting calls would be served before it; None if it would not wait.
        session_worker: the worker the session is bound to, also when that has left.
        error: the code of the error it would be refused with.
        reason: all this in a sentence.
    """

    command: str
    session_id: str | None
    affinity: Affinity
    priority: Priority
    runs_now: bool = False
    worker_id: str | None = None
    ahead: bool = False
    position: int | None = None
    session_worker: str | None = None
    error: str | None = None
    reason: str


def explain(
    call: Call, affinity: Affinity, scheduler: Scheduler, *, lender: str | None, short: bool
) -> Explanation:
    """What would become of a new call. ``lender``: the worker in a slot of which it may run,
    because a call there waits for it; ``short``: whether it may be sent ahead.
    """

    def answer(
        reason: str,
        *,
        runs_now: bool = False,
        worker_id: str | None = None,
        ahead: bool = False,
        position: int | None = None,
        error: str | None = None,
    ) -> Explanation:
        return Explanation(
            command=call.command,
            session_id=call.session_id,
            affinity=affinity,
            priority=PRIORITIES[call.priority],
            runs_now=runs_now,
            worker_id=worker_id,
            ahead=ahead,
            position=position,
            session_worker=scheduler.bound_to(call.session_id),
            error=error,
            reason=reason,
        )

    if lender is not None:
        return answer(
            f"runs now on {lender}, in the slot of the call that waits for it",
            runs_now=True,
            worker_id=lender,
        )
    try:
        scheduler.require_worker(call)
        if scheduler.can_start(call):
            worker_id = scheduler.find(call)
            return answer(
                _why_there(call, worker_id, scheduler), runs_now=True, worker_id=worker_id
            )
        if short and not scheduler.queued and (worker_id := scheduler.find(call, short=True)):
            return answer(
                f"is sent to {worker_id}, which is busy with short calls, to run after them",
                worker_id=worker_id,
                ahead=True,
            )
        scheduler.require_space()
    except SnakepitError as error:
        return answer(f"is refused: {error}", error=error.code)
    position = scheduler.queue.ahead_of(call.session_id, call.priority)
    home = scheduler.home_of(call.session_id) if call.strict else None
    return answer(
        f"{_why_it_waits(call, home, scheduler)}; {position} calls would be served before it",
        worker_id=home,
        position=position,
    )


def _why_there(call: Call, worker_id: str | None, scheduler: Scheduler) -> str:
    home = scheduler.home_of(call.session_id)
    if home == worker_id:
        return f"runs now on {worker_id}, which served its session before"
    if home is not None:
        return f"runs now on {worker_id}: {home}, which served its session before, is busy"
    return f"runs now on {worker_id}, the least loaded worker"


def _why_it_waits(call: Call, home: str | None, scheduler: Scheduler) -> str:
    if home is not None:
        return f"waits for {home}, which keeps its session and is busy"
    if scheduler.waits_behind_its_session(call):
        return "waits behind earlier calls of its session"
    if not scheduler.open_workers:
        return "waits for a worker: none is ready"
    return f"waits for a worker: all {scheduler.open_workers} are busy"
