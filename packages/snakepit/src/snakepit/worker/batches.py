"""Commands that take many calls at once.

Such a command is two in the worker. Under its own name it serves a call like any other, as a batch
of one. Under its name and ``[]`` it takes what the host has gathered: the argument ``calls``, an
array of argument maps; and returns an array with a result, or the error, for each. See "Batches" in
PROTOCOL.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from snakepit.checks import seconds, whole_number
from snakepit.errors import (
    ConfigurationError,
    Outcome,
    ProtocolError,
    SnakepitError,
    error_from_wire,
    raised_to_wire,
)
from snakepit.wire.codec import encode

#: Behind a command's name: the command that takes its batches.
SUFFIX: Final = "[]"
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

Args = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How the calls of a command are gathered, so that one run of it serves many.

    A command with ``batch=`` gets a list for each of its parameters, with an element for each call,
    and returns as many results, in the same order: a sequence, or an array whose first axis is the
    calls. A result that is an exception fails that call alone. Callers notice nothing: they call it
    with one set of arguments, and get one result.

    Args:
        max_size: calls that are served together at most.
        max_wait: seconds that a call may wait for others while it could be sent. By default it
            waits for none: while a worker is free each call is sent at once, and while all are busy
            the calls that wait anyway gather.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        class Model:
            @snakepit.command(batch=snakepit.Batch(max_size=32))
            def score(self, x: list[float], y: list[float]) -> list[float]:
                return [a * b for a, b in zip(x, y)]

        await pool.execute("score", {"x": 2.0, "y": 3.0})     # 6.0
    """

    max_size: int
    max_wait: float | timedelta = 0.0

    def __post_init__(self) -> None:
        whole_number("max_size", self.max_size)
        seconds("max_wait", self.max_wait, zero=True)

    def to_wire(self) -> dict[str, Any]:
        """As ``READY`` has it."""
        max_wait = seconds("max_wait", self.max_wait, zero=True)
        return {"max_size": self.max_size, "max_wait": max_wait}


def read_batches(commands: Mapping[str, Any]) -> dict[str, Batch]:
    """The commands of ``READY`` that take batches.

    Raises:
        ProtocolError: what one says of them makes no sense.
    """
    found = {}
    for name, described in commands.items():
        data = described.get("batch") if isinstance(described, dict) else None
        if data is None:
            continue
        try:
            found[name] = Batch(max_size=data["max_size"], max_wait=data["max_wait"])
        except (TypeError, LookupError, ConfigurationError) as error:
            raise ProtocolError(f"the command {name!r} says of its batches {data!r}") from error
    return found


class BatchResults(list[Any]):
    """The results of a batch; one that can't travel is replaced by the error that says so."""

    def without_unencodable(self) -> list[Any]:
        """Those that can travel, and errors in place of the others."""
        return [_sendable(result) for result in self]


def _sendable(result: Any) -> Any:
    try:
        encode(result, root="result")
    except SnakepitError as error:
        error.outcome = Outcome.DONE
        return error
    return result


class BatchCommand:
    """What a method that takes many calls at once does with those that the host has gathered."""

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        """
        Raises:
            ConfigurationError: a parameter has no name, or takes any.
        """
        self._name = name
        self._method = method
        self._signature = inspect.signature(method)
        parameters = self._signature.parameters.values()
        if any(parameter.kind not in _NAMED for parameter in parameters):
            raise ConfigurationError(
                f"the command {name!r} is called with batches, so each of its parameters gets a "
                "list: give it named parameters only"
            )
        self._names = tuple(parameter.name for parameter in parameters)
        self._all_names = frozenset(self._names)

    def run(self, calls: Sequence[Args]) -> Any:
        """Serve ``calls``; an array of results, or a list with a result or an error for each."""
        bound = self._bind(calls)
        columns = self._columns(bound)
        return self._answers(bound, self._method(**columns) if columns is not None else ())

    async def arun(self, calls: Sequence[Args]) -> Any:
        """As ``run``, for an async method."""
        bound = self._bind(calls)
        columns = self._columns(bound)
        return self._answers(bound, await self._method(**columns) if columns is not None else ())

    def run_one(self, **args: Any) -> Any:
        """Serve a call that came alone."""
        return _only(self.run([args]))

    async def arun_one(self, **args: Any) -> Any:
        """As ``run_one``, for an async method."""
        return _only(await self.arun([args]))

    def _bind(self, calls: Sequence[Args]) -> list[Args | SnakepitError]:
        """The arguments of each call, or its error if it has not the right ones."""
        return [args if args.keys() == self._all_names else self._complete(args) for args in calls]

    def _complete(self, args: Args) -> Args | SnakepitError:
        try:
            bound = self._signature.bind(**args)
        except TypeError as error:
            return _as_error(TypeError(f"{self._name}() {error}"))
        bound.apply_defaults()
        arguments: Args = bound.arguments
        return arguments

    def _columns(self, bound: Sequence[Args | SnakepitError]) -> dict[str, list[Any]] | None:
        """A list for each parameter; None if no call is left."""
        rows = [args for args in bound if not isinstance(args, SnakepitError)]
        return {name: [args[name] for args in rows] for name in self._names} if rows else None

    def _answers(self, bound: Sequence[Args | SnakepitError], results: Any) -> Any:
        rows = sum(not isinstance(args, SnakepitError) for args in bound)
        count = _length(results)
        if count != rows:
            what = f"{count} results" if count is not None else f"a {type(results).__name__}"
            raise ConfigurationError(
                f"the command {self._name!r} returned {what} for {rows} calls; return a sequence "
                "with one result for each, in their order",
                outcome=Outcome.DONE,
            )
        if rows == len(bound) and getattr(results, "ndim", 0) > 1:
            return results  # one array, of which each caller gets a view
        rest = (_as_error(each) if isinstance(each, BaseException) else each for each in results)
        return BatchResults(
            args if isinstance(args, SnakepitError) else next(rest) for args in bound
        )


def _length(results: Any) -> int | None:
    """How many results there are; None for what is no sequence of results."""
    if isinstance(results, str | bytes | Mapping):
        return None
    try:
        return len(results)
    except TypeError:
        return None


def _as_error(exc: BaseException) -> SnakepitError:
    """An exception as its caller is to see it: as if the command had raised it."""
    return error_from_wire(raised_to_wire(exc))


def _only(results: Any) -> Any:
    (result,) = results
    if isinstance(result, SnakepitError):
        raise result
    return result
