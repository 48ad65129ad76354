"""Errors of the pool itself: most calls that end with one never reached a worker."""

from __future__ import annotations

from collections.abc import Sequence

from snakepit.errors.base import SnakepitError


class PoolError(SnakepitError):
    """Base of errors of the pool itself."""

    code = "pool_error"


class PoolStartFailed(PoolError):
    """The pool could not start its workers; the chained cause says why. Correct it, start again."""

    code = "pool_start_failed"

    @classmethod
    def of(cls, pool: str, failures: Sequence[BaseException]) -> PoolStartFailed:
        """Return the error for a pool of which no worker started; each reason is told once."""
        reasons = "".join(f"\n  - {failure}" for failure in dict.fromkeys(map(str, failures)))
        return cls(
            f"pool {pool!r}: none of its {len(failures)} workers started:{reasons}",
            details={"failures": [str(failure) for failure in failures]},
        )


class PoolClosed(PoolError):
    """The pool is closing, closed or not entered yet. Use it inside its ``async with`` block."""

    code = "pool_closed"


class PoolSaturated(PoolError):
    """The queue is full. Send less at a time, wait and retry, or raise ``size``/``queue_limit``."""

    code = "pool_saturated"
    retryable = True


class PoolBroken(PoolError):
    """The pool's process tree is gone and could not be rebuilt. Close it and open a new one."""

    code = "pool_broken"


class QueueTimeout(PoolError, TimeoutError):
    """No worker became free in time; the call never started. Retry later, or raise ``size``."""

    code = "queue_timeout"
    retryable = True

    @classmethod
    def of(cls, command: str, *, timeout_s: float, queued_s: float) -> QueueTimeout:
        """Return the error for ``command``; times in seconds."""
        return cls(
            f"{command!r} reached its queue limit of {round(timeout_s, 3):g} s (queued "
            f"{queued_s:.3f} s) and never ran; retry later, or raise the pool's size",
            details={
                "command": command, "limit": "queue", "timeout_s": timeout_s, "queued_s": queued_s,
            },
        )  # fmt: skip

    @property
    def queued_s(self) -> float | None:
        """Seconds spent waiting for a worker."""
        return self.details.get("queued_s")


class WorkerBusy(PoolError):
    """The one worker that may run the call has no free slot. Retry when its calls have ended."""

    code = "worker_busy"
    retryable = True


class SessionWorkerUnavailable(PoolError):
    """The worker bound to the session has left, with all it kept of the session.

    Release the session (or take another one), build what it needs again, then retry.
    """

    code = "session_worker_unavailable"


class PoolNotReady(PoolError, TimeoutError):
    """The workers waited for were not ready in time; the details say how many were. Wait longer."""

    code = "pool_not_ready"
    retryable = True


class NoWorkersAvailable(PoolError):
    """No worker is up and none is starting. Look at the last start failure, then retry."""

    code = "no_workers_available"
    retryable = True


class PoisonCall(PoolError):
    """The call has killed workers before and was not sent to one more. See the cause, correct it,
    then ``reload`` the pool; or send other arguments (and another idempotency key)."""

    code = "poison_call"

    @classmethod
    def of(
        cls, command: str, *, crashes: int, refused_s: float, has_key: bool = False
    ) -> PoisonCall:
        """Return the error for ``command``, which is refused for ``refused_s`` more seconds."""
        known_by = "under this idempotency key" if has_key else "with these arguments"
        return cls(
            f"{command!r} {known_by} ran in {crashes} workers that crashed, and is "
            f"refused for {refused_s:.0f} s; see the cause, correct it and reload the pool",
            details={"command": command, "crashes": crashes, "refused_s": refused_s},
        )


class CircuitOpen(PoolError):
    """A circuit breaker refused the call: calls before it failed. Retry after ``retry_after_s``."""

    code = "circuit_open"
    retryable = True

    @classmethod
    def of(cls, command: str, *, retry_after_s: float) -> CircuitOpen:
        """Return the error for ``command``, which may be tried again after so many seconds."""
        return cls(
            f"{command!r} was not sent: calls before it failed, and the circuit is open; retry in "
            f"{retry_after_s:.3g} s",
            details={"command": command, "retry_after_s": retry_after_s},
        )

    @property
    def retry_after_s(self) -> float | None:
        """Seconds until a call may pass."""
        return self.details.get("retry_after_s")
