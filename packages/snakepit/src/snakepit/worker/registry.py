"""Which methods of a class the host may call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar, overload

from snakepit.errors import ConfigurationError
from snakepit.worker.batches import SUFFIX, Batch, BatchCommand

_MARK = "__snakepit_command__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class CommandKind(Enum):
    """How a command has to be run."""

    SYNC = "sync"
    ASYNC = "async"
    SYNC_STREAM = "sync_stream"
    ASYNC_STREAM = "async_stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a worker, bound to its object.

    ``streams``: it yields items rather than returning one value. ``batch``: how the host may gather
    calls of it, which it then calls by the name and ``[]``.
    """

    name: str
    function: Callable[..., Any]
    kind: CommandKind
    interruptible: bool
    streams: bool
    batch: Batch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    name: str
    interruptible: bool
    batch: Batch | None


@overload
def command(function: _Function, /) -> _Function: ...
@overload
def command(
    *, name: str | None = None, interruptible: bool = True, batch: Batch | None = None
) -> Callable[[_Function], _Function]: ...
def command(
    function: _Function | None = None,
    /,
    *,
    name: str | None = None,
    interruptible: bool = True,
    batch: Batch | None = None,
) -> _Function | Callable[[_Function], _Function]:
    """Mark a method of a worker class as callable from the host. Only marked methods are.

    The method may be sync, ``async``, a generator or an async generator; the last two are called
    with ``Pool.execute_stream``. It runs in a worker process: a sync one on the main thread
    (concurrency 1) or in one of the worker's threads, an async one on the worker's event loop.

    Args:
        name: the command's name; the method's name by default.
        interruptible: when a sync command's deadline has passed, break it off with an exception
            raised at an arbitrary place. False for code that looks at ``current_call().cancelled``
            itself; if it does not end within the grace, its process is killed all the same.
        batch: the method takes many calls at once: a list for each parameter; see
            :class:`~snakepit.Batch`. It may not stream.

    Example::

        class Greeter:
            @snakepit.command
            def greet(self, name: str) -> str:
                return f"Hello, {name}!"
    """

    def mark(marked: _Function) -> _Function:
        own_name = name or marked.__name__
        setattr(marked, _MARK, _Mark(name=own_name, interruptible=interruptible, batch=batch))
        return marked

    return mark if function is None else mark(function)


def commands_of(instance: object) -> dict[str, Command]:
    """The commands of a worker object by name.

    Raises:
        ConfigurationError: two methods have the same command name, or there is none at all.
    """
    found: dict[str, Command] = {}
    for attribute in dir(type(instance)):
        mark = _mark_of(inspect.getattr_static(type(instance), attribute, None))
        if mark is None:
            continue
        for each in _commands(mark, getattr(instance, attribute)):
            if each.name in found:
                raise ConfigurationError(
                    f"{type(instance).__qualname__} has two commands named {each.name!r}; "
                    "rename one"
                )
            found[each.name] = each
    if not found:
        raise ConfigurationError(
            f"{type(instance).__qualname__} has no commands; mark methods with @snakepit.command"
        )
    return found


def described(commands: Mapping[str, Command]) -> dict[str, dict[str, Any]]:
    """What ``READY`` says of the commands that the host may call."""
    found: dict[str, dict[str, Any]] = {}
    for name, each in commands.items():
        found[name] = {"stream": each.streams}
        if each.batch is not None:
            found[name]["batch"] = each.batch.to_wire()
    return found


def _commands(mark: _Mark, method: Callable[..., Any]) -> Iterator[Command]:
    """What a marked method is for the host: one command, or two if it takes batches."""
    kind = _kind_of(method)
    streams = kind in (CommandKind.SYNC_STREAM, CommandKind.ASYNC_STREAM)
    alone = Command(
        name=mark.name,
        function=method,
        kind=kind,
        interruptible=mark.interruptible,
        streams=streams,
        batch=mark.batch,
    )
    if mark.batch is None:
        yield alone
        return
    if streams:
        raise ConfigurationError(
            f"the command {mark.name!r} yields items, so it can't take batches; return the results"
        )
    batches = BatchCommand(mark.name, method)
    one, many = batches.run_one, batches.run
    if kind is CommandKind.ASYNC:
        one, many = batches.arun_one, batches.arun
    yield replace(alone, function=one)
    yield replace(alone, name=mark.name + SUFFIX, function=many, batch=None)


def _mark_of(definition: object) -> _Mark | None:
    """The mark of what a class holds under a name; below @staticmethod or @classmethod too."""
    mark: _Mark | None = getattr(definition, _MARK, None)
    return mark or getattr(getattr(definition, "__func__", None), _MARK, None)


def _kind_of(function: Callable[..., Any]) -> CommandKind:
    if inspect.isasyncgenfunction(function):
        return CommandKind.ASYNC_STREAM
    if inspect.iscoroutinefunction(function):
        return CommandKind.ASYNC
    if inspect.isgeneratorfunction(function):
        return CommandKind.SYNC_STREAM
    return CommandKind.SYNC
