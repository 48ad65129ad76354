"""The errors of the platform: sessions, variables, tools, language models and DSPy programs.

All are :class:`snakepit.errors.SnakepitError`: they carry ``code``, ``outcome``, ``retryable`` and
``details``, and arrive as the same class when they were raised in a worker process. Errors with a
builtin base (``KeyError``, ``ValueError``, ...) can be caught as that builtin too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Self

from snakepit.errors import Outcome, SnakepitError

__all__ = [
    "BridgeError",
    "DuplicateTool",
    "HandleClosed",
    "InputMismatch",
    "InstanceNotFound",
    "InvalidCategory",
    "ModelNotFound",
    "NotAllowed",
    "OutcomeUnknown",
    "OutputFieldMissing",
    "QuotaExceeded",
    "ReadOnlyVariable",
    "SessionExpired",
    "SessionLost",
    "SessionNotFound",
    "SignatureInvalid",
    "StorageBusy",
    "StorageCorrupt",
    "StorageFull",
    "StorageUnavailable",
    "ToolDeadlock",
    "ToolExecutionFailed",
    "ToolNotFound",
    "UnsupportedType",
    "ValidationFailed",
    "VariableConflict",
    "VariableExists",
    "VariableNotFound",
]


class BridgeError(SnakepitError):
    """Base of the platform's own errors."""

    code = "bridge_error"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the ``known`` names, else ``""``."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """Return a value for a message; only its type if it may be long, or has a ``repr`` of its own.

    Python itself refuses to write out a number of thousands of digits.
    """
    if type(value) is int:
        bits = value.bit_length()
        return f"{value!r}" if bits <= 128 else f"an integer of {bits} bits"
    if type(value) is str:
        short = len(value) <= 40
    else:
        short = value is None or type(value) in (bool, float)
    return f"{value!r}" if short else f"a value of type {type(value).__name__}"


# --- sessions ------------------------------------------------------------------------------------


class SessionNotFound(BridgeError, LookupError):
    """The session was never started, or is closed. Start it with ``sessions.start``."""

    code = "session_not_found"

    @classmethod
    def of(cls, session_id: str) -> SessionNotFound:
        """Return the error for ``session_id``."""
        return cls(
            f"there is no open session {session_id!r}: it was never started or is closed; "
            "start it first (sessions.start, or start_session of a client), or leave the session "
            "out to get a temporary one",
            details={"session_id": session_id},
        )

    @property
    def session_id(self) -> str | None:
        """The id that was asked for."""
        return self.details.get("session_id")


class SessionExpired(SessionNotFound):
    """The session was not used for longer than its time to live, and is gone with what it held."""

    code = "session_expired"

    @classmethod
    def of(cls, session_id: str, ttl: float | None = None) -> SessionExpired:
        """Return the error for a session that lived ``ttl`` seconds without use."""
        return cls(
            f"session {session_id!r} was not used for {ttl or 0.0:g} s, so it has expired, and "
            "what it held is gone; start it again, with a longer ttl if need be",
            details={"session_id": session_id, "ttl": ttl},
        )


class QuotaExceeded(BridgeError):
    """There would be more of something than a quota allows. Nothing was done."""

    code = "quota_exceeded"

    @classmethod
    def of(cls, session_id: str | None, quota: str, *, wanted: int, limit: int) -> QuotaExceeded:
        """Return the error for a quota of a session, or of all sessions together."""
        where = "" if session_id is None else f" in session {session_id!r}"
        return cls(
            f"{wanted} {quota}{where} would be more than the {limit} that are allowed; delete "
            "some, or raise the quota",
            details={"session_id": session_id, "quota": quota, "wanted": wanted, "limit": limit},
        )


class SessionLost(BridgeError):
    """The worker that held the session's instance died, and the instance with it.

    The session itself, its variables and tools are still there. Create the instance again.
    """

    code = "session_lost"

    @classmethod
    def of(cls, session_id: str, instance_id: str, class_path: str) -> SessionLost:
        """Return the error for an instance of ``class_path``."""
        return cls(
            f"instance {instance_id!r} of {class_path} in session {session_id!r} is gone: the "
            "worker process that held it has ended; create the instance again (the session's "
            "variables and tools are still there)",
            details={
                "session_id": session_id,
                "instance_id": instance_id,
                "class_path": class_path,
            },
        )


class InstanceNotFound(BridgeError, LookupError):
    """No instance of that id is stored in the session: never created, released, or another's."""

    code = "instance_not_found"

    @classmethod
    def of(cls, instance_id: str, session_id: str | None) -> InstanceNotFound:
        """Return the error for ``instance_id``."""
        return cls(
            f"session {session_id!r} has no instance {instance_id!r}: it was never created there "
            "or is released; create it with create_instance and use the id that this returns",
            details={"instance_id": instance_id, "session_id": session_id},
        )


