"""How many workers a pool is to have: what its users say, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from snakepit.adapters.adapter import Adapter
from snakepit.errors import ConfigurationError
from snakepit.hardware.cpu import usable_cpus
from snakepit.hardware.memory import detect_memory
from snakepit.options import seconds, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How many workers a pool has: between ``min`` and ``max``, as many as its calls need.

    Workers are added when a call has waited ``queue_wait`` seconds for one: as many as calls wait,
    at most as many as there are, and more only when these are there and calls still wait. They are
    let go when fewer would have been enough all through a spell of ``idle`` seconds: those with
    the fewest calls first, at most half of them a spell. What they keep of sessions is lost then,
    as when they are recycled.

    Args:
        min: workers there are at least; so many are started.
        max: workers there are at most; None for the default size of a pool.
        spares: workers that are ready beyond these, and get no calls: they take the place of those
            that die, are recycled or are to be added, at once.
        queue_wait: seconds.
        idle: seconds. A pool that needs less is smaller after once to twice that time.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        pool = Pool(adapter, size=Sizing(min=1, max=8, spares=1))
    """

    min: int = 1
    max: int | None = None
    spares: int = 0
    queue_wait: float | timedelta = 0.25
    idle: float | timedelta = 60.0

    def __post_init__(self) -> None:
        whole_number("min", self.min)
        if self.max is not None and whole_number("max", self.max) < self.min:
            raise ConfigurationError(
                f"max is {self.max}; it has to be at least min, which is {self.min}",
                details={"option": "max"},
            )
        whole_number("spares", self.spares, least=0)
        seconds("queue_wait", self.queue_wait)
        seconds("idle", self.idle)

    @property
    def most(self) -> int:
        """``max``, where it is known: of a pool, always."""
        return self.min if self.max is None else self.max


def sizing_of(size: int | Sizing | None, adapter: Adapter) -> Sizing:
    """What a pool makes of its ``size``; with a ``max``.

    Raises:
        ConfigurationError: it is no size, or more than the adapter can have.
    """
    if size is None:
        size = default_size(adapter)
    sizing = size if isinstance(size, Sizing) else _fixed(size)
    limit = worker_limit(adapter)
    if sizing.max is None:
        default = default_size(adapter)
        room = default if limit is None else min(default, limit - sizing.spares)
        sizing = replace(sizing, max=max(sizing.min, room))
    if limit is not None and sizing.most + sizing.spares > limit:
        raise ConfigurationError(
            f"the pool is to have up to {sizing.most} workers and {sizing.spares} spare ones, and "
            f"its adapter has devices for {limit}; make it smaller, or let workers share devices",
            details={"option": "size", "worker_limit": limit},
        )
    return sizing


def _fixed(size: int) -> Sizing:
    whole_number("size", size)
    return Sizing(min=size, max=size)


def default_size(adapter: Adapter) -> int:
    """As many workers as there are processors for this process, or, if the adapter assigns devices,
    as those are enough for; no more than find room in the memory, if the adapter limits what each
    may use.
    """
    size = worker_limit(adapter) or usable_cpus()
    memory = getattr(adapter, "worker_memory", None)
    usable = detect_memory().usable if memory else 0
    return max(1, min(size, usable // memory)) if memory and usable else size


def worker_limit(adapter: Adapter) -> int | None:
    """How many workers an adapter can have at a time, None for no limit."""
    limit: int | None = getattr(adapter, "worker_limit", None)
    return limit
