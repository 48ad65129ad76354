"""What this machine, or the container this process is in, has to offer: processors, memory,
accelerators.

What is absent is simply not there: nothing here raises because a tool, a driver or a file is
missing, broken or slow. No framework is imported to find out.
"""

from __future__ import annotations

from snakepit.hardware.accelerator import Accelerator, Kind
from snakepit.hardware.cpu import Cpu, usable_cpus
from snakepit.hardware.detection import Hardware, detect
from snakepit.hardware.memory import Memory

__all__ = ["Accelerator", "Cpu", "Hardware", "Kind", "Memory", "detect", "usable_cpus"]
