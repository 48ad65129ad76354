"""NVIDIA's accelerators, by the driver's library or the driver's tool.

Both run in a process of their own: where a driver hangs or crashes, that is all that is lost.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from typing import Any, Final

from snakepit.hardware.accelerator import Accelerator
from snakepit.hardware.files import whole
from snakepit.hardware.tools import run_tool

_MIB: Final = 1 << 20
# The name comes last: it may have a comma. Every driver of the last ten years knows these fields.
_QUERY: Final = ("uuid", "memory.total", "memory.free", "driver_version", "name")
_MOST_DEVICES: Final = 4096
_UUID: Final = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,100}")
_LISTED: Final = re.compile(
    rf"(?P<part>\s*)(?P<name>GPU \d+|MIG \S+)[^(]*.*\(UUID: (?P<uuid>{_UUID.pattern})\)\s*"
)
_LIBRARY: Final = (
    "import sys; sys.path[:] = {path!r}; from snakepit.hardware.nvml import main; main()"
)


def find_nvidia() -> tuple[Accelerator, ...]:
    """NVIDIA's accelerators; where some are divided (MIG), their parts."""
    # The package nvidia-ml-py, which has the driver's own functions.
    if find_spec("pynvml") is not None:
        code = _LIBRARY.format(path=sys.path)
        printed = run_tool([sys.executable, "-P", "-c", code])
        if printed is not None:
            return parse_library(printed)
    return _by_tool()


def _by_tool() -> tuple[Accelerator, ...]:
    query = f"--query-gpu={','.join(_QUERY)}"
    printed = run_tool(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    devices = parse_query(printed or "")
    return with_parts(devices, run_tool(["nvidia-smi", "-L"]) or "") if devices else ()


def parse_library(text: str) -> tuple[Accelerator, ...]:
    """What ``nvml.py`` prints: a list of mappings."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = (_from_row(row) for row in rows[:_MOST_DEVICES]) if isinstance(rows, list) else ()
    return tuple(device for device in found if device is not None)


def _from_row(row: Any) -> Accelerator | None:
    if not isinstance(row, dict) or not _UUID.fullmatch(str(row.get("uuid"))):
        return None
    return Accelerator(
        kind="cuda",
        id=str(row["uuid"]),
        name=str(row.get("name", "")),
        memory_total=whole(str(row.get("memory_total"))),
        memory_free=whole(str(row.get("memory_free"))),
        driver=str(row.get("driver", "")),
    )


def parse_query(text: str) -> tuple[Accelerator, ...]:
    """What ``nvidia-smi --query-gpu`` prints: a line for each, MiB, "[N/A]" for what it lacks."""
    found = []
    for line in text.splitlines()[:_MOST_DEVICES]:
        fields = [field.strip() for field in line.split(",", len(_QUERY) - 1)]
        if len(fields) == len(_QUERY) and _UUID.fullmatch(fields[0]):
            uuid, total, free, driver, name = fields
            found.append(
                Accelerator(
                    kind="cuda",
                    id=uuid,
                    name=name,
                    memory_total=_bytes(total),
                    memory_free=_bytes(free),
                    driver=driver,
                )
            )
    return tuple(found)


def _bytes(mib: str) -> int | None:
    number = whole(mib)
    return None if number is None else number * _MIB


def with_parts(devices: tuple[Accelerator, ...], listing: str) -> tuple[Accelerator, ...]:
    """The devices, and in the place of those that are divided their parts, which ``nvidia-smi -L``
    lists below them.
    """
    parts: dict[str, list[Accelerator]] = {}
    by_uuid = {device.id: device for device in devices}
    whole_device: Accelerator | None = None
    for line in listing.splitlines()[:_MOST_DEVICES]:
        match = _LISTED.fullmatch(line)
        if match is None:
            continue
        if match["uuid"] in by_uuid:
            whole_device = by_uuid[match["uuid"]]
        elif match["part"] and whole_device is not None:
            part = Accelerator(
                kind="cuda",
                id=match["uuid"],
                name=f"{whole_device.name} {match['name']}",
                driver=whole_device.driver,
            )
            parts.setdefault(whole_device.id, []).append(part)
    return tuple(each for device in devices for each in parts.get(device.id, [device]))
