"""The limits that the kernel sets to what this worker uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snakepit.errors import ConfigurationError
from snakepit.worker.rlimits import set_limits

_KIB: Final = 1024


def apply_limits(limits: Mapping[str, Any]) -> None:
    """Set the limits that a host told this process.

    Raises:
        ConfigurationError: the process uses more memory already than it may, or may not have as
            much as a limit says.
    """
    try:
        if (memory := limits.get("memory")) is not None:
            _require_room(memory)
        set_limits(limits)
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"the resource limits {dict(limits)} can't be set: {error}"
        ) from error


def _require_room(memory: int) -> None:
    used = _writable_memory()
    if used >= memory:
        raise ConfigurationError(
            f"a worker may use {memory} bytes of memory by its limit, and has {used} at its start; "
            "raise ResourceLimits.memory, or preload less",
            details={"limit": memory, "used": used},
        )


def _writable_memory() -> int:
    try:
        with open("/proc/self/status", errors="replace") as file:  # the name may be any bytes
            (kib,) = (int(line.split()[1]) for line in file if line.startswith("VmData"))
    except OSError:
        return 0  # a system that does not tell
    return kib * _KIB
