"""Which measures are made, of whom, in which mode, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.pool.contenders import PEERS
from benchmarks.pool.measures import Effort
from benchmarks.pool.session import ONE_CORE, SPLIT, UNPINNED
from benchmarks.pool.turns import Section

OURS: Final = ("snakepit", "snakepit_no_spin", "snakepit_no_look_ahead")
# The standard executor's interface, and its pickles, on our workers.
_OUR_EXECUTOR: Final = "snakepit_executor"
_LISTENED: Final = ("snakepit_handler", "snakepit_opentelemetry")
# Ray's own processes are never idle, so it is not there while the others are measured.
_LIGHT_PEERS: Final = tuple(peer for peer in PEERS if peer != "ray")
_ASYNC_PEERS: Final = ("xoscar",)

_Turns = Sequence[tuple[str, Sequence[str]]]
_CALLS: Final[_Turns] = (
    (
        "latency",
        (
            *("limit", "asyncio_echo", *OURS, *_LISTENED, "snakepit_connection"),
            *(_OUR_EXECUTOR, "snakepit_thread"),
            *_LIGHT_PEERS,
        ),
    ),
    ("rps_sync", (*OURS, *_LISTENED, _OUR_EXECUTOR, *_LIGHT_PEERS)),
    ("rps_async", (*OURS, *_ASYNC_PEERS)),
    ("behind_slow", ("snakepit", "snakepit_no_look_ahead")),
    ("batching", ("snakepit",)),
)
_ARRAYS: Final[_Turns] = (
    ("memcpy", ("limit",)),
    ("array_in", ("snakepit", _OUR_EXECUTOR, *_LIGHT_PEERS)),
    ("array_echo", ("snakepit", _OUR_EXECUTOR, *_LIGHT_PEERS)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How thorough a run is."""

    sessions: int
    slices: int
    seconds: float
    array_rounds: int
    starts: int
    peers_start_dspy: bool

    @property
    def rounds(self) -> int:
        """Samples of each steady figure."""
        return self.sessions * self.slices


FULL: Final = Scale(
    sessions=3, slices=3, seconds=0.3, array_rounds=5, starts=3, peers_start_dspy=True
)
QUICK: Final = Scale(
    sessions=1, slices=3, seconds=0.15, array_rounds=2, starts=1, peers_start_dspy=False
)


def sections(scale: Scale, cpus: int) -> list[Section]:
    """The whole run, in order. With one processor there is only one way to place processes."""
    if cpus == 1:
        return [*_steady(scale, ONE_CORE, arrays=True), *_life(scale, ONE_CORE)]
    return [
        *_steady(scale, SPLIT, arrays=True),
        *_steady(scale, ONE_CORE, arrays=False, ray=False),
        *_steady(scale, UNPINNED, arrays=False),
        *_life(scale, UNPINNED),
    ]


def _steady(scale: Scale, mode: str, *, arrays: bool, ray: bool = True) -> list[Section]:
    """What running pools do, call after call."""
    calls = Section(
        mode=mode,
        turns=_CALLS,
        sessions=scale.sessions,
        slices=scale.slices,
        effort=Effort(seconds=scale.seconds),
    )
    once = replace(calls, sessions=1)
    found = [calls]
    if ray:
        found.append(replace(once, turns=_ray(_CALLS), slices=scale.rounds))
    if arrays:
        found.append(replace(once, turns=_ARRAYS, slices=scale.array_rounds))
    if arrays and ray:
        found.append(replace(once, turns=_ray(_ARRAYS), slices=scale.array_rounds))
    return found


def _ray(turns: _Turns) -> _Turns:
    """Ray alone, for the measures in which light peers take part."""
    return [(measure, ("ray",)) for measure, who in turns if set(who) & set(_LIGHT_PEERS)]


def _life(scale: Scale, mode: str) -> list[Section]:
    """Deaths, starts and many streams."""
    base = Section(mode=mode, turns=(), sessions=1, slices=scale.rounds, effort=Effort())
    patient = replace(base, patience=400.0)
    starts: _Turns = (
        ("import_dspy", ("limit",)),
        ("start20", ("snakepit",)),
        ("start100", ("snakepit",)),
    )
    peers_start: _Turns = (("start20", (*_LIGHT_PEERS, "ppe_preloaded")),)
    found = [
        replace(base, turns=(("recovery", ("snakepit", *_LIGHT_PEERS)), ("streams", OURS[:1]))),
        replace(base, turns=(("recovery", ("ray",)),), slices=min(3, scale.rounds)),
        replace(base, turns=starts, slices=scale.starts),
    ]
    if scale.peers_start_dspy:
        found.append(replace(patient, turns=peers_start, slices=1))
        found.append(replace(patient, turns=(("start20", ("ray",)),), slices=1))
    return found


def chosen(
    found: Sequence[Section], measures: Sequence[str], names: Sequence[str], modes: Sequence[str]
) -> list[Section]:
    """The part of a plan that is asked for; empty means all."""
    result = []
    for section in found:
        turns = [
            (measure, [name for name in who if not names or name in names])
            for measure, who in section.turns
            if not measures or measure in measures
        ]
        turns = [(measure, who) for measure, who in turns if who]
        if turns and (not modes or section.mode in modes):
            result.append(replace(section, turns=turns))
    return result
