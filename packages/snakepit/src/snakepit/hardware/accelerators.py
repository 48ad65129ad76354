"""The accelerators of this machine, of all makers."""

from __future__ import annotations

import platform

from snakepit.hardware.accelerator import Accelerator
from snakepit.hardware.amd import find_amd
from snakepit.hardware.files import whole
from snakepit.hardware.nvidia import find_nvidia
from snakepit.hardware.tools import run_tool


def find_accelerators() -> tuple[Accelerator, ...]:
    """All that are found: NVIDIA's, AMD's, Apple's. Takes as long as the drivers' tools, at most a
    few times ten seconds when they hang.
    """
    return (*find_nvidia(), *find_amd(), *_find_apple())


def _find_apple() -> tuple[Accelerator, ...]:
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return ()
    return parse_apple(run_tool(["sysctl", "-n", "machdep.cpu.brand_string", "hw.memsize"]) or "")


def parse_apple(text: str) -> tuple[Accelerator, ...]:
    """What ``sysctl`` prints: the chip's name, and the bytes of memory that all its parts share."""
    name, _, memory = text.partition("\n")
    return (
        Accelerator(kind="mps", id="0", name=name.strip() or "Apple", memory_total=whole(memory)),
    )
