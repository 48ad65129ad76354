"""Finding out what there is, once."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.hardware.accelerator import Accelerator
from snakepit.hardware.accelerators import find_accelerators
from snakepit.hardware.cpu import Cpu, detect_cpu
from snakepit.hardware.memory import Memory, detect_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What there is at one moment. ``accelerators`` is empty when none was found."""

    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()


_found: Hardware | None = None


def detect(*, refresh: bool = False) -> Hardware:
    """What this process has to work with. It is looked at once, and again with ``refresh``.

    Blocks, where accelerators are asked for their state up to some seconds: in an event loop, call
    it with ``asyncio.to_thread``. What is absent is not an error, and neither is a tool that hangs.

    Example::

        >>> from snakepit import hardware
        >>> found = hardware.detect()
        >>> found.cpu.usable <= found.cpu.cores and found.memory.usable <= found.memory.total
        True
    """
    global _found  # noqa: PLW0603  # it is about the machine
    if _found is None or refresh:
        _found = Hardware(
            cpu=detect_cpu(), memory=detect_memory(), accelerators=find_accelerators()
        )
    return _found
