"""Errors of a single call."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

from snakepit.errors.base import CallError, Outcome
from snakepit.errors.worker_errors import WorkerError

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
