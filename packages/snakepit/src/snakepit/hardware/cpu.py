"""The processors."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from snakepit.hardware.cgroups import cpu_quota
from snakepit.hardware.files import ROOT, read_text
from snakepit.hardware.tools import run_tool

# How /proc/cpuinfo names what is looked for, on x86 and on ARM.
_NAMES: Final = ("model name", "Model", "Hardware")
_FEATURES: Final = ("flags", "Features")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processors of this machine, and how many of them this process may use.

    ``cores``: logical processors of the machine. ``quota``: the time of how many of them the
    control group allows, None for no limit. ``usable``: how many threads that compute have a
    processor of their own, by the affinity mask and the quota. ``features``: instructions, as the
    kernel names them, such as ``avx2``; empty where it does not tell.
    """

    cores: int
    usable: int
    quota: float | None = None
    name: str = ""
    features: frozenset[str] = field(default=frozenset(), repr=False)


def usable_cpus(root: Path = ROOT) -> int:
    """How many processors this process may use at a time: those of its affinity mask, or the quota
    of its control group, rounded up, if that is less. Reads a few small files.

    Example::

        >>> from snakepit.hardware import usable_cpus
        >>> usable_cpus() >= 1
        True
    """
    allowed = _allowed_cpus()
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _allowed_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def detect_cpu(root: Path = ROOT) -> Cpu:
    """The processors as they are now."""
    name, features = parse_cpuinfo(read_text(root / "proc/cpuinfo") or "")
    if platform.system() == "Darwin":
        name = (run_tool(["sysctl", "-n", "machdep.cpu.brand_string"]) or "").strip()
    return Cpu(
        cores=os.cpu_count() or 1,
        usable=usable_cpus(root),
        quota=cpu_quota(root),
        name=name or platform.machine(),
        features=features,
    )


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and features of the first processor in ``/proc/cpuinfo``; empty where it lacks them."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = next((facts[key] for key in _NAMES if facts.get(key)), "")
    features = next((facts[key] for key in _FEATURES if key in facts), "")
    return name, frozenset(features.split())
