"""`python -m benchmarks.state`: measure sessions, variables and tools, and add to the results."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.pool import report
from benchmarks.pool.session import ONE_CORE, SPLIT
from benchmarks.pool.turns import ROOT
from benchmarks.state.figures import markdown, results
from benchmarks.state.measures import opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How thorough a run is; how many sessions there are, by storage."""

    rounds: int
    seconds: float
    sessions: Mapping[str, int]


FULL = Scale(rounds=40, seconds=0.03, sessions={"memory": 100_000, "sqlite": 10_000})
QUICK = Scale(rounds=8, seconds=0.02, sessions={"memory": 5_000, "sqlite": 500})
OUTPUT = ROOT / "benchmarks" / "results"


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables, and write them beside those of the pool."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the results")
    parser.add_argument("--folder", type=Path, help="where the databases are made")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(QUICK if options.quick else FULL, Path(folder))
    found = {"quick": options.quick, **found}
    print("\n".join(markdown(found)))
    if not report.add(found, "state", options.output):
        print(f"Not written: {options.output} has no results of the pool to stand beside.")
    return 0


def measure(scale: Scale, folder: Path) -> dict[str, object]:
    """All figures; in the folder databases are made."""
    modes = (SPLIT, ONE_CORE) if len(os.sched_getaffinity(0)) > 1 else (ONE_CORE,)
    rounds = {mode: asyncio.run(_rounds(scale, folder, mode)) for mode in modes}
    many = {name: _many(name, sessions, folder) for name, sessions in scale.sessions.items()}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": scale.rounds,
        **results(rounds, many),
    }


async def _rounds(scale: Scale, folder: Path, mode: str) -> list[dict[str, float]]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        async with opened(Path(own), mode) as measures:
            await measures.round(scale.seconds)  # caches fill
            found = [await measures.round(scale.seconds) for _ in range(scale.rounds)]
    print(f"{mode}: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def _many(name: str, sessions: int, folder: Path) -> dict[str, float]:
    url = "memory" if name == "memory" else f"sqlite:///{folder}/many.db"
    command = [sys.executable, "-m", "benchmarks.state.many", url, str(sessions)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    print(f"{sessions} sessions, {name}: {time.perf_counter() - start:.0f} s", flush=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
