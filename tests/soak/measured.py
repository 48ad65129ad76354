"""Memory over time, and whether it is flat."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fault_pool import descendants, resident_bytes

REPORTS = Path(__file__).parents[2] / ".build"
#: What a figure may grow by over the whole run, in MB or as a share of its mean.
TOLERANCE_MB = 8.0
TOLERANCE_SHARE = 0.1


@dataclass(frozen=True)
class Sample:
    """One look at this process and those below it."""

    at_s: float
    host_rss_mb: float
    workers_pss_mb: float
    processes: int
    descriptors: int
    threads: int


@dataclass
class Series:
    """Samples, and what they say."""

    samples: list[Sample] = field(default_factory=list)

    def take(self, at_s: float) -> None:
        """Add a sample."""
        below = [pid for pid, process in descendants(os.getpid()).items() if process.state != "Z"]
        self.samples.append(
            Sample(
                at_s=at_s,
                host_rss_mb=resident_bytes() / 1e6,
                workers_pss_mb=sum(map(_pss_mb, below)),
                processes=len(below),
                descriptors=len(os.listdir("/proc/self/fd")),
                threads=threading.active_count(),
            )
        )

    def growth(self, name: str) -> float:
        """What a figure grew by from the first quarter to the end, by linear regression.

        The first quarter is left out: caches fill, and lazily made things are made.
        """
        samples = self.samples[len(self.samples) // 4 :]
        if len(samples) < 3:
            return 0.0
        times = [sample.at_s for sample in samples]
        values = [float(getattr(sample, name)) for sample in samples]
        mid_time, mid_value = sum(times) / len(times), sum(values) / len(values)
        spread = sum((time - mid_time) ** 2 for time in times)
        pairs = zip(times, values, strict=True)
        slope = sum((time - mid_time) * (value - mid_value) for time, value in pairs) / spread
        return slope * (times[-1] - times[0])

    def mean(self, name: str) -> float:
        """A figure's mean without the first quarter."""
        values = [float(getattr(s, name)) for s in self.samples[len(self.samples) // 4 :]]
        return sum(values) / max(1, len(values))

    def is_flat(self, name: str) -> bool:
        """Whether its growth is within the tolerance."""
        allowed = max(TOLERANCE_MB, TOLERANCE_SHARE * self.mean(name))
        return self.growth(name) <= allowed

    def summary(self) -> dict[str, Any]:
        """For the report."""
        names = ("host_rss_mb", "workers_pss_mb", "descriptors", "threads", "processes")
        table = {
            name: {"mean": round(self.mean(name), 2), "growth": round(self.growth(name), 2)}
            for name in names
        }
        return {"figures": table, "samples": [asdict(sample) for sample in self.samples]}


def _pss_mb(pid: int) -> float:
    """The memory of a process, with its part of what it shares; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")) / 1000


def write_report(name: str, report: dict[str, Any]) -> Path:
    """Write a report as JSON, and what people look at first as Markdown beside it."""
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, default=str) + "\n")
    lines = [f"# {name}", ""]
    for key, value in report.items():
        if isinstance(value, dict):
            shown = {k: v for k, v in value.items() if k != "samples"}
            lines += [f"## {key}", "", "| | |", "|---|---|"]
            lines += [f"| {k} | {v} |" for k, v in shown.items()] + [""]
        else:
            lines += [f"- {key}: {value}"]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return path
