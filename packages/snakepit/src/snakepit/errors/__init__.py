"""The error tree of the process pool.

Every error has one root, :class:`SnakepitError`, and says with plain attributes what a program
needs to decide: ``code`` (stable, for logs and other languages), ``outcome`` (did the call's work
happen?), ``retryable`` (is the same call, sent again, safe and likely to pass?) and ``details``
(plain data). Errors cross process boundaries by ``code`` and arrive as the same class, with their
chain of causes. Packages on top of this one declare their own subclasses in the same way::

    class VariableNotFound(SnakepitError, KeyError):
        code = "variable_not_found"

Builtin exceptions are mixed in *after* the snakepit base, so that ``str(error)`` stays the message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Self, cast

from snakepit.errors.base import (
    CallError,
    Outcome,
    ProtocolError,
    RemoteError,
    SnakepitError,
    ValueTransportError,
    as_typed,
    error_from_wire,
    error_to_wire,
    raised_to_wire,
)
from snakepit.errors.pool_errors import (
    CircuitOpen,
    NoWorkersAvailable,
    PoisonCall,
    PoolBroken,
    PoolClosed,
    PoolError,
    PoolNotReady,
    PoolSaturated,
    PoolStartFailed,
    QueueTimeout,
    SessionWorkerUnavailable,
    WorkerBusy,
)

__all__ = [
    "AdapterInitFailed",
    "AdapterInvalid",
    "CallDepthExceeded",
    "CallError",
    "CallTimeout",
    "CircuitOpen",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "LimitName",
    "NoWorkersAvailable",
    "Outcome",
    "PayloadTooLarge",
    "PoisonCall",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "PoolNotReady",
    "PoolSaturated",
    "PoolStartFailed",
    "ProtocolError",
    "QueueTimeout",
    "RemoteError",
    "ResourceLimitExceeded",
    "SessionWorkerUnavailable",
    "SnakepitError",
    "StreamBroken",
    "StreamingNotSupported",
    "UnknownCommand",
    "ValueTransportError",
    "VersionMismatch",
    "WorkerBusy",
    "WorkerError",
    "WorkerHung",
    "WorkerLost",
    "WorkerStartFailed",
    "as_typed",
    "error_from_wire",
    "error_to_wire",
    "raised_to_wire",
]

# --- configuration: the caller has to change something before any call can work -----------------


class ConfigurationError(SnakepitError):
    """An option or a value given to the library is wrong. Correct what the message names."""

    code = "configuration_error"


class AdapterInvalid(ConfigurationError):
    """An adapter does not satisfy the contract; ``problems`` lists everything that is wrong."""

    code = "adapter_invalid"

    @classmethod
    def of(cls, adapter: str, problems: Sequence[str]) -> AdapterInvalid:
        """Return the error for ``adapter`` (its name) with the full list of ``problems``."""
        listed = "".join(f"\n  - {problem}" for problem in problems)
        return cls(
            f"{adapter} can't be used as an adapter; correct the following:{listed}",
            details={"adapter": adapter, "problems": list(problems)},
        )

    @property
    def problems(self) -> list[str]:
        """One sentence for each problem."""
        return list(self.details.get("problems", ()))


class AdapterInitFailed(ConfigurationError):
    """The adapter's own start code raised; the cause is chained. Correct it, or its config."""

    code = "adapter_init_failed"


# --- worker: a worker process failed -------------------------------------------------------------


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


# --- call: one call failed -----------------------------------------------------------------------

LimitName = Literal["queue", "run", "total", "stream_idle"]


class CallTimeout(CallError, TimeoutError):
    """The call's time was over and its work was stopped; allow more time or do less in a call.

    ``limit`` is the limit that fired: "queue" (waiting for a worker), "run" (in the worker),
    "total" (the call's whole budget) or "stream_idle" (too long between two items of a stream).
    Host functions may raise it for limits that they name themselves.
    """

    code = "call_timeout"
    outcome = Outcome.UNKNOWN

    @classmethod
    def of(
        cls, command: str, *, limit: LimitName, timeout_s: float, queued_s: float, ran_s: float
    ) -> CallTimeout:
        """Return the error for ``command``; times in seconds. Never run means outcome none."""
        return cls(
            f"{command!r} reached its {limit} limit of {round(timeout_s, 3):g} s "
            f"(queued {queued_s:.3f} s, ran {ran_s:.3f} s); allow more time, or do less in a call",
            outcome=Outcome.NONE if limit == "queue" else None,
            details={
                "command": command, "limit": limit, "timeout_s": timeout_s,
                "queued_s": queued_s, "ran_s": ran_s,
            },
        )  # fmt: skip

    @property
    def limit(self) -> str | None:
        """Which limit fired: a LimitName, or one that a host function has named."""
        return self.details.get("limit")

    @property
    def queued_s(self) -> float | None:
        """Seconds spent waiting for a worker."""
        return self.details.get("queued_s")

    @property
    def ran_s(self) -> float | None:
        """Seconds spent in a worker."""
        return self.details.get("ran_s")


