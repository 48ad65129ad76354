"""The memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snakepit.hardware.cgroups import memory_limit
from snakepit.hardware.files import ROOT, read_text, whole

_KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of this machine in bytes, and how much of it this process may use.

    ``limit``: what the control group allows, None for no limit below ``total``. ``available``: what
    programs can get without swapping, None where the system does not tell.
    """

    total: int
    limit: int | None = None
    available: int | None = None

    @property
    def usable(self) -> int:
        """What this process and the others of its container may use together."""
        return self.total if self.limit is None else self.limit


def detect_memory(root: Path = ROOT) -> Memory:
    """The memory as it is now; a ``total`` of 0 where the system does not tell."""
    known = parse_meminfo(read_text(root / "proc/meminfo") or "")
    total = known.get("MemTotal") or _physical_memory()
    limit = memory_limit(root)
    return Memory(
        total=total,
        limit=limit if limit is not None and (not total or limit < total) else None,
        available=known.get("MemAvailable"),
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """The lines of ``/proc/meminfo`` that are amounts, in bytes."""
    amounts: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        number = whole(value.removesuffix(" kB"))
        if number is not None and value.endswith(" kB"):
            amounts[key.strip()] = number * _KIB
    return amounts


def _physical_memory() -> int:
    try:
        return max(0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return 0
