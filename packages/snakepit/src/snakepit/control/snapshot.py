"""What a control socket shows of a pool: counts, names and times; no value of any call.

Session ids are left out, since they may be what a service knows its users by.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from snakepit.calls.call_infos import CallInfo
from snakepit.calls.stats import PoolStats
from snakepit.supervision.health import Health
from snakepit.supervision.member import Member, Standing

_MOST_CALLS: Final = 20


def describe_pool(
    *,
    name: str,
    stats: PoolStats,
    health: Health,
    members: Mapping[str, Member],
    running: Iterable[CallInfo],
    started_at: float,
    now: float,
) -> dict[str, Any]:
    """A pool at the moment ``now``, as plain data. Times in seconds, on the clock of
    ``time.monotonic()``.

    ``calls`` are those that have run longest. Reads nothing from disk or kernel, so that looking
    costs the pool's event loop a fraction of a millisecond.
    """
    oldest = heapq.nlargest(_MOST_CALLS, running, key=lambda call: call.running_s or 0.0)
    return {
        "name": name,
        "pid": os.getpid(),
        "at": now,
        "age_s": now - started_at,
        "live": health.live,
        "ready": health.ready,
        "stats": asdict(stats),
        "workers": [_describe_worker(*entry, now) for entry in members.items()],
        "calls": [_describe_call(call) for call in oldest],
    }


def _describe_worker(worker_id: str, member: Member, now: float) -> dict[str, Any]:
    return {
        "worker_id": worker_id,
        "pid": member.worker.pid,
        "state": _state_of(member),
        "in_flight": member.worker.in_flight,
        "completed": member.completed,
        "age_s": now - member.started_at,
    }


def _state_of(member: Member) -> str:
    if member.verdict.is_hung:
        return "hung"
    if member.standing is not Standing.SERVING:
        return str(member.standing.value)
    return "busy" if member.worker.in_flight else "idle"


def _describe_call(call: CallInfo) -> dict[str, Any]:
    return {
        "command": call.command,
        "worker_id": call.worker_id,
        "state": call.state,
        "running_s": call.running_s,
    }
