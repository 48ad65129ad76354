"""What runs behind a pool: the adapter contract."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from snakepit.calls.call import Call
from snakepit.errors import AdapterInvalid
from snakepit.link.host_calls import HostFunction
from snakepit.link.owner import WorkerEvents
from snakepit.loops.wakeups import WakeUps
from snakepit.wire.credit import Credit


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a pool asks an adapter for when it wants a worker.

    ``concurrency`` is the number of calls the worker will be given at a time, ``pool_size`` how
    many workers take calls at the most, itself included, ``cancel_grace`` the seconds a call has to
    stop once it is told to, ``spin`` how many seconds the worker may look for its next call before
    it sleeps, ``pool`` the pool's name.
    """

    worker_id: str
    pool_size: int
    concurrency: int
    cancel_grace: float = 0.25
    spin: float = 0.0
    host_functions: Mapping[str, HostFunction] = field(default_factory=dict)
    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What an adapter is told of a call besides command and arguments.

    ``timeout``: seconds that remain, or None. ``idempotency_key``: its caller's own name for it, or
    None.
    """

    session_id: str | None
    timeout: float | None
    idempotency_key: str | None = None


@runtime_checkable
class Adapter(Protocol):
    """The contract of a pool's workers. Only ``execute`` is required. Everything runs in the host's
    event loop.

    Optional methods:

    - ``async init() -> None``: before the first worker; an exception becomes AdapterInitFailed.
    - ``async start_worker(spec: WorkerSpec) -> worker``: any object, which ``execute`` gets back.
      It may have the attributes ``pid``, ``async stop()`` (end it in order, when the pool ends) and
      ``kill()`` (end it at once: a call of it does not stop, or ``stop`` is missing or slow).
    - ``execute_stream(worker, command, args, options) -> AsyncIterator``: without it, streams are
      refused.
    - ``async reload() -> None``: workers that are started from now on have the code as it is now;
      called by ``Pool.reload``, which then replaces all workers.
    - ``async terminate(reason: str) -> None``: once, after all workers are gone.

    Optional attributes:

    - ``worker_limit: int | None``: how many workers it can have at a time, those that are leaving
      included. A pool is refused that needs more, and keeps to it: where that leaves no room, a
      worker that is recycled ends before its successor starts.
    - ``worker_memory: int | None``: bytes of memory that each may use, for the default size.
    """

    async def execute(
        self, worker: Any, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> Any:
        """Run a command on a worker; return its result. When cancelled, the work has to stop."""


class DirectWorker(Protocol):
    """A worker that takes calls without a task for each, as those of PythonAdapter do."""

    worker_id: str
    pid: int | None

    @property
    def queues(self) -> bool:
        """Whether calls may be sent to it beyond its concurrency, to wait there."""

    @property
    def in_flight(self) -> int: ...
    @property
    def wanted(self) -> int: ...
    def attach(self, events: WorkerEvents) -> None: ...
    def start_call(self, call: Call) -> None: ...
    def stop_call(self, call: Call) -> None: ...
    def recall(self, patience: float) -> bool: ...
    def poll(self) -> bool: ...
    def grant(self, call: Call, credit: Credit) -> None: ...
    def kill(self, reason: str) -> None: ...
    async def stop(self, grace: float) -> None: ...


async def call_worker(
    worker: DirectWorker, command: str, args: Mapping[str, Any], options: CallOptions
) -> Any:
    """Run a command on a worker that no pool has."""
    now = time.monotonic()
    deadline = None if options.timeout is None else now + options.timeout
    call = Call(command, args, WakeUps(), now, deadline, options.session_id)
    worker.start_call(call)
    try:
        return await call
    except asyncio.CancelledError:
        worker.stop_call(call)
        raise


# Name, number of positional arguments besides self, and whether it has to be a coroutine function.
_CONTRACT = (
    ("execute", 4, True, True),
    ("execute_stream", 4, False, False),
    ("init", 0, True, False),
    ("start_worker", 1, True, False),
    ("reload", 0, True, False),
    ("terminate", 1, True, False),
)


def validate_implementation(adapter: object) -> list[str]:
    """Everything that keeps ``adapter`` (an instance, a class or a module) from being one; empty if
    nothing does.

    Example::

        class Nothing:
            pass

        assert "it has no method execute" in validate_implementation(Nothing())[0]
    """
    problems = []
    for name, arity, is_async, required in _CONTRACT:
        method = getattr(adapter, name, None)
        if method is None:
            if required:
                problems.append(f"it has no method {name}(worker, command, args, options)")
        elif not callable(method):
            problems.append(f"{name} is no method but {type(method).__name__}")
        else:
            problems += _method_problems(adapter, name, method, arity, is_async)
    return problems


def _method_problems(
    adapter: object, name: str, method: Callable[..., Any], arity: int, is_async: bool
) -> list[str]:
    problems = []
    if is_async and not inspect.iscoroutinefunction(method):
        problems.append(f"{name} has to be a coroutine function (async def)")
    if not is_async and (
        inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method)
    ):
        problems.append(f"{name} has to return an async iterator (async def with yield)")
    unbound = inspect.isclass(adapter) and not isinstance(
        inspect.getattr_static(adapter, name), staticmethod | classmethod
    )
    try:
        inspect.signature(method).bind(*range(arity + unbound))
    except TypeError as error:
        problems.append(f"{name} has to take {arity} positional argument(s): {error}")
    except ValueError:
        pass  # a builtin without a signature: only a call can tell
    return problems


def require_valid(adapter: object) -> None:
    """Refuse an object that is no adapter.

    Raises:
        AdapterInvalid: with the full list of problems.
    """
    problems = validate_implementation(adapter)
    if inspect.isclass(adapter):
        problems.append("it is a class; pass an instance of it")
    if not callable(getattr(adapter, "execute", None)):  # most likely what workers are to run
        problems.append(
            "if it is, or names, a class whose commands workers are to run, "
            "pass PythonAdapter('package.module:Class')"
        )
    if problems:
        raise AdapterInvalid.of(_name_of(adapter), problems)


def _name_of(adapter: object) -> str:
    return getattr(adapter, "__qualname__", None) or type(adapter).__qualname__
