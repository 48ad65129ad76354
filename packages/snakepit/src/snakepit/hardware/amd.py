"""AMD's accelerators, as the kernel lists them for ROCm. No tool is needed, and none can hang."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from snakepit.hardware.accelerator import Accelerator
from snakepit.hardware.files import ROOT, read_text, whole

_NODES: Final = "sys/class/kfd/kfd/topology/nodes"
_MOST_NODES: Final = 1024


def find_amd(root: Path = ROOT) -> tuple[Accelerator, ...]:
    """AMD's accelerators that this process may use, in the order in which ROCm numbers them.

    It numbers the nodes that are processors of that kind, and leaves out those that a container
    keeps from it: their files, or their devices, can't be opened (ROCR-Runtime, ``topology.c``).
    """
    found: list[Accelerator] = []
    for node in _nodes(root / _NODES):
        properties = parse_properties(read_text(node / "properties") or "")
        minor = properties.get("drm_render_minor", 0)
        if not whole(read_text(node / "gpu_id")) or not _may_open(root, minor):
            continue
        device = root / f"sys/class/drm/renderD{minor}/device"
        total = whole(read_text(device / "mem_info_vram_total"))
        used = whole(read_text(device / "mem_info_vram_used"))
        found.append(
            Accelerator(
                kind="rocm",
                id=str(len(found)),
                name=(read_text(device / "product_name") or "").strip()
                or (read_text(node / "name") or "").strip(),
                memory_total=total,
                memory_free=None if total is None or used is None else max(0, total - used),
                driver=(read_text(root / "sys/module/amdgpu/version") or "").strip(),
            )
        )
    return tuple(found)


def parse_properties(text: str) -> dict[str, int]:
    """The lines "<name> <number>" of a node's properties."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {name: number for name, _, value in pairs if (number := whole(value)) is not None}


def _nodes(folder: Path) -> list[Path]:
    """The folders of the nodes, in their order."""
    try:
        numbers = sorted(
            n for n in (whole(each.name) for each in folder.iterdir()) if n is not None
        )
    except OSError:
        return []
    return [folder / str(number) for number in numbers[:_MOST_NODES]]


def _may_open(root: Path, minor: int) -> bool:
    return minor > 0 and os.access(root / f"dev/dri/renderD{minor}", os.R_OK | os.W_OK)