class UnknownCommand(CallError):
    """The worker has no such command. Use one of ``known``, or mark the method as a command."""

    code = "unknown_command"

    @classmethod
    def of(cls, name: str, known: Iterable[str]) -> UnknownCommand:
        """Return the error for ``name``, with the nearest of the ``known`` commands as a hint."""
        commands = sorted(known)
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(commands) or "none"
        return cls(
            f"there is no command {name!r}{hint} (known commands: {listed})",
            details={"command": name, "known": commands, "hint": near[0] if near else None},
        )

    @property
    def known(self) -> list[str]:
        """The commands there are, sorted."""
        return list(self.details.get("known", ()))

    @property
    def hint(self) -> str | None:
        """The known command with the nearest name, if one is near."""
        return self.details.get("hint")


class StreamingNotSupported(CallError):
    """A stream was asked of a command that yields none, or the reverse. Use the other method."""

    code = "streaming_not_supported"


class StreamBroken(CallError):
    """A stream ended without its end mark: its worker is gone, as ``__cause__`` tells.

    The ``delivered`` items that came before are valid.
    """

    code = "stream_broken"
    outcome = Outcome.UNKNOWN

    @classmethod
    def of(cls, lost: WorkerError, delivered: int) -> StreamBroken:
        """Return the error for a stream whose worker ended with ``lost`` after so many items."""
        broken = cls(
            f"the stream broke off after {delivered} items: {lost}",
            retryable=lost.retryable,
            details={**lost.details, "delivered": delivered},
        )
        broken.__cause__ = lost
        return broken

    @property
    def delivered(self) -> int | None:
        """How many items came before."""
        return self.details.get("delivered")


class CallDepthExceeded(CallError):
    """Host and worker called each other too deeply; look for an endless mutual call."""

    code = "call_depth_exceeded"


class HostCallCancelled(CallError):
    """In a worker: the host ended a call of it, whose result is unwanted. End the work."""

    code = "host_call_cancelled"
    outcome = Outcome.UNKNOWN


class NoCurrentCall(CallError, LookupError):
    """``current_call()`` was used outside a command. Use it in code that a command runs."""

    code = "no_current_call"


# --- values: what crosses the boundary -----------------------------------------------------------


class _PathError(ValueTransportError, registered=False):
    @property
    def path(self) -> str | None:
        """Where the value is, such as ``args.items[3].client``; None if unknown."""
        return self.details.get("path")


class EncodeError(_PathError):
    """A value is of a kind that does not travel between processes; ``path`` says where it is."""

    code = "encode_error"


class DecodeError(_PathError):
    """Bytes are no valid encoded value: the peer has a bug or speaks another version."""

    code = "decode_error"
    outcome = Outcome.UNKNOWN


class PayloadTooLarge(_PathError):
    """An encoded value is larger than the limit (both in bytes). Send it in parts or by a file.

    ``path`` is that of its largest part.
    """

    code = "payload_too_large"

    @classmethod
    def of(cls, size: int, limit: int, path: str | None = None) -> PayloadTooLarge:
        """Return the error for a value of ``size`` bytes, with its largest part at ``path``."""
        largest = "" if path is None else f" (most of it at {path})"
        return cls(
            f"the encoded value has {size} bytes{largest}, the limit is {limit}; send it in parts",
            details={"size": size, "limit": limit, "path": path},
        )

    @property
    def size(self) -> int | None:
        """Bytes of the encoded value."""
        return self.details.get("size")

    @property
    def limit(self) -> int | None:
        """Bytes allowed."""
        return self.details.get("limit")


class VersionMismatch(ValueTransportError):
    """Host and worker have versions that can't talk. Install the same version in both."""

    code = "version_mismatch"
