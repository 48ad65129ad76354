"""From rounds to ratios and goals, and to tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from benchmarks.pool.figures import Spread

__all__ = ["Rounds", "markdown", "results"]

#: What each round of a mode gave.
Rounds = Mapping[str, Sequence[Mapping[str, float]]]


class _Ratio(NamedTuple):
    name: str
    top: str
    bottom: str
    goal: float | None = None


_RATIOS: Final = (
    _Ratio("a read on the host, over a dict behind the same copy", "get_us", "dict_get_us"),
    _Ratio("a write on the host, over a dict behind the same check", "set_us", "dict_set_us"),
    _Ratio("a kept read in a worker, over a local call", "cached_read_us", "local_call_us"),
    _Ratio("any other read in a worker, over a bare call", "uncached_read_us", "call_us", 1.5),
    _Ratio("a tool of the host, over a bare call", "host_tool_us", "call_us", 1.3),
    _Ratio("one that is a plain function, over a bare call", "blocking_host_tool_us", "call_us"),
    _Ratio("a bare function of the host, over a bare call", "host_call_us", "call_us"),
    _Ratio("that read, over a bare function of the host", "uncached_read_us", "host_call_us"),
    _Ratio("a tool of the host, over a bare function of it", "host_tool_us", "host_call_us"),
    _Ratio("a durable insert, over a bare one", "durable_insert_us", "bare_insert_us", 1.5),
    _Ratio("a durable write of a variable, over a bare insert", "durable_set_us", "bare_insert_us"),
    _Ratio("that, over its own statements", "durable_set_us", "bare_write_us"),
)


def results(rounds: Rounds, many: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The figures as the results file has them; ``many`` is of sessions, by storage."""
    return {
        "ratios": [
            _judged(ratio, mode, _over(taken, ratio.top, ratio.bottom))
            for ratio in _RATIOS
            for mode, taken in rounds.items()
        ],
        "by_mode": {
            mode: {key: asdict(Spread.of([each[key] for each in taken])) for key in taken[0]}
            for mode, taken in rounds.items()
        },
        "sessions": {storage: dict(figures) for storage, figures in many.items()},
    }


def _over(taken: Sequence[Mapping[str, float]], top: str, bottom: str) -> Spread:
    return Spread.of([each[top] / each[bottom] for each in taken])


def _judged(ratio: _Ratio, mode: str, reached: Spread) -> dict[str, Any]:
    ok = None if ratio.goal is None else reached.median <= ratio.goal
    return {
        "name": ratio.name,
        "mode": mode,
        "goal": ratio.goal,
        "reached": asdict(reached),
        "ok": ok,
    }


def markdown(found: Mapping[str, Any]) -> list[str]:
    """The tables of these results, line by line."""
    return [
        "## Sessions, variables and tools",
        "",
        f"Measured at {found['at']}, {found['rounds']} rounds" + " (quick)" * found["quick"] + ".",
        "",
        *_ratio_table(found),
        "",
        *_figure_table(found),
        "",
        *_session_table(found),
    ]


def _ratio_table(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| ratio | mode | goal | median (smallest .. largest) | ok |"
    yield "|---|---|---|---|---|"
    for ratio in found["ratios"]:
        goal = "" if ratio["goal"] is None else f"<= {ratio['goal']:g}"
        ok = {None: "", True: "yes", False: "**no**"}[ratio["ok"]]
        spread = _spread(ratio["reached"])
        yield f"| {ratio['name']} | {ratio['mode']} | {goal} | {spread} | {ok} |"


def _figure_table(found: Mapping[str, Any]) -> Iterator[str]:
    modes = found["by_mode"]
    yield f"| | {' | '.join(modes)} |"
    yield "|---" * (len(modes) + 1) + "|"
    for key in next(iter(modes.values())):
        cells = [_spread(modes[mode][key]) for mode in modes]
        yield f"| `{key}` | {' | '.join(cells)} |"


def _session_table(found: Mapping[str, Any]) -> Iterator[str]:
    heads = ("number", "to open, us", "bytes of memory", "sweep, us", "blocks, ms")
    yield f"| sessions of ten variables | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|"
    for storage, each in found["sessions"].items():
        numbers = (each[key] for key in ("open_us", "bytes", "sweep_us", "sweep_blocks_ms"))
        cells = " | ".join(f"{number:,.0f}".replace(",", " ") for number in numbers)
        yield f"| {storage} | {each['sessions']:.0f} | {cells} |"


def _spread(spread: Mapping[str, Any]) -> str:
    return f"{spread['median']:.3g} ({spread['min']:.3g} .. {spread['max']:.3g})"
