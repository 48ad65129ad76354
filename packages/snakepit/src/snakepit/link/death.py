"""What a worker's end means to the calls it had. Pure: it takes what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from snakepit.errors import (
    RemoteError,
    ResourceLimitExceeded,
    SnakepitError,
    WorkerError,
    WorkerHung,
    WorkerLost,
)
from snakepit.processes.tree import ExitReport

# The kernel's signal for a process that has used up its CPU time; nobody else sends it.
_CPU_TIME_SIGNAL: Final = "SIGXCPU"

# MemoryError, and what numpy and torch derive from it or name after it.
_OUT_OF_MEMORY: Final = "MemoryError"
# What the drivers of accelerators say when a process can use its device no more.
_DEVICE_LOST: Final = ("CUDA error:", "HIP error:", "device-side assert")


def ran_out_of_memory(error: SnakepitError) -> bool:
    """Whether a call ended because its worker got no more memory."""
    return isinstance(error, RemoteError) and str(error.remote_type).endswith(_OUT_OF_MEMORY)


def spoils_its_worker(error: SnakepitError) -> bool:
    """Whether the worker of a call that ended so is not to be trusted any more: it got no more
    memory, in the middle of nobody knows what, or its device takes no more orders from it.
    """
    if ran_out_of_memory(error):
        return True
    return isinstance(error, RemoteError) and any(words in str(error) for words in _DEVICE_LOST)


@dataclass(frozen=True, slots=True)
class Kill:
    """That this host ended a worker, and why."""

    reason: str
    hung: bool = False
    stacks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a worker ended. ``kill`` is None when it was not this host's doing."""

    worker_id: str
    pid: int | None
    report: ExitReport
    kill: Kill | None
    phase: str
    last_output: str
    #: How many processes the kernel has killed for want of memory while it lived.
    oom_kills: int = 0

    @property
    def was_a_crash(self) -> bool:
        """Whether it ended while it worked, for a cause that its code may have given."""
        killed = self.kill is not None or self.report.reason is not None
        cause_is_known = killed or self.report.keeper_died or self._used_up_its_cpu_time
        return self.phase == "call" and not cause_is_known

    @property
    def hint(self) -> str:
        """Who may have ended it, where nobody has said so."""
        if self.report.signal != "SIGKILL" or self.kill or self.report.reason:
            return ""
        if self.oom_kills:
            return "out of memory? The kernel has killed a process for want of it meanwhile"
        return "killed from outside, by an operator or a supervisor?"

    def error(self) -> WorkerError:
        """The error for one of its calls, a new one each time."""
        facts: dict[str, Any] = {
            "worker_id": self.worker_id,
            "pid": self.pid,
            "exit_code": self.report.code,
            "signal": self.report.signal,
            "phase": self.phase,
            "reason": self._reason,
            "last_output": self.last_output,
            "hint": self.hint,
        }
        if self.kill is None and self._used_up_its_cpu_time:
            return ResourceLimitExceeded.of(**facts)
        if self.kill is not None and self.kill.hung:
            return WorkerHung.of(**facts, stacks=self.kill.stacks)
        return WorkerLost.of(**facts)

    @property
    def _reason(self) -> str:
        if self.kill is not None:
            return f"killed: {self.kill.reason}"
        if self.report.reason is not None:
            return f"killed: {self.report.reason}"
        if self.report.keeper_died:
            return "with its keeper process, which died"
        return "its limit of CPU time is reached" if self._used_up_its_cpu_time else "crash"

    @property
    def _used_up_its_cpu_time(self) -> bool:
        return self.report.signal == _CPU_TIME_SIGNAL
