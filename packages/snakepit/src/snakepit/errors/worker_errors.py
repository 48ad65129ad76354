"""Errors of a worker process that failed."""

from __future__ import annotations

from typing import Final, Self, cast

from snakepit.errors.base import Outcome, SnakepitError


class WorkerError(SnakepitError):
    """Base of errors of a worker process."""

    code = "worker_error"
    outcome = Outcome.UNKNOWN


class WorkerStartFailed(WorkerError):
    """A worker process did not come up; the cause or its last output says why."""

    code = "worker_start_failed"
    outcome = Outcome.NONE


# Of a dead worker's output, in the message of its error; the details have more.
_LINES_SHOWN: Final = 20


class _WorkerDeath(WorkerError, registered=False):
    @classmethod
    def of(
        cls,
        *,
        worker_id: int | str,
        pid: int | None,
        reason: str,
        phase: str,
        exit_code: int | None = None,
        signal: str | None = None,
        last_output: str = "",
        hint: str = "",
        stacks: str = "",
        outcome: Outcome | None = None,
        retryable: bool | None = None,
    ) -> Self:
        """Return the error for a dead worker.

        ``reason`` is why it ended ("crash", "killed: deadline", ...), ``phase`` what it was doing
        ("start", "idle", "call", ...); ``signal`` is a name such as "SIGKILL". ``hint`` is a guess
        at the cause, ``stacks`` what its threads did before.
        """
        if signal is not None:
            how = f"was ended by {signal}"
        else:
            how = "ended for an unknown cause" if exit_code is None else f"exited with {exit_code}"
        guess = f"; {hint}" if hint else ""
        shown = "\n".join(last_output.splitlines()[-_LINES_SHOWN:])
        tail = f"; its last output was:\n{shown}" if shown else ""
        details = {
            "worker_id": worker_id, "pid": pid, "exit_code": exit_code, "signal": signal,
            "phase": phase, "reason": reason, "last_output": last_output, "hint": hint,
            "stacks": stacks,
        }  # fmt: skip
        return cls(
            f"worker {worker_id} (pid {pid}) {how} in phase {phase!r} ({reason}){guess}{tail}",
            outcome=outcome,
            retryable=retryable,
            details=details,
        )

    @property
    def worker_id(self) -> int | str | None:
        """Which worker; ids are never reused."""
        return cast("int | str | None", self.details.get("worker_id"))

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self.details.get("pid")

    @property
    def exit_code(self) -> int | None:
        """Its exit code, when it exited."""
        return self.details.get("exit_code")

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it, such as "SIGKILL"."""
        return self.details.get("signal")

    @property
    def phase(self) -> str | None:
        """What it was doing: "start", "idle", "call", ..."""
        return self.details.get("phase")

    @property
    def reason(self) -> str | None:
        """Why it ended: "crash", "killed: deadline", ..."""
        return self.details.get("reason")

    @property
    def last_output(self) -> str:
        """The end of what it wrote to stdout and stderr; may be empty."""
        return str(self.details.get("last_output") or "")

    @property
    def hint(self) -> str:
        """A guess at the cause, such as "out of memory?"; may be empty."""
        return str(self.details.get("hint") or "")

    @property
    def stacks(self) -> str:
        """What its threads did before it was killed, where that could be found out."""
        return str(self.details.get("stacks") or "")


class WorkerLost(_WorkerDeath):
    """The worker died while it held the call. Other calls are not affected.

    ``outcome`` is ``none`` when the call had not started there. Read ``last_output`` and
    ``signal`` or ``exit_code`` for the cause; repeat the call only if it is idempotent.
    """

    code = "worker_lost"


class WorkerHung(_WorkerDeath):
    """The worker did not answer, and was killed if it had stopped or was deadlocked."""

    code = "worker_hung"


class ResourceLimitExceeded(_WorkerDeath):
    """The worker went over a resource limit and was ended. Raise the limit, or send less."""

    code = "resource_limit_exceeded"
