"""The root of the error tree, and how an error crosses a process boundary.

The public door is :mod:`snakepit.errors`; this module holds what the wire form itself needs (the
root, the registry of codes, :class:`RemoteError` and :class:`ProtocolError`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar, cast

from snakepit.errors import error_text as text

# Tracebacks, pickles and other processes name the classes by their public module.
PUBLIC_MODULE = "snakepit.errors"
#: Causes sent with an error; longer chains end there.
CAUSE_LIMIT = 8
#: Deepest chain of causes that is accepted from a peer (it may allow more than we send).
CAUSE_LIMIT_ACCEPTED = 32


_CODE = re.compile(r"[a-z][a-z0-9_]*\Z")
_REGISTRY: dict[str, type[SnakepitError]] = {}
_STAND_INS: dict[str, type[RemoteError]] = {}


class Outcome(StrEnum):
    """What is known about the work of a call that ended in an error."""

    __module__ = PUBLIC_MODULE

    NONE = "none"
    """The command never started: nothing happened."""
    UNKNOWN = "unknown"
    """It may have run wholly, partly or not at all."""
    DONE = "done"
    """The command ran to its end; only its answer is an error, or was lost."""


class SnakepitError(Exception):
    """Root of all errors of snakepit and of the packages built on it.

    ``message`` says what was wrong and what to do next. ``outcome`` and ``retryable`` default to
    the class's own values; ``retryable`` is true only when sending the same call again is safe.
    ``details`` holds plain data (None, bool, int, float, str, bytes, list, dict).
    ``remote_traceback`` is the formatted traceback of the process that raised it, when the error
    came from another process. Errors survive pickle, copy and :meth:`to_wire`; what a pickled
    error keeps of a foreign cause is a :class:`RemoteError`.

    Example::

        try:
            await pool.execute("work", {"x": 1})
        except SnakepitError as error:
            if not error.retryable:
                raise
    """

    __module__ = PUBLIC_MODULE
    code: ClassVar[str] = "snakepit_error"
    outcome: Outcome = Outcome.NONE
    retryable: bool = False
    remote_traceback: str | None = None
    from_peer: bool = False
    """Whether it came from another process."""

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome = Outcome(outcome) if outcome is not None else type(self).outcome
        self.retryable = retryable if retryable is not None else type(self).retryable
        self.details: dict[str, Any] = dict(details or {})

    def __init_subclass__(cls, *, registered: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(f"{PUBLIC_MODULE}."):
            cls.__module__ = PUBLIC_MODULE
        if registered:
            _register(cls)

    def __str__(self) -> str:
        # KeyError and others would show the repr of the message.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__
        if cause is not None and not isinstance(cause, SnakepitError):
            cause = error_from_wire(error_to_wire(cause))
        return _restore, (_declared_class(self), dict(self.__dict__), cause)

    def to_wire(self) -> dict[str, Any]:
        """Return this error and its causes as plain data; see :func:`error_to_wire`."""
        return error_to_wire(self)

    @staticmethod
    def from_wire(data: Any) -> SnakepitError:
        """Return the error described by ``data``; see :func:`error_from_wire`."""
        return error_from_wire(data)


def _register(cls: type[SnakepitError]) -> None:
    code = cls.__dict__.get("code")
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not isinstance(code, str) or not _CODE.match(code):
        raise TypeError(
            f"{name} must declare its own class attribute `code` in snake_case, got {code!r}: "
            "errors are recognised by it in other processes"
        )
    known = _REGISTRY.get(code)
    # The same name again is a module reload, which replaces the class.
    if known is not None and f"{known.__module__}.{known.__qualname__}" != name:
        raise TypeError(
            f"the error code {code!r} of {name} is taken by "
            f"{known.__module__}.{known.__qualname__}; choose another"
        )
    _REGISTRY[code] = cls


_register(SnakepitError)


class CallError(SnakepitError):
    """Base of errors of a single call."""

    code = "call_error"


class RemoteError(CallError):
    """The command ran and raised; this stands for its exception, which is not copied over.

    ``remote_type`` is the exception's qualified name and ``remote_traceback`` its traceback. When
    it was a builtin or derived from one, the instance is of that builtin type too, so that
    ``except ValueError`` works; never of a type that would end a process or a generator.
    """

    code = "remote_error"
    outcome = Outcome.DONE

    @classmethod
    def of(
        cls,
        remote_type: str,
        message: str,
        *,
        builtin: str | None = None,
        remote_traceback: str | None = None,
    ) -> RemoteError:
        """Return the error standing for an exception of type ``remote_type``.

        ``builtin`` names the builtin it derives from, by default ``remote_type`` itself.

        Example::

            assert isinstance(RemoteError.of("KeyError", "no such row"), KeyError)
        """
        details = {"remote_type": remote_type, "builtin": builtin or remote_type}
        error = _remote_class(details["builtin"])(message, details=details)
        _attach_traceback(error, remote_traceback)
        return error

    @property
    def remote_type(self) -> str | None:
        """The qualified type name of the exception, builtins without a module."""
        return self.details.get("remote_type")


class ValueTransportError(SnakepitError):
    """Base of errors of values and bytes on their way between processes."""

    code = "value_transport_error"


class ProtocolError(ValueTransportError):
    """The peer broke the wire protocol. The connection is closed; report it as a bug."""

    code = "protocol_error"
    outcome = Outcome.UNKNOWN


# --- the wire form -------------------------------------------------------------------------------


def error_to_wire(exc: BaseException) -> dict[str, Any]:
    """Return any exception as plain data, never raising.

    Keys: ``code``, ``type``, ``message``, ``outcome``, ``retryable``, ``details``, ``traceback``
    (text or None) and ``cause`` (the same again, or None). Foreign exceptions have the code of
    :class:`RemoteError`. Text is bounded, the chain ends after ``CAUSE_LIMIT`` causes or at a
    cycle.
    """
    chain = [exc]
    while len(chain) <= CAUSE_LIMIT:
        cause = text.cause_of(chain[-1])
        if cause is None or any(cause is seen for seen in chain):
            break
        chain.append(cause)
    wire: dict[str, Any] | None = None
    for link in reversed(chain):
        wire = {**_link_to_wire(link), "cause": wire}
    return cast("dict[str, Any]", wire)


def raised_to_wire(exc: BaseException) -> dict[str, Any]:
    """Return what running code raised as plain data; as :func:`error_to_wire`.

    An error that came from another process says what became of *its* call. For the call whose code
    let it through, the work was done as far as it goes, whatever became of the inner one.
    """
    wire = error_to_wire(exc)
    if isinstance(exc, SnakepitError) and exc.from_peer:
        wire |= {"outcome": Outcome.DONE.value, "retryable": False}
    return wire


def as_typed(exc: BaseException) -> SnakepitError:
    """Return ``exc`` itself if it is of this tree, else the :class:`RemoteError` for it."""
    if isinstance(exc, SnakepitError):
        return exc
    typed = error_from_wire(error_to_wire(exc))
    typed.__cause__ = exc
    return typed


def _link_to_wire(exc: BaseException) -> dict[str, Any]:
    name = text.type_name_of(exc)
    if isinstance(exc, SnakepitError):
        remote = isinstance(exc, RemoteError)
        return {
            "code": exc.code,
            "type": text.plain(exc.details.get("remote_type", name)) if remote else name,
            "message": text.message_of(exc),
            "outcome": exc.outcome.value,
            "retryable": exc.retryable,
            "details": text.plain(exc.details),
            "traceback": exc.remote_traceback or text.traceback_of(exc),
        }
    builtin = text.builtin_for(type(exc))
    return {
        "code": RemoteError.code,
        "type": name,
        "message": text.message_of(exc),
        "outcome": RemoteError.outcome.value,
        "retryable": RemoteError.retryable,
        "details": {"remote_type": name, "builtin": builtin.__name__ if builtin else None},
        "traceback": text.traceback_of(exc),
    }


def error_from_wire(data: Any) -> SnakepitError:
    """Return the error that :func:`error_to_wire` described, its causes chained.

    A code unknown here gives a :class:`RemoteError` that keeps the code in
    ``details["remote_code"]``.

    :raises ProtocolError: ``data`` has not that form.
    """
    links: list[SnakepitError] = []
    while data is not None or not links:
        if len(links) > CAUSE_LIMIT_ACCEPTED:
            raise ProtocolError(f"an error from the peer has over {CAUSE_LIMIT_ACCEPTED} causes")
        links.append(_link_from_wire(data))
        data = data.get("cause")
    for error, cause in pairwise(links):
        error.__cause__ = cause
    return links[0]


_FIELDS: dict[str, tuple[type, ...]] = {
    "code": (str,),
    "type": (str,),
    "message": (str,),
    "outcome": (str,),
    "retryable": (bool,),
    "details": (dict,),
    "traceback": (str, type(None)),
}


def _link_from_wire(data: Any) -> SnakepitError:
    if not isinstance(data, dict):
        raise ProtocolError(f"an error from the peer is a {type(data).__name__}, not a mapping")
    for field, types in _FIELDS.items():
        if not isinstance(data.get(field, ...), types):
            raise ProtocolError(f"an error from the peer has no valid field {field!r}")
    if data["outcome"] not in set(Outcome):
        raise ProtocolError(f"an error from the peer has the outcome {data['outcome']!r}")
    details = dict(data["details"])
    cls = _REGISTRY.get(data["code"])
    if cls is None:
        cls = RemoteError
        details |= {"remote_code": data["code"], "remote_type": data["type"]}
    state = {
        "message": data["message"],
        "outcome": Outcome(data["outcome"]),
        "retryable": data["retryable"],
        "details": details,
    }
    error = _restore(cls, state, None)
    error.from_peer = True
    _attach_traceback(error, data["traceback"])
    return error


def _attach_traceback(error: SnakepitError, remote_traceback: str | None) -> None:
    if remote_traceback:
        error.remote_traceback = remote_traceback
        # A note, so that an uncaught error shows where it really happened.
        error.add_note(f"Raised in another process:\n{remote_traceback.rstrip()}")


def _restore(
    cls: type[SnakepitError], state: dict[str, Any], cause: BaseException | None
) -> SnakepitError:
    """Build an instance from its state; subclasses may have constructors of their own."""
    if cls is RemoteError:
        cls = _remote_class(state["details"].get("builtin"))
    error = cls.__new__(cls)
    super(SnakepitError, error).__init__(state["message"])
    error.__dict__.update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


def _declared_class(error: SnakepitError) -> type[SnakepitError]:
    """Return the importable class: stand-ins are made at run time and declare no code."""
    return next(cls for cls in type(error).__mro__ if "code" in cls.__dict__)


def _remote_class(builtin: object) -> type[RemoteError]:
    """Return RemoteError, or the class made (once) from it and the builtin of that name."""
    found = text.builtin_named(builtin) if isinstance(builtin, str) else None
    if found is None:
        return RemoteError
    name = found.__name__
    if name not in _STAND_INS:
        namespace = {"__doc__": f"A {name} of another process."}
        made = type(f"Remote{name}", (RemoteError, found), namespace, registered=False)
        _STAND_INS[name] = cast("type[RemoteError]", made)
    return _STAND_INS[name]
