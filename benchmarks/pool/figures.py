"""From samples to figures, ratios and goals. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.pool.contenders import PEERS
from benchmarks.pool.session import ONE_CORE, SPLIT, UNPINNED
from benchmarks.pool.turns import Sample

#: Whose figures stand under whose name in the results, as a variant of it.
VARIANTS: Final = {
    "asyncio_echo": ("limit", "asyncio_echo"),
    "snakepit_no_spin": ("snakepit", "no_spin"),
    "snakepit_no_look_ahead": ("snakepit", "no_look_ahead"),
    "snakepit_thread": ("snakepit", "thread"),
    "snakepit_handler": ("snakepit", "handler"),
    "snakepit_opentelemetry": ("snakepit", "opentelemetry"),
    "snakepit_connection": ("snakepit", "connection"),
    "snakepit_executor": ("snakepit", "executor"),
    "ppe_preloaded": ("ppe", "preloaded"),
}
#: Where a contender's headline figures come from, best first: what is pinned is most repeatable.
_HEADLINE_MODES: Final = (SPLIT, UNPINNED, ONE_CORE)


@dataclass(frozen=True, slots=True)
class Spread:
    """What the rounds gave."""

    median: float
    min: float
    max: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        Raises:
            statistics.StatisticsError: there is no value.
        """
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal of the project and what this run reached. None: not measured."""

    name: str
    goal: float
    at_most: bool
    reached: Spread | None

    @property
    def ok(self) -> bool | None:
        """Whether the median satisfies it."""
        if self.reached is None:
            return None
        value = self.reached.median
        return value <= self.goal if self.at_most else value >= self.goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one part of a call costs, in processor time of all processes."""

    name: str
    microseconds: float


#: Each does what the one before does, and more: the difference is what the addition costs.
_LAYERS: Final = (
    ("limit", "two system calls and a switch of processes, there and back"),
    ("asyncio_echo", "an event loop in the host, a future a call"),
    ("snakepit_connection", "frames, values, finding and running the command"),
    ("snakepit", "the pool: scheduling, deadlines, records"),
)


class Samples:
    """All samples of a run, found by where they come from."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._values: dict[tuple[str, str, str], dict[int, float]] = {}
        self.errors: list[Sample] = []
        for sample in samples:
            if sample.error is not None:
                self.errors.append(sample)
            for key, value in sample.figures.items():
                place = sample.mode, sample.contender, key
                self._values.setdefault(place, {})[sample.round] = value

    def spread(self, mode: str, contender: str, key: str) -> Spread | None:
        """The figure over all rounds."""
        values = self._values.get((mode, contender, key))
        return Spread.of(list(values.values())) if values else None

    def ratio(self, mode: str, top: tuple[str, str], bottom: tuple[str, str]) -> Spread | None:
        """One contender's figure over another's, divided round by round, so that what slows the
        machine for a while slows both."""
        above = self._values.get((mode, *top), {})
        below = self._values.get((mode, *bottom), {})
        ratios = [value / below[number] for number, value in above.items() if number in below]
        return Spread.of(ratios) if ratios else None

    def by_mode(self, contender: str) -> dict[str, dict[str, Spread]]:
        """All figures of a contender."""
        found: dict[str, dict[str, Spread]] = {}
        for (mode, name, key), values in self._values.items():
            if name == contender:
                found.setdefault(mode, {})[key] = Spread.of(list(values.values()))
        return found

    def best(self, mode: str, contenders: Iterable[str], keys: Sequence[str]) -> tuple[str, str]:
        """The contender, and which of these figures, with the greatest median; the last ones of
        each when none has any."""
        rated = [
            (spread.median, contender, key)
            for contender in contenders
            for key in keys
            if (spread := self.spread(mode, contender, key)) is not None
        ]
        return max(rated)[1:] if rated else ("", keys[-1])

    @property
    def modes(self) -> set[str]:
        """The modes that were measured."""
        return {mode for mode, _, _ in self._values}


def goals(samples: Samples) -> list[Goal]:
    """The project's goals. They are ratios: absolute times say more about the machine."""
    return [
        *_latency_goals(samples),
        *_throughput_goals(samples),
        *_array_goals(samples),
        *_life_goals(samples),
    ]


def _latency_goals(samples: Samples) -> list[Goal]:
    p50, limit = "latency_p50_us", ("limit", "latency_p50_us")
    return [
        Goal(
            name="p50 over the blocking echo, no spinning, host and workers on a CPU each",
            goal=1.3,
            at_most=True,
            reached=samples.ratio(SPLIT, ("snakepit_no_spin", p50), limit),
        ),
        Goal(
            name="p50 over the blocking echo, as it comes, host and workers on a CPU each",
            goal=0.5,
            at_most=True,
            reached=samples.ratio(SPLIT, ("snakepit", p50), limit),
        ),
        Goal(
            name="p50 over a bare asyncio echo, all on one core",
            goal=1.6,
            at_most=True,
            reached=samples.ratio(ONE_CORE, ("snakepit", p50), ("asyncio_echo", p50)),
        ),
    ]


