"""The limits that control groups set to this process: what a container may use.

Both versions of control groups are read (cgroups(7)); a limit of a group is one of all groups below
it, so the lowest on the way up counts. What is missing or makes no sense limits nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from snakepit.hardware.files import ROOT, read_text, whole

# Version 1 writes "no limit" as the largest number of whole pages.
_NO_LIMIT: Final = 1 << 60


class _Mount(NamedTuple):
    """A hierarchy of groups that can be read below ``point``. ``top`` is the group found there."""

    kind: str
    top: str
    point: str
    options: frozenset[str]


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many processors' time this process and its siblings may use, None for no limit."""
    quotas = []
    for folder in _own_groups(root, "cpu"):
        quotas.append(parse_cpu_max(read_text(folder / "cpu.max")))
        quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
        quotas.append(_ratio(read_text(quota), read_text(period)))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """How many bytes of memory this process and its siblings may use, None for no limit."""
    limits = (
        whole(read_text(folder / name))
        for folder in _own_groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    return min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)


def parse_cpu_max(text: str | None) -> float | None:
    """The quota that version 2 writes as "<quota> <period>", in microseconds, or as "max ..."."""
    words = (text or "").split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _ratio(quota: str | None, period: str | None) -> float | None:
    of, in_all = whole(quota), whole(period)
    return of / in_all if of and in_all else None


def _own_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, from its own up to the one mounted."""
    mounts = list(_mounts(read_text(root / "proc/self/mountinfo") or ""))
    for kind, group in _memberships(read_text(root / "proc/self/cgroup") or "", controller):
        for mount in mounts:
            if mount.kind != kind or (kind == "cgroup" and controller not in mount.options):
                continue
            top = root / mount.point.lstrip("/")
            own = top / _below(group, mount.top)
            yield from (each for each in (own, *own.parents) if each.is_relative_to(top))
            break


def _memberships(text: str, controller: str) -> Iterator[tuple[str, str]]:
    """Kind of hierarchy and group, from ``/proc/self/cgroup``."""
    for line in text.splitlines():
        _, separator, rest = line.partition(":")
        controllers, also_separator, group = rest.partition(":")
        if not separator or not also_separator:
            continue
        if not controllers:
            yield "cgroup2", group
        elif controller in controllers.split(","):
            yield "cgroup", group


def _mounts(text: str) -> Iterator[_Mount]:
    """The hierarchies of groups in ``/proc/self/mountinfo`` (proc(5))."""
    for line in text.splitlines():
        place, separator, system = line.partition(" - ")
        fields, facts = place.split(" "), system.split(" ")
        if separator and len(fields) >= 5 and len(facts) >= 3 and facts[0].startswith("cgroup"):
            yield _Mount(
                kind=facts[0],
                top=_plain(fields[3]),
                point=_plain(fields[4]),
                options=frozenset(facts[2].split(",")),
            )


def _plain(path: str) -> str:
    """A path without the escapes that keep its blanks from ending it."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _below(group: str, top: str) -> str:
    """The way from the group that is mounted to one below it; "" for itself.

    Empty, too, where the group is outside of what this container sees, and named from somewhere
    else: then the group that is mounted is the best that can be read.
    """
    if ".." in group.split("/"):
        return ""
    top = top.rstrip("/")
    return group[len(top) :].strip("/") if group == top or group.startswith(f"{top}/") else ""
