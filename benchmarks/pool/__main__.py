"""`python -m benchmarks.pool [MEASURE ...]`: run the plan, or a part of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.pool import machine, report
from benchmarks.pool.contenders import CONTENDERS
from benchmarks.pool.figures import Samples, results
from benchmarks.pool.measures import MEASURES
from benchmarks.pool.plan import FULL, QUICK, Scale, chosen, sections
from benchmarks.pool.session import MODES
from benchmarks.pool.turns import ROOT, Section, run

OUTPUT = ROOT / "benchmarks" / "results"


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables, and write the results. 1: something of ours failed."""
    if sys.platform != "linux":
        print("The benchmark places processes and reads their accounts, which needs Linux.")
        return 1
    options = _parse(argv)
    facts = machine.facts()
    if facts["cpus"] == 1:
        print("One processor: everything runs on it, and there is nothing to compare modes with.")
    scale = _scale(options)
    plan = chosen(
        sections(scale, int(str(facts["cpus"]))), options.measures, options.only, options.mode
    )
    if not plan:
        print("Nothing of the plan is left; see --help for the names.")
        return 1
    started = time.perf_counter()
    samples = Samples(_all(plan))
    found: dict[str, Any] = {
        "machine": facts,
        "run": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.perf_counter() - started),
            "quick": options.quick,
            "rounds": scale.rounds,
        },
        **results(samples),
    }
    print(report.markdown(found))
    # A part of the figures would replace all of them.
    if options.output is not None or not (options.measures or options.only or options.mode):
        report.write(found, options.output or OUTPUT)
    ours = ("limit", "snakepit")
    return int(any(error.contender.startswith(ours) for error in samples.errors))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="two minutes: fewer rounds")
    parser.add_argument("--rounds", type=int, help="rounds of everything")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--mode", nargs="+", default=[], choices=MODES)
    parser.add_argument("--output", type=Path, help="folder for the results")
    options = parser.parse_args(argv)
    for given, known in ((options.measures, MEASURES), (options.only, CONTENDERS)):
        unknown = set(given) - set(known)
        if unknown:
            parser.error(
                f"no such name: {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            )
    return options


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else FULL
    if options.rounds is None:
        return scale
    n = options.rounds
    return replace(scale, sessions=1, slices=n, array_rounds=n, starts=n)


def _all(plan: Sequence[Section]) -> Any:
    for section in plan:
        measures = ", ".join(measure for measure, _ in section.turns)
        print(f"{section.mode}: {measures} of {', '.join(section.contenders())}", flush=True)
        start = time.perf_counter()
        yield from run(section, lambda text: print(text, flush=True))
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