def _throughput_goals(samples: Samples) -> list[Goal]:
    mode = SPLIT if SPLIT in samples.modes else ONE_CORE
    best_sync = samples.best(mode, PEERS, ["rps_sync"])
    # Not every peer runs coroutines; the best that any of them does in any way is the measure.
    best_async = samples.best(mode, PEERS, ["rps_async", "rps_sync"])
    rows = (
        ("calls/s at concurrency 1 over the best peer", 5.0, "snakepit", "rps_sync", best_sync),
        (
            "calls/s at concurrency 1 over the best peer, no look-ahead",
            1.5,
            "snakepit_no_look_ahead",
            "rps_sync",
            best_sync,
        ),
        ("calls/s at concurrency 32 over the best peer", 5.0, "snakepit", "rps_async", best_async),
    )
    return [
        Goal(
            name=f"{name} ({best[0]})",
            goal=goal,
            at_most=False,
            reached=samples.ratio(mode, (contender, key), best),
        )
        for name, goal, contender, key, best in rows
    ]


def _array_goals(samples: Samples) -> list[Goal]:
    mode = SPLIT if SPLIT in samples.modes else ONE_CORE
    return [
        Goal(
            name="100 MB into a worker, summed, over one memcpy",
            goal=1.9,
            at_most=True,
            reached=samples.ratio(
                mode, ("snakepit", "array100MB_in_ms"), ("limit", "memcpy100MB_ms")
            ),
        )
    ]


def _life_goals(samples: Samples) -> list[Goal]:
    mode = UNPINNED if UNPINNED in samples.modes else ONE_CORE
    imported = ("limit", "import_dspy_s")
    recovery = samples.spread(mode, "snakepit", "recovery_ms")
    lost = samples.spread(mode, "snakepit", "calls_lost")
    memory = samples.spread(mode, "snakepit", "pss_mb")
    return [
        Goal(name="ms from SIGKILL to two healthy workers", goal=30, at_most=True,
             reached=recovery),
        Goal(name="calls lost with the killed worker", goal=1, at_most=True,
             reached=lost),
        Goal(name="20 dspy workers ready, over `import dspy`", goal=1.2, at_most=True,
             reached=samples.ratio(mode, ("snakepit", "start20_dspy_s"), imported)),
        Goal(name="100 dspy workers ready, over `import dspy`", goal=1.5, at_most=True,
             reached=samples.ratio(mode, ("snakepit", "start100_dspy_s"), imported)),
        Goal(name="MB a worker of 20 after 60 predictions, its share of shared memory included",
             goal=13, at_most=True, reached=memory),
    ]  # fmt: skip


def layers(samples: Samples) -> list[Layer]:
    """Where the processor time of a call goes, all on one core: there nothing is spent on waking
    an idle processor, or on looking for an answer."""
    found = []
    below = 0.0
    for contender, name in _LAYERS:
        spread = samples.spread(ONE_CORE, contender, "latency_cpu_us")
        if spread is None:
            return []
        found.append(Layer(name=name, microseconds=spread.median - below))
        below = spread.median
    return found


def results(samples: Samples) -> dict[str, Any]:
    """The figures as the results file has them."""
    found: dict[str, Any] = {
        "limit": _contender(samples, "limit"),
        "snakepit": _contender(samples, "snakepit"),
        "peers": {name: _contender(samples, name) for name in PEERS},
    }
    for name, (owner, variant) in VARIANTS.items():
        figures = _contender(samples, name)
        if figures:
            home = found["peers"] if owner in PEERS else found
            home[owner].setdefault("variants", {})[variant] = figures
    found["goals"] = [{**asdict(goal), "ok": goal.ok} for goal in goals(samples)]
    found["layers"] = [asdict(layer) for layer in layers(samples)]
    found["errors"] = [
        {"contender": e.contender, "mode": e.mode, "measure": e.measure, "error": e.error}
        for e in samples.errors
    ]
    return found


def _contender(samples: Samples, name: str) -> dict[str, Any]:
    by_mode = samples.by_mode(name)
    headline: dict[str, Any] = {}
    for mode in reversed(_HEADLINE_MODES):
        for key, spread in by_mode.get(mode, {}).items():
            headline[key] = spread.median
    if by_mode:
        headline["by_mode"] = {
            mode: {key: asdict(spread) for key, spread in figures.items()}
            for mode, figures in by_mode.items()
        }
    return headline