class HandleClosed(BridgeError):
    """The handle of an instance was closed, and the instance released with it. Make another."""

    code = "handle_closed"


# --- variables -----------------------------------------------------------------------------------


class VariableNotFound(BridgeError, KeyError):
    """The session has no such variable; ``similar`` holds names that are near."""

    code = "variable_not_found"

    @classmethod
    def of(cls, name: str, session_id: str, known: Iterable[str]) -> VariableNotFound:
        """Return the error for ``name``, with the nearest of the ``known`` names."""
        similar = difflib.get_close_matches(name, list(known), n=3)
        hint = f"; similar names: {', '.join(map(repr, similar))}" if similar else ""
        return cls(
            f"session {session_id!r} has no variable {name!r}{hint}; create it (create), write it "
            "with put, which creates what is missing, or read it with a default",
            details={"name": name, "session_id": session_id, "similar": similar},
        )

    @classmethod
    def of_id(cls, identifier: str, session_id: str, successor: str | None) -> VariableNotFound:
        """Return the error for an id; ``successor`` is the id of what has its name now."""
        name = identifier.partition("@")[0]
        now = "" if successor is None else f", and another one has its name now: {successor!r}"
        return cls(
            f"session {session_id!r} has no variable with the id {identifier!r} any more: it was "
            f"deleted, or is one of another session{now}; use the name {name!r} for whatever "
            "variable has it",
            details={
                "name": name, "id": identifier, "session_id": session_id, "successor": successor,
            },
        )  # fmt: skip

    @property
    def similar(self) -> list[str]:
        """Up to three existing names that are near."""
        return list(self.details.get("similar", ()))


class VariableExists(BridgeError):
    """A variable of that name exists in the session. Use ``overwrite=True``, ``set`` or ``put``."""

    code = "variable_exists"


class VariableConflict(BridgeError):
    """Somebody else has written the variable since it was read. Nothing was written: read it again,
    decide anew, and write with the version that you read.
    """

    code = "variable_conflict"
    retryable = True

    @classmethod
    def of(cls, name: str, session_id: str, *, expected: int | None, actual: int | None) -> Self:
        """Return the error for a write that expected another version; None for no variable."""
        return cls(
            f"variable {name!r} of session {session_id!r} is {_version(actual)}, not "
            f"{_version(expected)}: it was written meanwhile; read it again, then write",
            details={
                "name": name, "session_id": session_id, "expected": expected, "actual": actual,
            },
        )  # fmt: skip


def _version(version: int | None) -> str:
    return "not there" if version is None else f"in version {version}"


class ReadOnlyVariable(BridgeError):
    """The variable was created with ``read_only=True``; only deleting it changes it."""

    code = "read_only_variable"


class UnsupportedType(BridgeError, TypeError):
    """The variable type is unknown, or no type fits the value. The message lists the types."""

    code = "unsupported_type"


class ValidationFailed(BridgeError, ValueError):
    """A value does not fit what was declared for it: its type, constraints or parameters."""

    code = "validation_failed"


# --- tools ---------------------------------------------------------------------------------------


class ToolNotFound(BridgeError, LookupError):
    """Neither the session nor the global scope has the tool; ``available`` lists what there is."""

    code = "tool_not_found"

    @classmethod
    def of(cls, name: str, session_id: str | None, available: Iterable[str]) -> ToolNotFound:
        """Return the error for ``name``."""
        names = sorted(available)
        return cls(
            f"there is no tool {name!r}{did_you_mean(name, names)} "
            f"(available: {', '.join(names) or 'none'}); register it with tools.register",
            details={"name": name, "session_id": session_id, "available": names},
        )

    @property
    def available(self) -> list[str]:
        """The tools that the call could have used, sorted."""
        return list(self.details.get("available", ()))


class DuplicateTool(BridgeError):
    """A tool of that name is registered in that scope. Pass ``replace=True`` to replace it."""

    code = "duplicate_tool"


