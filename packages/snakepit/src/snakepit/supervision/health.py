"""Whether a pool can do its work, for the probes of what runs its process. Pure: it takes facts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """A pool's health at one moment.

    ``live``: it works, or will; once False it stays so, and a new pool is needed. ``ready``: it
    takes calls and has a worker for them. ``reasons``: why it is not both, for people.
    """

    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFacts:
    """What health depends on. ``why_not`` says why the pool takes no calls, if it takes none."""

    takes_calls: bool
    may_take_calls: bool
    why_not: str
    is_foreign: bool
    broken: Exception | None
    failures: int
    is_looping: bool
    open_workers: int
    starting: int


def judge(facts: HealthFacts) -> Health:
    """The health that follows from the facts."""
    deadly = []
    if facts.is_foreign:
        deadly.append("the pool was started by another process; create it in the one that uses it")
    if facts.broken is not None:
        deadly.append(f"its workers keep dying, and it starts none any more: {facts.broken}")
    if not facts.takes_calls and not facts.may_take_calls:
        deadly.append(f"the pool {facts.why_not}")
    if deadly:
        return Health(live=False, ready=False, reasons=tuple(deadly))
    waits = []
    if facts.may_take_calls:
        waits.append(f"the pool {facts.why_not}")
    elif not facts.open_workers:
        waits.append(f"no worker is ready, {facts.starting} are starting")
    if facts.is_looping:
        waits.append(
            f"{facts.failures} workers in a row failed as soon as they worked; see the log for why"
        )
    return Health(live=True, ready=not waits, reasons=tuple(waits))
