"""What `snakepit top` shows, as lines that fit a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_GAP: Final = "  "
_ENDS: Final = ("succeeded", "failed", "timed_out", "cancelled")
_USUAL_STATES: Final = ("busy", "idle", "spare")
# Lines beside those of workers and calls: the head, two titles, two that are empty.
_OTHER_LINES: Final = 9
_LEAST_CALLS: Final = 3


@dataclass(frozen=True, kw_only=True)
class View:
    """A pool as it is to be shown.

    ``snapshot`` and ``before``, an earlier one, are as the pool's control socket tells them; rates
    are those between the two, or since the pool's start. ``memory``: bytes by worker id.
    """

    snapshot: Mapping[str, Any]
    before: Mapping[str, Any] | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    notice: str = ""


@dataclass(frozen=True)
class _Column:
    """``rank``: of those that don't fit, the column with the highest one is left out."""

    title: str
    cells: Sequence[str]
    rank: int
    is_text: bool = False

    @property
    def width(self) -> int:
        return max(map(len, [self.title, *self.cells]))

    def lines(self) -> Iterator[str]:
        for cell in (self.title, *self.cells):
            yield cell.ljust(self.width) if self.is_text else cell.rjust(self.width)


def render(view: View, columns: int, rows: int | None = None) -> list[str]:
    """The lines to show, none longer than ``columns``, and no more than ``rows``."""
    snapshot = view.snapshot
    workers = sorted(snapshot["workers"], key=lambda each: each["state"] in _USUAL_STATES)
    calls = snapshot["calls"]
    if rows is not None:
        space = max(0, rows - _OTHER_LINES)
        shown_calls = min(len(calls), max(_LEAST_CALLS, space - len(workers)))
        calls = calls[:shown_calls]
        hidden = len(workers) - max(1, space - shown_calls)
        if hidden > 0:
            workers = workers[: -hidden - 1]
    lines = [*_head(view), "", *_table(_worker_columns(view, workers), columns)]
    missing = len(snapshot["workers"]) - len(workers)
    if missing:
        lines.append(f"... and {missing} more")
    if calls:
        lines += ["", *_table(_call_columns(calls), columns)]
    return [_cut(line, columns) for line in lines[:rows]]


def _head(view: View) -> list[str]:
    snapshot, stats = view.snapshot, view.snapshot["stats"]
    state = "ready" if snapshot["ready"] else "not ready" if snapshot["live"] else "broken"
    ended = sum(stats[name] for name in _ENDS)
    before = sum(view.before["stats"][name] for name in _ENDS) if view.before else 0
    rate = _per_second(view, ended, before, snapshot["age_s"])
    return [
        f"{clean(snapshot['name'])}  process {snapshot['pid']}  {state}  "
        f"up {duration(snapshot['age_s'])}" + (f"  {view.notice}" if view.notice else ""),
        f"workers  {stats['ready']}/{stats['size']} ready, {stats['starting']} starting, "
        f"{stats['workers_lost']} lost, {stats['workers_recycled']} recycled",
        f"calls    {stats['running']} running, {stats['stopping']} stopping, "
        f"{stats['queued']} queued, {rate:.1f}/s",
        f"ended    {stats['succeeded']} succeeded, {stats['failed']} failed, "
        f"{stats['timed_out']} timed out, {stats['cancelled']} cancelled, "
        f"{stats['refused']} refused",
    ]


def _worker_columns(view: View, workers: Sequence[Mapping[str, Any]]) -> list[_Column]:
    before = {
        each["worker_id"]: each["completed"] for each in (view.before or {}).get("workers", ())
    }
    running = {call["worker_id"]: call for call in reversed(view.snapshot["calls"])}
    rates, memory, runs = [], [], []
    for worker in workers:
        key = worker["worker_id"]
        rate = _per_second(view, worker["completed"], before.get(key, 0), worker["age_s"])
        rates.append(f"{rate:.1f}")
        memory.append(f"{view.memory[key] / 1e6:.1f} MB" if key in view.memory else "-")
        call = running.get(key)
        runs.append(f"{clean(call['command'])} {seconds(call['running_s'])}" if call else "")
    return [
        _Column("WORKER", [clean(each["worker_id"]) for each in workers], 0, is_text=True),
        _Column("PID", [str(each["pid"] or "-") for each in workers], 5),
        _Column("STATE", [clean(each["state"]) for each in workers], 1, is_text=True),
        _Column("CALLS", [str(each["in_flight"]) for each in workers], 2),
        _Column("ENDED", [str(each["completed"]) for each in workers], 6),
        _Column("PER SECOND", rates, 4),
        _Column("MEMORY", memory, 3),
        _Column("AGE", [duration(each["age_s"]) for each in workers], 7),
        _Column("RUNS", runs, 8, is_text=True),
    ]


def _call_columns(calls: Sequence[Mapping[str, Any]]) -> list[_Column]:
    return [
        _Column("LONGEST RUNNING", [clean(call["command"]) for call in calls], 0, is_text=True),
        _Column("FOR", [seconds(call["running_s"]) for call in calls], 1),
        _Column("WORKER", [clean(call["worker_id"] or "") for call in calls], 3, is_text=True),
        _Column("STATE", [clean(call["state"]) for call in calls], 2, is_text=True),
    ]


def _table(columns: list[_Column], width: int) -> list[str]:
    while sum(each.width + len(_GAP) for each in columns) - len(_GAP) > width:
        if len(columns) == 1:
            break
        columns = sorted(columns, key=lambda each: each.rank == max(c.rank for c in columns))[:-1]
    return [_GAP.join(cells).rstrip() for cells in zip(*(c.lines() for c in columns), strict=True)]


def _per_second(view: View, count: int, before: int, age_s: float) -> float:
    """How much was added to a count each second since the view before, or since its start."""
    if view.before is None:
        return count / age_s if age_s > 0 else 0.0
    passed = view.snapshot["at"] - view.before["at"]
    return (count - before) / passed if passed > 0 else 0.0


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(0, width - 1)] + "~"


def clean(text: str) -> str:
    """A text of which each character takes one place: names come from elsewhere, and what a
    terminal would obey must not reach it.
    """
    return "".join(letter if _takes_one_place(letter) else "?" for letter in text)


def _takes_one_place(letter: str) -> bool:
    return (
        letter.isprintable()
        and not unicodedata.combining(letter)
        and unicodedata.east_asian_width(letter) not in "WF"
    )


def seconds(value: float) -> str:
    """A short time."""
    return f"{value:.1f} s" if value < 60 else duration(value)


def duration(value: float) -> str:
    """A time of seconds up to days."""
    minutes, second = divmod(int(value), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}" if days else f"{hour}:{minute:02}:{second:02}"
