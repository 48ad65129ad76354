"""The limits of the kernel to what this process uses. Standard library only: the keeper sets them,
too.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Final

# The signal comes at the limit; a process that ignores it is killed this many seconds later.
_CPU_GRACE: Final = 5


def set_limits(limits: Mapping[str, int | None]) -> None:
    """Set the limits of ``ResourceLimits.to_wire``.

    Raises:
        OSError, ValueError: this process may not have as much.
    """
    if (memory := limits.get("memory")) is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if (cpu_time := limits.get("cpu_time")) is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_time, cpu_time + _CPU_GRACE))
    if (open_files := limits.get("open_files")) is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
