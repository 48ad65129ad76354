"""Limits that the kernel sets to what one worker may use."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from snakepit.errors import ConfigurationError
from snakepit.options import whole_number

# What the interpreter and the channels of a worker need at the least.
_LEAST_OPEN_FILES: Final = 64
# The signal comes at the limit; a process that ignores it is killed this many seconds later.
_CPU_GRACE: Final = 5
_KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """What each worker of an adapter may use. Set in the worker before its class is constructed.

    Args:
        memory: bytes of private writable memory (``RLIMIT_DATA``), with what the worker got from
            its template; shared memory does not count. What goes over it gets MemoryError, which
            the caller sees as a RemoteError with that ``remote_type``; the worker is replaced after
            such a call.
        cpu_time: whole seconds of CPU time for the worker's whole life (``RLIMIT_CPU``). At the
            limit it is ended by SIGXCPU, its stacks in its last output, and its calls end with
            ResourceLimitExceeded. With RecyclePolicy healthy workers can be replaced before.
        open_files: descriptors (``RLIMIT_NOFILE``), at least 64. What goes over it gets OSError.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        limits = ResourceLimits(memory=2 * 1024**3, cpu_time=3600, open_files=256)
    """

    memory: int | None = None
    cpu_time: int | None = None
    open_files: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("memory", self.memory, 1),
            ("cpu_time", self.cpu_time, 1),
            ("open_files", self.open_files, _LEAST_OPEN_FILES),
        ):
            if value is not None:
                whole_number(name, value, least=least)

    def to_wire(self) -> dict[str, int | None]:
        """The limits as the worker is told them."""
        return {"memory": self.memory, "cpu_time": self.cpu_time, "open_files": self.open_files}


def apply_limits(limits: Mapping[str, Any]) -> None:
    """Set the limits that a host told this process.

    Raises:
        ConfigurationError: the process uses more memory already than it may, or may not have as
            much as a limit says.
    """
    try:
        if (memory := limits.get("memory")) is not None:
            _require_room(memory)
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        if (cpu_time := limits.get("cpu_time")) is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_time, cpu_time + _CPU_GRACE))
        if (open_files := limits.get("open_files")) is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
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
        with open("/proc/self/status") as file:
            (kib,) = (int(line.split()[1]) for line in file if line.startswith("VmData"))
    except OSError:
        return 0  # a system that does not tell
    return kib * _KIB