class ToolDeadlock(BridgeError):
    """Tools with a limit of concurrency would wait for each other in a circle, which this call was
    about to close. It did not run; the others go on when the call that it is a part of has ended.
    """

    code = "tool_deadlock"


class ToolExecutionFailed(BridgeError):
    """The tool ran and raised; its exception is the cause. It is never retried by itself."""

    code = "tool_execution_failed"
    outcome = Outcome.UNKNOWN


# --- storage -------------------------------------------------------------------------------------


class StorageBusy(BridgeError):
    """Others held what the transaction needs for too long. Nothing was written; try again."""

    code = "storage_busy"
    retryable = True


class StorageFull(BridgeError):
    """There is no room left. Nothing was written; free some, and it works again by itself."""

    code = "storage_full"


class StorageUnavailable(BridgeError):
    """The file or the server can't be used now; nothing was written. The message says why.

    ``retryable`` is false where waiting does not help, such as a wrong password.
    """

    code = "storage_unavailable"
    retryable = True


class StorageCorrupt(BridgeError):
    """The stored data are damaged. Nothing is deleted; restore them from a backup."""

    code = "storage_corrupt"


class OutcomeUnknown(BridgeError):
    """The storage was lost while it committed, and did not come back to say whether it had.

    The transaction took effect wholly or not at all. Read what it was to write before repeating it.
    """

    code = "outcome_unknown"
    outcome = Outcome.UNKNOWN


# --- language models and programs ----------------------------------------------------------------


class ModelNotFound(BridgeError, LookupError):
    """The language model is unknown, or its file is missing. The message says how to get it."""

    code = "model_not_found"


class SignatureInvalid(BridgeError, ValueError):
    """A signature does not parse. The message shows where, and what a right one looks like."""

    code = "signature_invalid"


class InputMismatch(BridgeError, ValueError):
    """The inputs are not those of the signature, or not of its types; nothing was sent."""

    code = "input_mismatch"

    @classmethod
    def of(cls, signature: str, missing: Sequence[str], unexpected: Sequence[str]) -> InputMismatch:
        """Return the error for inputs given to ``signature``."""
        parts = []
        if missing:
            parts.append(f"missing: {', '.join(missing)}")
        if unexpected:
            parts.append(f"not in the signature: {', '.join(unexpected)}")
        return cls(
            f"the inputs don't match the signature {signature!r} ({'; '.join(parts)}); "
            "pass exactly the fields on its left side",
            details={
                "signature": signature,
                "missing": list(missing),
                "unexpected": list(unexpected),
            },
        )

    @classmethod
    def of_type(cls, field: str, expected: str, value: object) -> InputMismatch:
        """Return the error for a ``value`` that has not the type of its field."""
        given = shown(value)
        return cls(
            f"the input {field!r} must be of type {expected}, it was {given}; convert it, or "
            "declare another type in the signature",
            details={"field": field, "expected": expected, "given": given,
                     "missing": [], "unexpected": []},
        )  # fmt: skip

    @property
    def missing(self) -> list[str]:
        """Input fields that were not given."""
        return list(self.details.get("missing", ()))

    @property
    def unexpected(self) -> list[str]:
        """Given names that are no input fields."""
        return list(self.details.get("unexpected", ()))


class OutputFieldMissing(BridgeError):
    """The model's answer lacks an output field of the signature. Retry, or use a larger model."""

    code = "output_field_missing"
    outcome = Outcome.DONE
    retryable = True

    @classmethod
    def of(cls, signature: str, missing: Sequence[str]) -> OutputFieldMissing:
        """Return the error for an answer without the ``missing`` fields."""
        return cls(
            f"the model's answer has no {', '.join(map(repr, missing))}, which the signature "
            f"{signature!r} asks for; try again, or use a larger model",
            details={"signature": signature, "missing": list(missing)},
        )

    @property
    def missing(self) -> list[str]:
        """The output fields that are missing."""
        return list(self.details.get("missing", ()))


class InvalidCategory(BridgeError, ValueError):
    """A classification ended with none of the categories. The details hold what came instead."""

    code = "invalid_category"
    outcome = Outcome.DONE
    retryable = True


class NotAllowed(BridgeError):
    """It is not allowed: a class path outside ``import_allow``, a tool of others, a secret that a
    worker writes.
    """

    code = "not_allowed"
