"""What one worker may use, as its adapter is told. The worker sets it: ``worker/limits.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from snakepit.options import whole_number

# What the interpreter and the channels of a worker need at the least.
_LEAST_OPEN_FILES: Final = 64


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
